"""`inv rotate`: the Redis servers of a fleet get other passwords under its clients, and none of these notices."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from shards.fleet.accounts import ADMIN, APP
from shards.tokens import KeyFile, grant_of
from tests.fleet.clients import crowd
from tests.fleet.conftest import fleet_in
from tests.fleet.runner import Commands, finish, steady
from tests.fleet.test_durability import SMALL, WELL_AGAIN_S, acked_more, server

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

SERVERS = ("shared-0", "shared-1", "redis_blue", "redis_green", "redis_shared")
USERS = {ADMIN: "redis", APP: "redis-app"}

Shown = dict[str, list[str]]


def passwords(fleet: Commands) -> Shown:
    return {user: (fleet.directory / "secrets" / file).read_text().split() for user, file in USERS.items()}


def client(fleet: Commands, name: str, user: str, password: str) -> Redis:
    port = fleet.remembered()["ports"][name]
    # Otherwise it tries a password that is refused again and again.
    once = Retry(NoBackoff(), 0)
    return Redis(port=port, username=user, password=password, decode_responses=True, retry=once)


def lets_in(fleet: Commands, name: str, user: str, password: str) -> bool:
    with client(fleet, name, user, password) as asked:
        try:
            asked.execute_command("AUTH", user, password)
        except AuthenticationError:
            return False
    return True


def check_rotated(fleet: Commands, before: Shown, names: tuple[str, ...] = SERVERS) -> None:
    """See that each server lets in who shows what is shown now, and nobody who shows what was shown before."""
    now = passwords(fleet)
    for user, (password, *others) in now.items():
        assert not others, "nothing is left beside it"
        assert password not in before[user]
        for name in names:
            assert lets_in(fleet, name, user, password), name
            assert not any(lets_in(fleet, name, user, old) for old in before[user]), name


def connections(fleet: Commands) -> dict[str, set[str]]:
    """Give the connections of workers to each server that they keep up, by their ids there."""
    found = {}
    for name in SERVERS:
        with client(fleet, name, ADMIN, passwords(fleet)[ADMIN][0]) as admin:
            kept = [one for one in admin.client_list() if one["name"] == "shards-worker"]
        assert {one["user"] for one in kept} <= {APP}
        found[name] = {one["id"] for one in kept}
    return found


async def test_passwords_change_under_clients_that_notice_nothing(fleet: Commands) -> None:
    before = passwords(fleet)
    async with crowd(fleet.url, 20) as ledger:
        await acked_more(ledger)
        kept = await asyncio.to_thread(connections, fleet)
        assert all(kept[name] for name in ("shared-0", "shared-1"))
        told = await asyncio.to_thread(fleet.ok, "rotate")
        await acked_more(ledger)
        assert await asyncio.to_thread(connections, fleet) == kept, "workers keep their connections as well"
        await asyncio.to_thread(check_rotated, fleet, before)
        assert (ledger.connects, ledger.failures, ledger.faults, ledger.cut) == (20, [], [], 0)
        # A worker, and a server, that start later come up with what is good now; so does what connects anew.
        await asyncio.to_thread(fleet.ok, "restart", "blue-0")
        shard = (await asyncio.to_thread(fleet.status))["shards"][0]
        psutil.Process(shard["pid"]).kill()
        await asyncio.to_thread(fleet.until, lambda status: status["shards"][0]["pid"] not in (shard["pid"], None))
        await asyncio.to_thread(fleet.until, steady)
        await acked_more(ledger)
        await asyncio.to_thread(check_rotated, fleet, before)
    assert (ledger.failures, ledger.faults) == ([], [])
    assert told.stdout.strip() == "the Redis users have new passwords, the old ones are refused"


def test_nothing_that_a_fleet_does_was_refused(fleet: Commands) -> None:
    """Of all that was done so far; a promote, which does the most, too."""
    fleet.ok("promote")
    fleet.ok("rollback")
    fleet.ok("status")
    for name in SERVERS:
        with client(fleet, name, ADMIN, passwords(fleet)[ADMIN][0]) as admin:
            refused = [entry for entry in admin.acl_log() if entry["reason"] != "auth"]
        # redis-py says who it is, and goes on where it may not.
        assert [entry for entry in refused if entry["object"] not in ("client", "client|setinfo")] == [], name


def test_no_password_is_said_anywhere(fleet: Commands) -> None:
    known = [password for user in passwords(fleet).values() for password in user]
    texts = [path.read_text(errors="replace") for path in fleet.directory.glob("logs/*")]
    texts += [path.read_text(errors="replace") for path in fleet.directory.glob("conf/**/*.conf")]
    texts += [" ".join([*one.cmdline(), *one.environ().values()]) for one in fleet.processes()]
    texts += [fleet.ok("status").stdout, fleet.ok("status", "--json").stdout, fleet.ok("doctor").stdout]
    assert not [text for text in texts if any(password in text for password in known)]
    for file in (fleet.directory / "secrets").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file


def amid_the_first_stage(before: Shown, now: Shown) -> bool:
    return len(now[APP]) > len(before[APP]) and now[APP][0] == before[APP][0]


def amid_the_second_stage(before: Shown, now: Shown) -> bool:
    return len(now[APP]) > len(before[APP]) and now[APP][0] not in before[APP]


def amid_the_third_stage(before: Shown, now: Shown) -> bool:
    return len(now[APP]) == 1 and now[APP][0] not in before[APP]


@pytest.mark.parametrize("point", [amid_the_first_stage, amid_the_second_stage, amid_the_third_stage])
@pytest.mark.parametrize("command", ["rotate", "up"])
async def test_killed_half_way_nobody_is_locked_out_and_the_next_run_finishes(
    fleet: Commands, point: Callable[[Shown, Shown], bool], command: str
) -> None:
    before = passwords(fleet)
    async with crowd(fleet.url, 10) as ledger:
        await asyncio.to_thread(killed_at, fleet, lambda now: point(before, now))
        left = passwords(fleet)
        # Whoever connects now is let in.
        assert all(lets_in(fleet, name, user, shown) for name in SERVERS for user, (shown, *_) in left.items())
        assert (await asyncio.to_thread(fleet.status))["state"] == "steady"
        if command == "rotate":
            await asyncio.to_thread(fleet.ok, "rotate")
            await asyncio.to_thread(check_rotated, fleet, left)
        else:
            await asyncio.to_thread(fleet.ok, "up")
            for name in SERVERS:
                for user, good in left.items():
                    wanted = {password: password in good for password in {*good, *before[user]}}
                    assert {one: lets_in(fleet, name, user, one) for one in wanted} == wanted, "as the files say"
        await acked_more(ledger)
    assert (ledger.connects, ledger.failures, ledger.faults, ledger.cut) == (10, [], [], 0)


def killed_at(fleet: Commands, reached: Callable[[Shown], bool]) -> None:
    rotating = fleet.start("rotate")
    end = time.monotonic() + 60
    while not reached(passwords(fleet)):
        assert rotating.poll() is None, "it was through before it could be killed"
        assert time.monotonic() < end
    rotating.kill()
    assert finish(rotating).code == -signal.SIGKILL


def test_the_key_of_tokens_changes_and_the_one_before_is_good_once_more(fleet: Commands) -> None:
    keys = KeyFile(fleet.directory / "secrets" / "tokens")
    first, _ = keys.sign(grant_of(["room"], ["publish"]), 600)
    fleet.ok("rotate", "--tokens")
    second, _ = keys.sign(grant_of(["room"], ["publish"]), 600)
    assert len(keys.keys()) == 2
    assert [keys.verify(token).groups for token in (first, second)] == [("room",), ("room",)]
    assert fleet("publish", "--group", "room", "--data", "1").code == 0
    fleet.ok("rotate", "--tokens")
    keys.verify(second)
    with pytest.raises(Exception, match="not signed with a key of this fleet"):
        keys.verify(first)


def test_a_fleet_that_is_not_up_is_told_so(commands: Commands) -> None:
    refused = commands("rotate")
    assert (refused.code, "is not up" in refused.last) == (1, True)
    assert not (commands.directory / "secrets").exists()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Commands]:
    for commands in fleet_in(tmp_path, "pair"):
        commands.ok("up", *SMALL, "--durability", "replicated")
        yield commands


async def test_servers_of_a_pair_and_sentinels_go_on_with_one_another(pair: Commands) -> None:
    await asyncio.to_thread(pair.until, steady, WELL_AGAIN_S)
    before = passwords(pair)
    names = ("shared-0", "shared-0-twin", *(f"sentinel-{i}" for i in range(3)), "redis_shared")
    async with crowd(pair.url, 10) as ledger:
        await acked_more(ledger)
        await asyncio.to_thread(pair.ok, "rotate")
        await asyncio.to_thread(check_rotated, pair, before, names)
        assert (ledger.connects, ledger.cut) == (10, 0)
        # The copy takes over, the killed one copies it, and a Sentinel that died has written down what it was told.
        killed = await asyncio.to_thread(server, pair, "primary")
        sentinel = (await asyncio.to_thread(pair.status))["sentinels"][0]
        psutil.Process(sentinel["pid"]).kill()
        psutil.Process(killed["pid"]).kill()
        await acked_more(ledger)
        await asyncio.to_thread(pair.until, steady, WELL_AGAIN_S)
        await asyncio.to_thread(check_rotated, pair, before, names)
    assert (ledger.failures, ledger.faults) == ([], [])

"""Releases that are checked before clients come to them: bad ones leave the color that serves exactly as it was."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.fleet import sites
from tests.fleet.clients import crowd
from tests.fleet.conftest import fleet_in
from tests.fleet.controller import strike
from tests.fleet.runner import Commands, Result
from tests.fleet.sites import Site

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

QUICK = {
    "INVOKE_FLEET_CANARY_SECONDS": "5",
    "INVOKE_FLEET_CANARY_GROWN_MB": "48",
    # How fast one color is beside the other is chance on a busy machine.
    "INVOKE_FLEET_CANARY_P99_MS": "5000",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Commands, Site]]:
    """A fleet of somebody's own app; a test leaves a good release in the directory and any color active."""
    site = Site(tmp_path_factory.mktemp("site") / "site")
    for commands in fleet_in(tmp_path_factory.mktemp("fleet"), "p"):
        commands.environment = QUICK
        commands.ok("up", "--replicas", "2", "--shards", "1", "--edges", "1", *site.flags)
        yield commands, site


def what_serves(commands: Commands) -> tuple[str, list[tuple[str, int]]]:
    status = commands.until(lambda status: status["state"] == "steady")
    return status["active_color"], [(replica["name"], replica["pid"]) for replica in status["replicas"]]


async def promote(commands: Commands, *flags: str, **environment: str) -> Result:
    return await asyncio.to_thread(commands, "promote", *flags, **environment)


@pytest.mark.parametrize(
    "code,flags,words",
    [
        (sites.DOES_NOT_IMPORT, (), ("no_such_thing",)),
        (sites.DIES, (), ("does not stay up", "no license")),
        (sites.NEVER_READY, (), ("the moon is not full",)),
        (sites.SWALLOWS, (), ("is ready, but", "did not come back")),
        (sites.REFUSES, (), ("is ready, but", "403")),
        (sites.LEAKS, ("--canary", "20"), ("canary", "grew by")),
        (sites.FAILS_NOW_AND_THEN, ("--canary", "50"), ("canary", "failed")),
    ],
    ids=["does not import", "dies", "is never ready", "swallows messages", "refuses", "leaks", "fails now and then"],
)
async def test_a_bad_release_leaves_what_serves_exactly_as_it_was(
    served: tuple[Commands, Site], code: str, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    commands, site = served
    before = what_serves(commands)
    site.write(code)
    # All others must have the time to get ready, before it shows what is wrong with them.
    impatient = {"INVOKE_FLEET_READY_SECONDS": "10"} if code == sites.NEVER_READY else {}
    async with crowd(commands.url, 20) as ledger:
        promoting = asyncio.create_task(promote(commands, *flags, **impatient))
        while not promoting.done():
            # New clients come meanwhile, so that a canary gets some.
            await visit(commands.url, 10 if flags else 0)
        failed = await promoting
        assert failed.code == 1
        assert len([line for line in failed.stderr.splitlines() if line.startswith("error: ")]) == 1
        for word in (*words, f"{before[0]} serves as before"):
            assert word in failed.last
        status = await asyncio.to_thread(what_serves, commands)
    assert status == before, "the same processes"
    assert ledger.faults == []
    if "--canary" not in flags:
        assert (ledger.failures, ledger.connects) == ([], 20), "nobody noticed"


async def test_strangers_are_not_told_why_a_release_fails(served: tuple[Commands, Site]) -> None:
    """Its last line may name anything; whoever gave the command reads it, whoever opens the dashboard does not."""
    commands, site = served
    before = what_serves(commands)
    site.write(sites.DIES)
    told: list[str] = []
    async with connect(commands.url.replace("http", "ws") + "/fleet/live", max_size=None) as page:
        promoting = asyncio.create_task(promote(commands))
        while not promoting.done() or '"cutover":{' in told[-1]:
            told.append(str(await page.recv()))
    assert "no license" in (await promoting).last
    steps = {json.loads(text)["cutover"]["step"] for text in told if '"cutover":{' in text}
    assert "deploy" in steps, "it was looked at while it went on"
    assert not [text for text in told if "no license" in text or str(commands.directory) in text]
    assert what_serves(commands) == before


@pytest.mark.parametrize("verb", ["rollback", "promote"])
async def test_a_failed_promote_whose_controller_died_is_brought_to_its_end(
    served: tuple[Commands, Site], verb: str
) -> None:
    commands, site = served
    before = what_serves(commands)
    site.write(sites.REFUSES)
    async with crowd(commands.url, 10) as ledger:
        point = "withdraw.route_old"
        killed = await asyncio.to_thread(strike, commands, "promote", "kill the controller", point, before[0])
        assert killed.code == -signal.SIGKILL
        site.write(sites.PLAIN)
        ended = await asyncio.to_thread(commands, verb)
        assert ended.code == 0, ended.stderr
        status = await asyncio.to_thread(what_serves, commands)
    assert (status == before) is (verb == "rollback"), "a promote finishes the way back, and then begins anew"
    assert (ledger.failures, ledger.faults) == ([], [])


async def test_a_release_that_does_not_bear_the_sockets_gets_no_more_of_them(served: tuple[Commands, Site]) -> None:
    commands, site = served
    before = what_serves(commands)
    site.write(sites.DIES_OF_SOCKETS)
    async with crowd(commands.url, 60) as ledger:
        failed = await promote(commands)
        assert failed.code == 1
        assert "died while sockets moved to it" in failed.last
        assert f"`inv rollback` goes back to {before[0]}" in failed.stderr
        site.write(sites.PLAIN)
        back = await asyncio.to_thread(commands, "rollback")
        assert back.code == 0, back.stderr
        assert await asyncio.to_thread(what_serves, commands) == before, "the same processes"
    assert ledger.faults == []
    assert ledger.connects < 60 + 30, "most have noticed nothing"


async def visit(url: str, count: int) -> None:
    """Let clients come and go; of a canary that fails some are refused."""

    async def one() -> None:
        try:
            async with connect(f"{url}/ws/", compression=None) as socket:
                await socket.recv()
        except (WebSocketException, OSError):
            pass

    await asyncio.gather(*(one() for _ in range(count)))
    await asyncio.sleep(0.1)

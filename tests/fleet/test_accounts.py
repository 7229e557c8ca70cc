"""What the users of a fleet's Redis servers may do, asked of real ones; and how passwords follow one another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.retry import Retry

from shards.fleet import accounts
from shards.fleet.accounts import ADMIN, APP, Passwords
from shards.fleet.engines import redis_server, sentinel
from tests.fleet.runner import ROOT
from tests.redis_server import RedisServer

GOOD = Passwords(("of the admin",), ("of the app", "of the app before"))

REFUSED = [
    *("FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "KEYS *", "SORT list", "RESTORE key 0 dump", "MIGRATE host 1 key 0 1"),
    *("CONFIG GET *", "CONFIG SET maxmemory 1", "CONFIG REWRITE", "ACL LIST", "ACL SETUSER app +@all", "ACL USERS"),
    *("SHUTDOWN", "DEBUG SLEEP 0", "MONITOR", "REPLICAOF NO ONE", "SLAVEOF NO ONE", "FAILOVER", "SYNC", "PSYNC ? -1"),
    *("SAVE", "BGSAVE", "BGREWRITEAOF", "LASTSAVE", "MODULE LIST", "SLOWLOG GET", "LATENCY RESET", "CLUSTER RESET"),
    *("CLIENT LIST", "CLIENT KILL TYPE pubsub", "SCRIPT FLUSH", "SCRIPT KILL", "EVAL return 0", "RANDOMKEY", "DBSIZE"),
    *("RENAME a b", "RENAMENX a b", "COPY a b", "MOVE a 1"),
]
"""What docs/security.md says that a replica may not."""

PERMITTED = [
    *("SCAN 0", "DEL a", "UNLINK a", "EXISTS a", "SET a 1", "GET a", "HSET h f 1", "HDEL h f", "HGETALL h", "HVALS h"),
    *("XADD s * f 1", "XRANGE s - +", "XTRIM s MAXLEN 0", "ZADD z 1 a", "LPUSH l 1", "SADD g 1", "PEXPIRE s 1"),
    *("PUBLISH a b", "INFO", "ROLE", "PING", "WAIT 0 1"),
]
"""What it says that a replica may: all it takes to read, change and delete every key there is."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server with the configuration of a fleet's."""
    directory = tmp_path_factory.mktemp("server")
    text = redis_server.render("", port=0, directory=directory, good=GOOD, descriptors=1000, backlog=10)
    (directory / "users").write_text("\n".join(line for line in text.splitlines() if line.startswith("user ")))
    started = RedisServer(directory / "data", "--include", str(directory / "users"), with_app=False).start()
    yield started
    started.kill()


def client(server: RedisServer, user: str, password: str) -> Redis:
    once = Retry(NoBackoff(), 0)
    return Redis(port=server.port, username=user, password=password, decode_responses=True, retry=once)


@pytest.mark.parametrize("command", REFUSED)
def test_a_replica_may_not(server: RedisServer, command: str) -> None:
    # DEBUG is refused from Redis 7 on whoever asks.
    with client(server, APP, "of the app") as app, pytest.raises(ResponseError, match=r"no permissions|not allowed"):
        app.execute_command(*command.split())


@pytest.mark.parametrize("command", PERMITTED)
def test_a_replica_may(server: RedisServer, command: str) -> None:
    with client(server, APP, "of the app") as app:
        app.execute_command(*command.split())


def test_a_replica_may_delete_all_there_is_with_a_script_of_its_own(server: RedisServer) -> None:
    """So docs/security.md does not say that it may not."""
    with client(server, APP, "of the app") as app:
        app.set("somebodys", 1)
        digest = app.script_load("return redis.call('UNLINK', unpack(redis.call('SCAN', '0', 'COUNT', '1000')[2]))")
        app.evalsha(digest, 0)
        assert app.scan(0)[1] == []


@pytest.mark.parametrize("words", [("FLUSHALL",), ("KEYS", "*")], ids=" ".join)
def test_a_replica_may_not_from_a_script_or_a_transaction_either(server: RedisServer, words: tuple[str, ...]) -> None:
    with client(server, APP, "of the app") as app:
        with pytest.raises(ResponseError, match=r"can't run this command|NOPERM|ACL failure"):
            app.evalsha(app.script_load(f"return redis.call({', '.join(map(repr, words))})"), 0)
        with pytest.raises(NoPermissionError), app.pipeline(transaction=True) as pipe:
            pipe.execute_command(*words)
            pipe.execute()


def test_the_documentation_names_what_is_tried_here_and_nothing_else() -> None:
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    [row] = [line for line in lines if line.startswith("| replicas, and processes of yours")]
    may, may_not = (re.findall(r"`([A-Z][A-Z ]+)`", cell) for cell in row.split(" | ")[2:4])
    assert may and {words for words in may if not any(tried.startswith(words) for tried in PERMITTED)} == set()
    named = {next((words for words in may_not if tried.startswith(words)), tried) for tried in REFUSED}
    assert named - {"LASTSAVE", "PSYNC ? -1", "SLAVEOF NO ONE", "LATENCY RESET", "CLIENT LIST", "BGSAVE"} == set(
        may_not
    )


def test_who_has_no_password_or_a_wrong_one_may_nothing(server: RedisServer) -> None:
    with Redis(port=server.port) as nobody, pytest.raises(AuthenticationError):
        nobody.ping()
    for user, password in ((ADMIN, "of the app"), (APP, "of the admin"), (ADMIN, "")):
        with client(server, user, password) as wrong, pytest.raises(AuthenticationError):
            wrong.execute_command("AUTH", user, password)


def test_all_passwords_of_a_user_are_good(server: RedisServer) -> None:
    for password in GOOD.app:
        with client(server, APP, password) as app:
            assert app.ping() is True


def test_a_configuration_tells_no_password(tmp_path: Path) -> None:
    text = redis_server.render("", port=1, directory=tmp_path, good=GOOD, descriptors=1000, backlog=10)
    assert not [password for password in (*GOOD.admin, *GOOD.app) if password in text]


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[RedisServer]:
    """A Sentinel with the configuration of a fleet's."""
    file = tmp_path / "sentinel.conf"
    file.write_text(sentinel.render(port=1, directory=tmp_path, good=GOOD))
    started = RedisServer(tmp_path / "data", sentinel=str(file), with_app=False).start()
    yield started
    started.kill()


def test_a_replica_may_ask_a_sentinel_for_the_primary_and_nothing_else(watching: RedisServer) -> None:
    with client(watching, APP, "of the app") as app:
        assert app.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", "shared-0") is None
        for command in ("SENTINEL MASTERS", "SENTINEL REMOVE shared-0", "SHUTDOWN", "ACL LIST", "INFO"):
            with pytest.raises(NoPermissionError):
                app.execute_command(*command.split())


def test_the_password_that_is_shown_is_good_from_one_stage_to_the_next() -> None:
    stages = [GOOD, *accounts.rotation(GOOD, Passwords(("new",), ("new of the app",)))]
    for before, after in pairwise(stages):
        for user in ("admin", "app"):
            was, becomes = getattr(before, user), getattr(after, user)
            assert becomes[0] in was, "servers know what is shown before it is"
            assert was[0] in becomes, "who has read it before is let in still"
    assert stages[-1] == Passwords(("new",), ("new of the app",)), "what was left of earlier runs goes too"

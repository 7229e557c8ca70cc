"""A promote that waits: for a canary's figures, for a word, for another command to be through."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import connect

from tests.fleet.clients import crowd
from tests.fleet.runner import Commands, Result, finish, steady

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

# How fast the new color is beside the old one is not what these are about, and on a busy machine it is chance.
QUICK = {"INVOKE_FLEET_CANARY_SECONDS": "3", "INVOKE_FLEET_CANARY_P99_MS": "5000"}


def other(color: str) -> str:
    return "green" if color == "blue" else "blue"


async def command(fleet: Commands, *arguments: str) -> Result:
    return await asyncio.to_thread(fleet.ok, *arguments)


async def test_a_canary_that_is_well_is_promoted(fleet: Commands) -> None:
    before = fleet.until(steady)["active_color"]
    async with crowd(fleet.url, 20) as ledger:
        promote = fleet.start("promote", "--canary", "50", **QUICK)
        async with crowd(fleet.url, 20, groups=5) as later:
            pass
        promoted = await asyncio.to_thread(finish, promote)
        assert promoted.code == 0, promoted.stderr
        assert f"sending 50 % of new requests to {other(before)}" in promoted.stderr
        assert "the canary is well" in promoted.stderr
        assert "a message published and delivered" in promoted.stderr, "it says what was probed"
        status = await asyncio.to_thread(fleet.until, steady)
        assert status["active_color"] == other(before)
    assert (ledger.failures, ledger.faults, later.failures, later.faults) == ([], [], [], [])


@pytest.mark.parametrize("word,switches", [("promote", True), ("rollback", False)])
async def test_a_promote_that_is_held_waits_for_a_command(fleet: Commands, word: str, switches: bool) -> None:
    before = fleet.until(steady)["active_color"]
    async with crowd(fleet.url, 10) as ledger:
        held = await command(fleet, "promote", "--hold")
        assert "`inv promote` switches, `inv rollback` takes" in held.stdout
        status = fleet.status()
        assert (status["active_color"], len(status["replicas"])) == (before, 4), "both colors run"
        assert (status["state"], status["cutover"]["step"]) == ("deploying", "hold")
        assert f"(promote to {other(before)} at hold)" in fleet.ok("status").stdout
        assert fleet("up").code == 1, "nothing else may be changed meanwhile"
        await command(fleet, word)
        status = await asyncio.to_thread(fleet.until, steady)
        assert status["active_color"] == (other(before) if switches else before)
        assert len(status["replicas"]) == 2
    assert (ledger.failures, ledger.faults) == ([], [])
    if not switches:
        assert ledger.connects == 10, "nobody was moved"


async def test_a_canary_gets_its_share_of_new_clients(fleet: Commands) -> None:
    before = fleet.until(steady)["active_color"]
    await asyncio.to_thread(fleet.ok, "promote", "--canary", "25", "--hold", INVOKE_FLEET_CANARY_SECONDS="1")
    homes = []
    for _ in range(80):
        async with connect(f"{fleet.url}/ws/", compression=None) as socket:
            homes.append(json.loads(await socket.recv())["replica"])
    assert 15 <= sum(home.startswith(other(before)) for home in homes) <= 25, homes
    await command(fleet, "rollback")
    assert fleet.until(steady)["active_color"] == before


@pytest.mark.parametrize("went_on_elsewhere", [False, True])
def test_on_a_terminal_enter_is_the_word(fleet: Commands, went_on_elsewhere: bool) -> None:
    before = fleet.until(steady)["active_color"]
    terminal, theirs = pty.openpty()
    promote = fleet.start("promote", "--hold", stdin=theirs)
    os.close(theirs)
    assert promote.stdout is not None
    assert "Enter switches" in promote.stdout.readline()
    if went_on_elsewhere:
        fleet.ok("rollback")
    os.write(terminal, b"\n")
    result = finish(promote)
    os.close(terminal)
    status = fleet.until(steady)
    if went_on_elsewhere:
        assert result.code == 1
        assert "by another command" in result.last
        assert status["active_color"] == before, "the word was for a cutover that is gone"
    else:
        assert result.code == 0
        assert status["active_color"] == other(before)


def under_way(promote: subprocess.Popen[str]) -> None:
    """Wait until a promote has begun."""
    assert promote.stderr is not None
    for line in promote.stderr:
        if line.startswith("starting"):
            return
    raise AssertionError("it ended")


def test_the_second_of_two_promotes_is_told_of_the_first(fleet: Commands) -> None:
    before = fleet.until(steady)["active_color"]
    # Long enough that the first is not through before the others have begun, which are so both at once.
    first = fleet.start("promote", "--canary", "50", INVOKE_FLEET_CANARY_SECONDS="15")
    under_way(first)
    for second in map(finish, [fleet.start(verb) for verb in ("promote", "rollback")]):
        assert second.code == 1
        assert len(second.stderr.strip().splitlines()) == 1
        assert f"`inv promote` (pid {first.pid}, since " in second.last
    assert finish(first).code == 0
    assert fleet.until(steady)["active_color"] == other(before)


def test_a_promote_that_stands_still_is_overtaken_and_does_nothing_more(fleet: Commands) -> None:
    before = fleet.until(steady)["active_color"]
    first = fleet.start("promote")
    under_way(first)
    first.send_signal(signal.SIGSTOP)
    try:
        end = time.monotonic() + 120
        while True:
            second = fleet("promote")
            if second.code == 0:
                break
            assert f"(pid {first.pid}, since" in second.last
            assert time.monotonic() < end
            time.sleep(0.5)
    finally:
        first.send_signal(signal.SIGCONT)
    overtaken = finish(first)
    assert overtaken.code == 1
    assert "another command has taken this one over" in overtaken.last
    status = fleet.until(steady)
    assert (status["active_color"], len(status["replicas"])) == (other(before), 2)


async def test_the_control_redis_restarts_while_the_edges_are_switched(fleet: Commands) -> None:
    before = fleet.until(steady)
    control = next(redis for redis in before["redis"] if redis["name"] == "redis_shared")
    async with crowd(fleet.url, 20) as ledger:
        promote = fleet.start("promote")
        assert promote.stderr is not None
        for line in promote.stderr:
            if line.startswith("switching"):
                break
        psutil.Process(control["pid"]).kill()
        result = await asyncio.to_thread(finish, promote)
        assert result.code == 0, result.stderr
        status = await asyncio.to_thread(fleet.until, steady)
        assert status["active_color"] == other(before["active_color"])
    assert (ledger.failures, ledger.faults) == ([], [])


@pytest.fixture
def full_disk(fleet: Commands) -> Callable[[], Any]:
    """Give a context in which there is no room for the file that the edges work by."""

    @contextlib.contextmanager
    def full() -> Iterator[None]:
        # Where it is written first, before it takes its place, is a disk of its own that is full.
        fleet.before = f"ln -s /dev/full {shlex.quote(str(fleet.directory))}/.fleet.yml.$$.tmp"
        try:
            yield
        finally:
            fleet.before = ""
            for first in fleet.directory.glob(".fleet.yml.*.tmp"):
                first.unlink()

    return full


async def test_no_room_for_the_edges_file(fleet: Commands, full_disk: Callable[[], Any]) -> None:
    before = fleet.until(steady)
    async with crowd(fleet.url, 10) as ledger:
        with full_disk():
            failed = await asyncio.to_thread(fleet, "promote")
        assert failed.code == 1
        assert "No space left on device" in failed.last
        assert f"{before['active_color']} serves as before" in failed.last
        after = await asyncio.to_thread(fleet.until, steady)
        assert [replica["pid"] for replica in after["replicas"]] == [replica["pid"] for replica in before["replicas"]]
        await command(fleet, "promote")
    assert (ledger.failures, ledger.faults) == ([], [])


class TestRestart:
    """One part is replaced, and nobody but it is the worse for it."""

    async def test_a_replica_is_replaced_under_its_clients(self, fleet: Commands) -> None:
        before = fleet.until(steady)
        replica = before["replicas"][0]
        async with crowd(fleet.url, 20) as ledger:
            await command(fleet, "restart", replica["name"])
            after = await asyncio.to_thread(fleet.until, steady)
        assert [one["name"] for one in after["replicas"]] == [one["name"] for one in before["replicas"]]
        assert after["replicas"][0]["pid"] != replica["pid"]
        assert after["replicas"][1]["pid"] == before["replicas"][1]["pid"]
        assert (ledger.failures, ledger.faults) == ([], [])
        assert ledger.connects == 20, "nobody had to reconnect"

    async def test_an_edge_is_replaced_while_another_listens(self, fleet: Commands) -> None:
        before = fleet.until(steady)
        async with crowd(fleet.url, 20) as ledger:
            await command(fleet, "restart", "edge-0")
            after = await asyncio.to_thread(fleet.until, steady)
        assert [edge["name"] for edge in after["edges"]] == [edge["name"] for edge in before["edges"]]
        assert after["edges"][0]["pid"] != before["edges"][0]["pid"]
        assert after["edges"][1]["pid"] == before["edges"][1]["pid"]
        assert (ledger.failures, ledger.faults, ledger.cut) == ([], [], 0), "each was asked to go, and went"

    @pytest.mark.parametrize(
        "name,words",
        [("shared-0", ("inv reshard",)), ("redis_shared", ("no other",)), ("blue-77", ("no 'blue-77'", "edge-0"))],
    )
    def test_what_can_not_be_replaced_is_told_why(self, fleet: Commands, name: str, words: tuple[str, ...]) -> None:
        refused = fleet("restart", name)
        assert refused.code == 2
        assert len(refused.stderr.strip().splitlines()) == 1
        for word in words:
            assert word in refused.last

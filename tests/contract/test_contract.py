"""What every engine does the same: the commands' promises, on each of them."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import Any

import pytest
from websockets.asyncio.client import connect

from shards.tokens import KeyFile, grant_of
from tests.contract.engines import AnyCommands, DockerCommands
from tests.fleet.clients import crowd
from tests.fleet.runner import part, serving, steady

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

KINDS = ("edges", "replicas", "shards", "redis")


def identities(fleet: AnyCommands, status: dict[str, Any]) -> dict[str, object]:
    return {one["name"]: fleet.identity(one) for kind in KINDS for one in status[kind]}


async def command(fleet: AnyCommands, *arguments: str) -> None:
    await asyncio.to_thread(fleet.ok, *arguments)


def test_a_fleet_comes_up_and_tells_of_itself(fleet: AnyCommands, engine: str) -> None:
    status = fleet.until(steady)
    assert status["engine"] == engine
    assert status["ring"]["slots"] == sum(shard["slots"] for shard in status["shards"]) == 1024
    assert [len(status[kind]) for kind in KINDS] == [2, 2, 2, 3]
    for kind in KINDS:
        for one in status[kind]:
            assert one["healthy"]
            assert one["rss_bytes"] > 1_000_000
            assert (one["pid"] is None) == (engine != "local")
            assert (one["container"] is None) == (engine == "local")
    with urllib.request.urlopen(f"http://{fleet.host}:{fleet.port}/livez", timeout=30) as answer:
        assert answer.status == 200


def test_up_again_changes_nothing(fleet: AnyCommands) -> None:
    before = identities(fleet, fleet.until(steady))
    fleet.ok("up")
    assert identities(fleet, fleet.status()) == before


def test_no_secret_is_in_status_or_logs(fleet: AnyCommands) -> None:
    said = json.dumps(fleet.status()) + fleet.ok("logs").stdout
    for file in (fleet.directory / "secrets").iterdir():
        text = file.read_text()
        assert len(text) < 10 or text not in said


async def test_passwords_are_rotated_under_clients_or_the_engine_says_why_not(fleet: AnyCommands, engine: str) -> None:
    await asyncio.to_thread(fleet.until, steady)
    before = [(fleet.directory / "secrets" / name).read_text() for name in ("redis", "redis-app")]
    async with crowd(fleet.url, 20) as ledger:
        done = await asyncio.to_thread(fleet, "rotate")
        now = [(fleet.directory / "secrets" / name).read_text() for name in ("redis", "redis-app")]
        if engine == "swarm":
            assert (done.code, "a swarm's secrets can't be changed" in done.last, now) == (1, True, before)
            return
        assert done.code == 0, done.stderr
        assert len({*before, *now}) == 4
        assert (ledger.connects, ledger.failures, ledger.faults) == (20, [], [])
        # One that starts later finds the new ones where it looks for them.
        await command(fleet, "restart", "blue-0")
        await asyncio.to_thread(fleet.kill, part(await asyncio.to_thread(fleet.status), "redis_shared"))
        await asyncio.to_thread(fleet.until, steady)
    assert (ledger.failures, ledger.faults) == ([], [])


async def test_who_came_with_a_key_that_goes_is_asked_back_and_cut_off_over_two_rotations(
    fleet: AnyCommands, engine: str
) -> None:
    """Who has the newer token notices nothing, and neither does anybody of the first rotation."""
    keys = KeyFile(fleet.directory / "secrets" / "tokens")

    def url() -> str:
        return f"{fleet.url}/ws/?token={keys.sign(grant_of(['room'], ['subscribe']), 600)[0]}"

    await asyncio.to_thread(fleet.until, steady)
    async with connect(url()) as early:
        assert '"welcome"' in str(await early.recv())
        first = await asyncio.to_thread(fleet, "rotate", "--tokens")
        if engine == "swarm":
            assert (first.code, "a swarm's secrets can't be changed" in first.last) == (1, True)
            return
        assert first.code == 0, first.stderr
        async with connect(url()) as late:
            assert '"welcome"' in str(await late.recv())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(early.recv(), 3)
            run = await asyncio.to_thread(fleet.ok, "rotate", "--tokens")
            ended = time.monotonic()
            assert "closed ten seconds later" in run.stdout
            hint = json.loads(await early.recv())
            assert (hint["type"], hint["within_ms"]) == ("reconnect", 10_000)
            await early.wait_closed()
            assert early.close_code == 1008
            assert time.monotonic() - ended < 15
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(late.recv(), 1)


@pytest.mark.parametrize("kind,index", [("replicas", 0), ("edges", 1), ("shards", 1), ("redis", 2)])
def test_a_part_that_is_killed_comes_back(fleet: AnyCommands, kind: str, index: int) -> None:
    killed = fleet.until(steady)[kind][index]
    before = fleet.identity(killed)
    fleet.kill(killed)
    status = fleet.until(lambda status: steady(status) and fleet.identity(status[kind][index]) != before)
    assert part(status, killed["name"])["healthy"]


async def test_promote_and_rollback_lose_nothing(fleet: AnyCommands) -> None:
    before = await asyncio.to_thread(fleet.until, steady)
    first, second = ("blue", "green") if before["active_color"] == "blue" else ("green", "blue")
    edges = [fleet.identity(edge) for edge in before["edges"]]
    async with crowd(fleet.url, 40) as ledger:
        for verb, old, active in (("promote", first, second), ("rollback", second, first)):
            await command(fleet, verb)
            status = await asyncio.to_thread(fleet.until, serving(40))
            assert status["active_color"] == active
            assert [replica["name"] for replica in status["replicas"]] == [f"{active}-0", f"{active}-1"]
            if isinstance(fleet, DockerCommands):
                left, there = [await asyncio.to_thread(fleet.replicas_of, color) for color in (old, active)]
                assert (left, len(there)) == ([], 2), "the old color's containers are removed"
    assert (ledger.failures, ledger.faults) == ([], [])
    assert ledger.connects == 40, "nobody had to reconnect"
    assert [fleet.identity(edge) for edge in fleet.status()["edges"]] == edges, "no edge was restarted"


async def test_replicas_come_and_go_under_their_clients(fleet: AnyCommands) -> None:
    color = (await asyncio.to_thread(fleet.until, steady))["active_color"]
    asked = 0
    async with crowd(fleet.url, 30) as ledger:
        for count in (3, 1, 2):
            asked += far_from_those_that_stay(await asyncio.to_thread(fleet.until, serving(30)), count)
            await command(fleet, "up", "--replicas", str(count))
            status = await asyncio.to_thread(fleet.until, serving(30))
            assert [replica["name"] for replica in status["replicas"]] == [f"{color}-{i}" for i in range(count)]
    assert (ledger.failures, ledger.faults, ledger.cut) == ([], [], 0)
    assert ledger.connects == 30 + asked, "nobody had to reconnect whose socket could be handed over"


def far_from_those_that_stay(status: dict[str, Any], count: int) -> int:
    """Count the sockets of replicas that go where only `count` stay, and none of these on their node.

    A socket can't leave its host: such clients are asked to reconnect. An engine of one host knows no nodes.
    """
    stay, go = status["replicas"][:count], status["replicas"][count:]
    nodes = {replica.get("node") for replica in stay}
    return sum(replica["connections"] for replica in go if replica.get("node") not in nodes)


async def test_a_replica_is_restarted_under_its_clients(fleet: AnyCommands) -> None:
    before = (await asyncio.to_thread(fleet.until, steady))["replicas"]
    name, first = before[1]["name"], fleet.identity(before[1])
    async with crowd(fleet.url, 20) as ledger:
        await command(fleet, "restart", name)
        after = (await asyncio.to_thread(fleet.until, serving(20)))["replicas"]
    assert [(one["name"], one.get("node")) for one in after] == [(one["name"], one.get("node")) for one in before]
    assert fleet.identity(after[1]) != first
    assert (ledger.failures, ledger.faults) == ([], [])
    assert ledger.connects == 20, "what stood in was where sockets could be handed to it"


async def test_shards_come_and_go_under_their_clients(fleet: AnyCommands) -> None:
    async with crowd(fleet.url, 30) as ledger:
        for count in (3, 2):
            await command(fleet, "reshard", "--shards", str(count))
            status = await asyncio.to_thread(fleet.until, steady)
            assert [shard["name"] for shard in status["shards"]] == [f"shared-{i}" for i in range(count)]
            assert sum(shard["slots"] for shard in status["shards"]) == 1024
    assert (ledger.failures, ledger.faults) == ([], [])
    assert ledger.connects == 30, "nobody had to reconnect"


def test_edges_come_and_go(fleet: AnyCommands) -> None:
    before = [fleet.identity(edge) for edge in fleet.until(steady)["edges"]]
    fleet.ok("up", "--edges", "3")
    assert len(fleet.until(steady)["edges"]) == 3
    fleet.ok("up", "--edges", "2")
    assert [fleet.identity(edge) for edge in fleet.until(steady)["edges"]] == before


async def test_an_edge_is_restarted_and_its_clients_are_asked_to_come_back(fleet: AnyCommands) -> None:
    edges = (await asyncio.to_thread(fleet.until, steady))["edges"]
    before = [fleet.identity(edge) for edge in edges]
    async with crowd(fleet.url, 40) as ledger:
        await command(fleet, "restart", "edge-0")
        status = await asyncio.to_thread(fleet.until, serving(40))
    assert [edge.get("node") for edge in status["edges"]] == [edge.get("node") for edge in edges]
    after = [fleet.identity(edge) for edge in status["edges"]]
    assert [one == another for one, another in zip(before, after, strict=True)] == [False, True]
    assert (ledger.failures, ledger.faults, ledger.cut) == ([], [], 0)
    assert ledger.connects > 40, "those that came through it went through another one"


def test_logs_of_one_part_or_of_all(fleet: AnyCommands) -> None:
    fleet.until(steady)
    assert "Ready to accept connections" in fleet.ok("logs", "shared-0").stdout
    assert "shared-1" in fleet.ok("logs").stdout
    unknown = fleet("logs", "blue-99")
    assert (unknown.code, len(unknown.stderr.splitlines())) == (2, 1)


def test_what_was_published_is_there_after_down_and_up(commands: AnyCommands) -> None:
    commands.ok("up", "--replicas", "1", "--shards", "1", "--edges", "1")
    assert commands.ok("publish", "--group", "g", "--data", "1").stdout.strip() == "1"
    assert "is down" in commands.ok("down").stdout
    commands.gone()
    assert commands("status", "--json").code == 1
    assert "was not up" in commands.ok("down").stdout
    commands.ok("up", "--replicas", "1", "--edges", "1")
    assert commands.ok("publish", "--group", "g", "--data", "2").stdout.strip() == "2", "the log goes on"
    commands.ok("down", "--purge")
    assert not commands.directory.exists()


def test_a_port_that_is_taken_is_told_and_nothing_is_left(commands: AnyCommands) -> None:
    with commands.taken():
        refused = commands("up", "--replicas", "1", "--edges", "1")
    assert refused.code == 1
    assert f"port {commands.port} is in use" in refused.last
    assert commands("status", "--json").code == 1


def test_an_app_that_does_not_import_is_told_before_anything_starts(commands: AnyCommands) -> None:
    refused = commands("up", "--app", "app.asgi:nothing")
    assert (refused.code, refused.last.count("does not import")) == (2, 1), refused.stderr
    assert commands("status", "--json").code == 1

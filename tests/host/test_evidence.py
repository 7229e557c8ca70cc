"""Evidence is of the place where the fleet is, and what could not be looked at is told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis

from shards.errors import ShardsError
from shards.fleet.engines.local import LocalOptions
from shards.fleet.fleet import Fleet
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState, Place
from shards.host import evidence
from shards.host.evidence import files_limit, gather
from shards.host.symptoms import CPU, DISK, FILES, MEMORY, REFUSED, symptoms
from shards.router.control import Control, WorkerRecord
from tests.redis_server import RedisServer

REDIS = ("redis_blue", "redis_green", "redis_shared")


class Silent(Fleet):
    """A fleet whose parts have logged nothing."""

    said: str = ""

    def engine(self, spec: FleetSpec) -> Any:
        return self

    async def lines(self, name: str | None, follow: bool) -> AsyncIterator[tuple[str, str]]:
        if self.said:
            raise ShardsError(self.said)
        for line in ():
            yield line


@pytest.fixture
def fleet(tmp_path: Path) -> Silent:
    directory = FleetDir(tmp_path, "t")
    directory.create()
    return Silent(directory, LocalOptions(tmp_path), print)


@pytest.fixture
def state(start_redis: Callable[..., RedisServer]) -> FleetState:
    server = start_redis()
    return FleetState(FleetSpec(project="t", shards=1), ports=dict.fromkeys(REDIS, server.port))


def part(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "healthy": True, "rss_bytes": 1, "cpu_percent": 1.0, **more}


def status(*edges: dict[str, Any], engine: str = "local") -> dict[str, Any]:
    kinds = ("replicas", "redis", "shards", "sentinels")
    return {"engine": engine, "edges": list(edges), **{kind: [] for kind in kinds}}


async def test_a_part_of_this_host_is_looked_into(fleet: Silent, state: FleetState) -> None:
    found = await gather(fleet, state, status(part("edge-0", pid=os.getpid())))
    assert found.parts[0].files is not None
    assert {server.name for server in found.redis} == set(REDIS)
    assert set(found.overflows) == {"this host started"}
    assert found.memory_available
    assert found.unseen == {}


async def test_of_several_workers_the_busiest_is_seen(fleet: Silent, state: FleetState) -> None:
    """One at its end beside one that does nothing is half of what both can."""
    kept = WorkerRecord("blue-0/1", "blue", "blue-0", "1", 1, "active", 1, "r", 1, 0.0, cpu_percent=99.0)
    others = [replace(kept, name="blue-0/2", cpu_percent=1.0), replace(kept, name="blue-1/1", replica="blue-1")]
    async with Redis(port=state.ports["redis_shared"]) as redis:
        for worker in [kept, *others]:
            await Control(redis).heartbeat(worker, b"")
    found = await gather(fleet, state, status(part("blue-0", pid=None), part("blue-1", pid=None)))
    assert [one.busiest_percent for one in found.parts] == [99.0, 0.0]


def test_the_files_of_a_fleet_are_those_of_its_process_that_may_open_the_fewest() -> None:
    """A shell that was given less than this one, and what it starts, which has less still."""
    run = "ulimit -n 1000; sh -c 'ulimit -n 900; echo; sleep 60; :'; :"
    with subprocess.Popen(["sh", "-c", run], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        try:
            assert files_limit(status(part("edge-0", pid=os.getpid()), part("edge-1", pid=shell.pid))) == 900
        finally:
            for process in [*psutil.Process(shell.pid).children(recursive=True), shell]:
                process.kill()
    assert files_limit(status(part("edge-0", pid=None))) is None


async def test_a_process_of_another_user_is_not_called_well(
    fleet: Silent, state: FleetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(process: psutil.Process) -> int:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "num_fds", denied)
    edges = [part(name, pid=os.getpid()) for name in ("edge-0", "edge-1")]
    found = await gather(fleet, state, status(*edges))
    assert found.unseen == {FILES: ["edge-0, edge-1: another user's process: `sudo inv doctor` may look"]}
    assert {one.name: one.verdict for one in symptoms(found)}[FILES] == "unknown"


async def test_a_part_that_is_gone_is_not_one_that_nobody_may_see(fleet: Silent, state: FleetState) -> None:
    found = await gather(fleet, state, status(part("edge-0", pid=None, healthy=False)))
    assert found.unseen == {}


async def test_logs_that_can_not_be_read_are_told(fleet: Silent, state: FleetState) -> None:
    object.__setattr__(fleet, "said", "the daemon is away")
    found = await gather(fleet, state, status())
    assert set(found.unseen) == {FILES, REFUSED, MEMORY, DISK}
    assert found.unseen[DISK] == ["what the parts have logged: the daemon is away"]


async def test_a_server_that_turns_clients_away_now_is_told_from_one_that_did(
    fleet: Silent, state: FleetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Redis(port=state.ports["redis_blue"]) as redis:
        infos = [await redis.info() for _ in range(2)]
    asked = []

    async def info(*_: Any) -> dict[str, Any]:
        asked.append(None)
        return {**infos[0], "rejected_connections": 40 if len(asked) <= len(REDIS) else 43}

    monkeypatch.setattr(evidence, "_info", info)
    found = await gather(fleet, state, status())
    assert {(server.rejected, server.rejecting) for server in found.redis} == {(43, 3)}


async def test_in_a_swarm_each_server_is_asked_where_it_is_and_this_host_is_not_taken_for_it(
    fleet: Silent, state: FleetState
) -> None:
    spread = replace(
        state,
        spec=replace(state.spec, engine="swarm"),
        # Nobody listens there; on this host somebody does, at the same port.
        places={"redis_blue": Place("far", "127.0.0.9"), "redis_green": Place("near", "127.0.0.1")},
    )
    found = await gather(fleet, spread, status(part("edge-0", container="x", node="far"), engine="swarm"))
    assert [server.name for server in found.redis] == ["redis_green", "redis_shared"]
    assert "redis_blue: does not answer INFO" in found.unseen[DISK]
    assert any("the nodes' memory and cores" in text for text in found.unseen[CPU])
    assert (found.memory_available, found.busy_percent, found.oom_kills) == (None, 0.0, 0)


async def test_of_a_container_its_own_network_is_asked_once_for_all_that_share_it(
    fleet: Silent, state: FleetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"Id": "a", "State": {"Pid": os.getpid()}, "HostConfig": {"NetworkMode": "t_default"}}
    shared = {**kept, "Id": "b", "HostConfig": {"NetworkMode": "container:a"}}
    known = {"one": kept, "two": shared}
    monkeypatch.setattr(evidence, "_container", lambda row, unseen: known[row["container"]])
    found = await gather(fleet, state, status(part("blue-0", container="one"), part("green-0", container="two")))
    assert set(found.overflows) == {"the network of blue-0, green-0 was made"}
    assert found.parts[0].files is not None


async def test_the_process_of_a_container_elsewhere_is_not_looked_for_here(
    fleet: Silent, state: FleetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {"Id": "a", "State": {"Pid": os.getpid()}, "HostConfig": {"NetworkMode": "t_default"}}
    monkeypatch.setattr(evidence, "_container", lambda row, unseen: there)
    monkeypatch.setenv("DOCKER_HOST", "ssh://far")
    found = await gather(fleet, state, status(part("blue-0", container="one")))
    assert found.parts[0].files is None
    assert found.unseen == {FILES: ["blue-0: on another host"], REFUSED: ["blue-0: on another host"]}

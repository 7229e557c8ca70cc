"""`inv doctor` finds, on a fleet that runs, what its users meet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis

from tests.fleet.runner import Commands

pytestmark = pytest.mark.fleet


def symptoms(fleet: Commands) -> dict[str, dict[str, Any]]:
    done = fleet("doctor", "--connections", "100", "--json")
    found = json.loads(done.stdout)["fleet"]
    assert found["project"] == fleet.project
    return {one["name"]: one for one in found["symptoms"]}


def test_each_of_them_is_looked_for(fleet: Commands) -> None:
    found = symptoms(fleet)
    assert set(found) == {"too many open files", "connection refused", "out of memory", "disk full", "high CPU"}
    assert found["too many open files"]["verdict"] == "ok"


def test_the_files_are_those_of_the_fleet_and_not_of_the_shell_that_asks(fleet: Commands) -> None:
    edge = psutil.Process(fleet.status()["edges"][0]["pid"])
    done = replace(fleet, before="ulimit -n 1400")("doctor", "--connections", "800", "--json")
    found = json.loads(done.stdout)
    assert found["host"]["descriptors"] == edge.rlimit(psutil.RLIMIT_NOFILE)[0]
    nofile = next(check for check in found["checks"] if check["name"] == "nofile")
    assert nofile["have"].startswith("this fleet was started with")
    assert "from here it could have 1,400" in nofile["have"]


def test_an_edge_that_can_open_no_more_files_is_found(fleet: Commands) -> None:
    edges = [psutil.Process(edge["pid"]) for edge in fleet.status()["edges"]]
    for edge in edges:
        edge.rlimit(psutil.RLIMIT_NOFILE, (edge.num_fds() + 4, edge.rlimit(psutil.RLIMIT_NOFILE)[1]))
    try:
        with connections(fleet.port, 60):
            found = symptoms(fleet)["too many open files"]
    finally:
        for edge in edges:
            hard = edge.rlimit(psutil.RLIMIT_NOFILE)[1]
            edge.rlimit(psutil.RLIMIT_NOFILE, (hard, hard))
    assert found["verdict"] == "fail"
    assert any("files open" in line and line.startswith("edge-") for line in found["evidence"])


def test_a_worker_that_can_open_no_more_files_says_so_itself(fleet: Commands) -> None:
    """Nobody else does: who comes is taken, and closed at once."""
    replica = next(one for one in fleet.status()["replicas"] if one["state"] == "active")
    parent = psutil.Process(replica["pid"])
    workers = [parent, *parent.children(recursive=True)]
    for worker in workers:
        # Numbers from 3 on are all above it, so that no file can be had whatever is closed meanwhile.
        worker.rlimit(psutil.RLIMIT_NOFILE, (3, worker.rlimit(psutil.RLIMIT_NOFILE)[1]))
    try:
        end = time.monotonic() + 10
        while "who comes is turned away" not in fleet.ok("logs", replica["name"]).stdout:
            assert time.monotonic() < end
    finally:
        for worker in workers:
            hard = worker.rlimit(psutil.RLIMIT_NOFILE)[1]
            worker.rlimit(psutil.RLIMIT_NOFILE, (hard, hard))
    found = symptoms(fleet)["too many open files"]
    assert any("too many open files: all 3" in line and line.startswith(replica["name"]) for line in found["evidence"])
    fleet.until(lambda status: bool(status["state"] == "steady"))


@contextlib.contextmanager
def connections(port: int, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        yield


def test_a_redis_that_turns_clients_away_is_found(fleet: Commands) -> None:
    asyncio.run(fill_redis(fleet))
    found = symptoms(fleet)["connection refused"]
    assert found["verdict"] == "warn", "it was: since it was started"
    assert any("redis_green has turned away" in line for line in found["evidence"])


async def fill_redis(fleet: Commands) -> None:
    """Have the idle color's Redis, which nobody needs, turn one client away."""
    state = json.loads((fleet.directory / "fleet.json").read_text())
    port, password = state["ports"]["redis_green"], (fleet.directory / "secrets" / "redis").read_text().strip()
    async with Redis(port=port, password=password) as redis:
        most = (await redis.config_get("maxclients"))["maxclients"]
        clients = (await redis.info("clients"))["connected_clients"]
        await redis.config_set("maxclients", clients)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert b"max number of clients reached" in await reader.readline()
            writer.close()
        finally:
            await redis.config_set("maxclients", most)

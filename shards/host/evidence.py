"""Gathers what speaks for a symptom on a fleet that runs: `/proc`, the Redis servers, the logs, the containers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
from redis.exceptions import RedisError

from shards.errors import ShardsError
from shards.fleet import layout, probe
from shards.fleet.engines.docker import daemon
from shards.fleet.fleet import Fleet
from shards.fleet.state import FleetState
from shards.fleet.status import Status
from shards.host.symptoms import Evidence, PartSeen, RedisSeen

_KINDS = ("edges", "replicas", "redis")
_SAMPLE_S = 0.3
_KERNEL_SHOWS = "cat /proc/sys/net/core/somaxconn; ulimit -n"


async def gather(fleet: Fleet, state: FleetState, status: Status) -> Evidence:
    """Gather the evidence.

    Args:
        fleet: that runs.
        state: what is remembered of it.
        status: what `inv status` says of it.
    """
    psutil.cpu_percent()
    await asyncio.sleep(_SAMPLE_S)
    redis, lines = await asyncio.gather(_redis(fleet, state), _lines(fleet, state))
    memory = psutil.virtual_memory()
    return Evidence(
        parts=[part for rows in _rows(status) if (part := await asyncio.to_thread(_part, rows, status))],
        redis=redis,
        lines=lines,
        overflows=_netstat("ListenOverflows"),
        oom_kills=_vmstat("oom_kill"),
        busy_percent=psutil.cpu_percent(),
        cores=psutil.cpu_count() or 1,
        memory_available=memory.available,
        memory_total=memory.total,
    )


def _rows(status: Status) -> Iterable[Mapping[str, Any]]:
    for kind in _KINDS:
        yield from status[kind]
    for shard in status["shards"]:
        yield from shard["servers"] or [shard]


def _part(row: Mapping[str, Any], status: Status) -> PartSeen:
    container = _container(row["container"]) if row.get("container") else {}
    pid = row.get("pid") or container.get("State", {}).get("Pid")
    files, limit = _files(pid) if pid else (None, None)
    quota = container.get("HostConfig", {}).get("NanoCpus", 0) / 1e9
    return PartSeen(
        row["name"],
        healthy=bool(row["healthy"]),
        files=files,
        files_limit=limit,
        rss_bytes=row.get("rss_bytes", 0),
        memory_limit_bytes=row.get("memory_limit_bytes"),
        cpu_percent=row.get("cpu_percent", 0.0),
        cores=min(quota or 64, _cores(row, status)),
        oom_killed=bool(container.get("State", {}).get("OOMKilled")),
        throttled=int(container.get("Throttled", 0)),
    )


def _cores(row: Mapping[str, Any], status: Status) -> float:
    """Tell how many cores a part can make use of: a worker and a Redis server work on one, edges on all."""
    if row["name"].startswith("edge-"):
        return (psutil.cpu_count() or 1) / max(1, len(status["edges"])) if status["engine"] == "local" else 64.0
    return float(row.get("workers", 1))


def _files(pid: int) -> tuple[int | None, int | None]:
    """Count the open files of that process of a tree which has the fewest left."""
    found: list[tuple[int, int]] = []
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                found.append((process.num_fds(), process.rlimit(psutil.RLIMIT_NOFILE)[0]))
    return min(found, key=lambda one: one[1] - one[0], default=(None, None))


def _container(identity: str) -> Mapping[str, Any]:
    with contextlib.suppress(ShardsError), contextlib.closing(daemon.connect()) as client, daemon.errors():
        figures = client.api.stats(identity, stream=False, one_shot=True)
        throttled = figures.get("cpu_stats", {}).get("throttling_data", {}).get("throttled_periods", 0)
        return {**client.api.inspect_container(identity), "Throttled": throttled}
    return {}


async def _redis(fleet: Fleet, state: FleetState) -> list[RedisSeen]:
    password = fleet.directory.password()
    parts = layout.redis_parts(state)
    answers = await asyncio.gather(*(_info(part.port, password) for part in parts))
    return [_server(part.name, info) for part, info in zip(parts, answers, strict=True) if info]


async def _info(port: int, password: str) -> Mapping[str, Any]:
    client = probe.redis_client(port, password)
    try:
        async with asyncio.timeout(probe.PROBE_S):
            info: Mapping[str, Any] = await client.info()
            return info
    except (RedisError, OSError, TimeoutError):
        return {}
    finally:
        await client.aclose()


def _server(name: str, info: Mapping[str, Any]) -> RedisSeen:
    clients, most, rejected, used, maxmemory = (
        int(info.get(key, 0))
        for key in ("connected_clients", "maxclients", "rejected_connections", "used_memory", "maxmemory")
    )
    unwritten = info.get("aof_last_write_status", "ok") != "ok"
    return RedisSeen(name, clients, most or 10_000, rejected, used, maxmemory, unwritten)


async def _lines(fleet: Fleet, state: FleetState) -> list[tuple[str, str]]:
    with contextlib.suppress(ShardsError):
        return [said async for said in fleet.engine(state.spec).lines(None, follow=False)]
    return []


def _netstat(name: str) -> int:
    """Give a counter of the kernel's TCP, of this network namespace."""
    with contextlib.suppress(OSError, ValueError):
        names, numbers = (line.split() for line in Path("/proc/net/netstat").read_text().splitlines()[:2])
        return int(numbers[names.index(name)])
    return 0


def _vmstat(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            key, _, number = line.partition(" ")
            if key == name:
                return int(number)
    return 0


def kernels_inside(status: Status) -> dict[str, tuple[int, int]]:
    """Ask the containers of a fleet what the kernel allows in them: somaxconn and open files, by part."""
    found = {}
    rows = [row for row in _rows(status) if row.get("container")]
    with contextlib.suppress(ShardsError), contextlib.closing(daemon.connect()) as client, daemon.errors():
        for row in rows:
            limits = _inside(client, row)
            if limits:
                found[row["name"]] = limits
    return found


def _inside(client: Any, row: Mapping[str, Any]) -> tuple[int, int] | None:
    said = client.containers.get(row["container"]).exec_run(["sh", "-c", _KERNEL_SHOWS]).output.decode().split()
    return (int(said[0]), int(said[1])) if len(said) == 2 and all(map(str.isdigit, said)) else None

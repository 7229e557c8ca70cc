"""Gathers what speaks for a symptom on a fleet that runs: `/proc`, the Redis servers, the logs, the containers.

What could not be looked at is told as well: where nobody looked, nothing is known to be well.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
import psutil
from redis.exceptions import RedisError

from shards.errors import ShardsError
from shards.fleet import layout, probe
from shards.fleet.engines.docker import daemon
from shards.fleet.fleet import Fleet
from shards.fleet.state import FleetState
from shards.fleet.status import Status
from shards.host.running import rows
from shards.host.symptoms import CPU, DISK, FILES, MEMORY, REFUSED, Evidence, PartSeen, RedisSeen
from shards.router.control import Control, WorkerRecord

_SAMPLE_S = 0.3
_KERNEL_SHOWS = "cat /proc/sys/net/core/somaxconn; ulimit -n"
_OWN_NETSTAT = "/proc/net/netstat"
_HOST_STARTED = "this host started"
_ANOTHERS = "another user's process: `sudo inv doctor` may look"
_ELSEWHERE = "on another host"
_UNLIMITED = sys.maxsize
_NO_ANSWER = "does not answer INFO"

Info = Mapping[str, Any]
"""What a Redis server says of itself."""


@dataclass
class Unseen:
    """What could not be looked at: parts by the symptom that might have shown, and why."""

    _parts: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def note(self, part: str, why: str, *symptoms: str) -> None:
        """Note that a part could not be looked at."""
        for symptom in symptoms:
            self._parts.setdefault((symptom, why), []).append(part)

    def told(self) -> dict[str, list[str]]:
        """Give it as `Evidence` has it: parts of which the same is to be said together."""
        found: dict[str, list[str]] = {}
        for (symptom, why), parts in self._parts.items():
            found.setdefault(symptom, []).append(f"{', '.join(parts)}: {why}")
        return found


@dataclass(frozen=True)
class _Looked:
    """What was seen of a part; `network` names the network of its own that its container has, or shares."""

    part: PartSeen
    pid: int | None
    network: str = ""


async def gather(fleet: Fleet, state: FleetState, status: Status) -> Evidence:
    """Gather the evidence.

    Args:
        fleet: that runs.
        state: what is remembered of it.
        status: what `inv status` says of it.
    """
    unseen = Unseen()
    psutil.cpu_percent()
    before = await _redis(fleet, state)
    await asyncio.sleep(_SAMPLE_S)
    after, lines = await asyncio.gather(_redis(fleet, state), _lines(fleet, state, unseen))
    workers = await _workers(fleet, state)
    looked = [await asyncio.to_thread(_look, row, status, unseen, workers) for row in rows(status)]
    for name, info in after.items():
        if not info:
            unseen.note(name, _NO_ANSWER, MEMORY, DISK)
    evidence = Evidence(
        parts=[one.part for one in looked],
        redis=[_server(name, before[name], info) for name, info in after.items() if info],
        lines=lines,
        overflows=_overflows(looked, unseen),
    )
    if state.spec.engine == "swarm":
        unseen.note("the nodes' memory and cores", _ELSEWHERE, MEMORY, CPU)
        return replace(evidence, unseen=unseen.told())
    memory = psutil.virtual_memory()
    return replace(
        evidence,
        oom_kills=_vmstat("oom_kill"),
        busy_percent=psutil.cpu_percent(),
        cores=psutil.cpu_count() or 1,
        memory_available=memory.available,
        memory_total=memory.total,
        unseen=unseen.told(),
    )


async def _workers(fleet: Fleet, state: FleetState) -> Sequence[WorkerRecord]:
    """Ask the registry what each worker says of itself; nothing where it does not answer, which is told anyway."""
    host = layout.host(state, layout.CONTROL)
    client = probe.redis_client(state.ports[layout.CONTROL], fleet.directory.password(), host=host)
    try:
        async with asyncio.timeout(probe.PROBE_S):
            return await Control(client).workers()
    except (RedisError, OSError, TimeoutError):
        return ()
    finally:
        await client.aclose()


def busiest(workers: Sequence[WorkerRecord], replica: str) -> float:
    """Give the CPU, in percent of a core, of that worker of a replica which uses the most; 0: it has not several."""
    mine = [worker.cpu_percent for worker in workers if worker.replica == replica]
    return max(mine) if len(mine) > 1 else 0.0


def _look(row: Mapping[str, Any], status: Status, unseen: Unseen, workers: Sequence[WorkerRecord]) -> _Looked:
    container = _container(row, unseen)
    pid = row.get("pid") or _pid_of(row, container, unseen)
    files, limit = _files(row["name"], pid, unseen) if pid else (None, None)
    quota = container.get("HostConfig", {}).get("NanoCpus", 0) / 1e9
    part = PartSeen(
        row["name"],
        healthy=bool(row["healthy"]),
        files=files,
        files_limit=limit,
        rss_bytes=row.get("rss_bytes", 0),
        memory_limit_bytes=row.get("memory_limit_bytes"),
        cpu_percent=row.get("cpu_percent", 0.0),
        cores=min(quota or 64, _cores(row, status)),
        busiest_percent=busiest(workers, row["name"]),
        oom_killed=bool(container.get("State", {}).get("OOMKilled")),
        throttled=int(container.get("Throttled", 0)),
    )
    return _Looked(part, pid, _network(container))


def _cores(row: Mapping[str, Any], status: Status) -> float:
    """Tell how many cores a part can make use of: a worker and a Redis server work on one, edges on all."""
    if row["name"].startswith("edge-"):
        return (psutil.cpu_count() or 1) / max(1, len(status["edges"])) if status["engine"] == "local" else 64.0
    return float(row.get("workers", 1))


def _files(part: str, pid: int, unseen: Unseen) -> tuple[int | None, int | None]:
    """Count the open files of that process of a part which has the fewest left."""
    found: list[tuple[int, int]] = []
    try:
        for process in _tree(pid):
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                found.append((process.num_fds(), _nofile(process)))
    except (psutil.AccessDenied, PermissionError):
        unseen.note(part, _ANOTHERS, FILES)
    return min(found, key=lambda one: one[1] - one[0], default=(None, None))


def files_limit(status: Status) -> int | None:
    """Tell how many files each process of a fleet's edges and replicas may open: as many as that with the fewest may.

    Args:
        status: what `inv status` says of a fleet that runs on this host itself.

    Returns:
        None where nobody can tell: none of them runs, or they are another user's.
    """
    found: list[int] = []
    pids = [row["pid"] for kind in ("edges", "replicas") for row in status.get(kind, ()) if row["pid"]]
    for pid in pids:
        # macOS does not tell of other processes.
        with contextlib.suppress(psutil.Error, OSError, AttributeError):
            found += [_nofile(process) for process in _tree(pid)]
    return min((limit for limit in found if limit < _UNLIMITED), default=None)


def _nofile(process: psutil.Process) -> int:
    """Read how many files a process may open.

    To ask the kernel of another user's process (prlimit) takes a capability that root in a container need not have.
    """
    lines = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    soft = next(line for line in lines if line.startswith("Max open files")).split()[3]
    return _UNLIMITED if soft == "unlimited" else int(soft)


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def _container(row: Mapping[str, Any], unseen: Unseen) -> Mapping[str, Any]:
    """Ask the daemon for a part's container; nothing where the part is in none, or that can't be told."""
    identity = row.get("container")
    if not identity:
        return {}
    try:
        with contextlib.closing(daemon.connect()) as client, daemon.errors():
            figures = client.api.stats(identity, stream=False, one_shot=True)
            throttled = figures.get("cpu_stats", {}).get("throttling_data", {}).get("throttled_periods", 0)
            return {**client.api.inspect_container(identity), "Throttled": throttled}
    except ShardsError as error:
        unseen.note(row["name"], str(error), FILES, REFUSED, MEMORY, CPU)
        return {}


def _pid_of(row: Mapping[str, Any], container: Mapping[str, Any], unseen: Unseen) -> int | None:
    """Give the process of a container, if it is one of this host."""
    pid = container.get("State", {}).get("Pid") or None
    if pid and daemon.elsewhere():
        unseen.note(row["name"], _ELSEWHERE, FILES, REFUSED)
        return None
    return pid


def _network(container: Mapping[str, Any]) -> str:
    """Name the network that a container is in by the container whose it is; the host's: nothing."""
    mode = container.get("HostConfig", {}).get("NetworkMode", "host")
    return "" if mode == "host" else mode.removeprefix("container:") if ":" in mode else container["Id"]


def _overflows(looked: Sequence[_Looked], unseen: Unseen) -> dict[str, int]:
    """Count the connections that met a full backlog, in each network that parts listen in, by what that began with."""
    inside: dict[str, list[_Looked]] = {}
    for one in looked:
        if one.pid:
            inside.setdefault(one.network, []).append(one)
    found = {}
    for network, members in inside.items():
        names = ", ".join(one.part.name for one in members)
        count = _netstat(f"/proc/{members[0].pid}/net/netstat" if network else _OWN_NETSTAT, "ListenOverflows")
        if count is None:
            unseen.note(names, "their network's counters", REFUSED)
        else:
            found[f"the network of {names} was made" if network else _HOST_STARTED] = count
    return found


async def _redis(fleet: Fleet, state: FleetState) -> dict[str, Info]:
    """Ask each of the fleet's own Redis servers what it says of itself; nothing of those that do not answer."""
    password = fleet.directory.password()
    parts = layout.redis_parts(state)
    answers = await asyncio.gather(*(_info(part.port, password, part.host) for part in parts))
    return {part.name: info for part, info in zip(parts, answers, strict=True)}


async def _info(port: int, password: str, host: str) -> Info:
    client = probe.redis_client(port, password, host=host)
    try:
        async with asyncio.timeout(probe.PROBE_S):
            info: Info = await client.info()
            return info
    except (RedisError, OSError, TimeoutError):
        return {}
    finally:
        await client.aclose()


def _server(name: str, before: Info, info: Info) -> RedisSeen:
    clients, most, rejected, used, maxmemory = (
        int(info.get(key, 0))
        for key in ("connected_clients", "maxclients", "rejected_connections", "used_memory", "maxmemory")
    )
    unwritten = info.get("aof_last_write_status", "ok") != "ok"
    # One that was started anew meanwhile counts from 0.
    rejecting = max(0, rejected - int(before.get("rejected_connections", rejected)))
    return RedisSeen(name, clients, most or 10_000, rejected, used, maxmemory, unwritten, rejecting)


async def _lines(fleet: Fleet, state: FleetState, unseen: Unseen) -> list[tuple[str, str]]:
    try:
        return [said async for said in fleet.engine(state.spec).lines(None, follow=False)]
    except ShardsError as error:
        unseen.note("what the parts have logged", str(error), FILES, REFUSED, MEMORY, DISK)
        return []


def _netstat(path: str, name: str) -> int | None:
    """Give a counter of the kernel's TCP, of one network namespace; None where it can't be read."""
    with contextlib.suppress(OSError, ValueError):
        names, numbers = (line.split() for line in Path(path).read_text().splitlines()[:2])
        return int(numbers[names.index(name)])
    return None


def _vmstat(name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            key, _, number = line.partition(" ")
            if key == name:
                return int(number)
    return 0


def kernels_inside(status: Status) -> dict[str, tuple[int, int] | None]:
    """Ask the containers of a fleet what the kernel allows in them.

    Args:
        status: what `inv status` says of the fleet.

    Returns:
        somaxconn and open files, by part; None: it does not say.
    """
    found: dict[str, tuple[int, int] | None] = {row["name"]: None for row in rows(status) if row.get("container")}
    with contextlib.suppress(ShardsError), contextlib.closing(daemon.connect()) as client:
        for row in rows(status):
            if row["name"] in found:
                found[row["name"]] = _inside(client, row["container"])
    return found


def _inside(client: docker.DockerClient, container: str) -> tuple[int, int] | None:
    with contextlib.suppress(ShardsError), daemon.errors():
        done: Any = client.containers.get(container).exec_run(["sh", "-c", _KERNEL_SHOWS])
        said = done.output.decode().split()
        return (int(said[0]), int(said[1])) if len(said) == 2 and all(map(str.isdigit, said)) else None
    return None

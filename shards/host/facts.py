"""Looks at a host: `/proc`, the limits of this process, the disk, and the programs that a fleet runs."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from shards.descriptors import descriptor_limit
from shards.errors import ShardsError
from shards.fleet.engines import redis_server
from shards.fleet.engines.docker import daemon
from shards.fleet.engines.edge import find_traefik
from shards.host.capacity import Host
from shards.host.checks import OLDEST, Facts
from shards.host.clock import synchronised
from shards.host.sysctl import Kernel
from shards.host.tune import may_be_raised
from shards.host.tuning import ports_in

DEFAULT_PORTS = 28_232
"""That a kernel gives to outgoing connections where nobody has told it otherwise."""

_MAXCLIENTS = 20_000
_NO_LIMIT = 1 << 60
_ANSWER_S = 10
_MEMORY_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_QUOTA_FILES = ("/sys/fs/cgroup/cpu.max",)
_OLD_QUOTA, _OLD_PERIOD = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"


def this_host() -> Host:
    """Look at what limits this host, or the container that this is."""
    total = psutil.virtual_memory().total
    return Host(_cores(), min(total, _memory_limit() or total), descriptor_limit(), usable_ports(Kernel()))


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.floor(_quota() or cores)))


def _quota() -> float | None:
    """Give how many cores' worth of time a control group lets this process have; None: as much as there is."""
    for file in _QUOTA_FILES:
        with contextlib.suppress(OSError, ValueError):
            quota, period = Path(file).read_text().split()
            return None if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota_us = int(Path(_OLD_QUOTA).read_text())
        return quota_us / int(Path(_OLD_PERIOD).read_text()) if quota_us > 0 else None
    return None


def _memory_limit() -> int | None:
    for file in _MEMORY_FILES:
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path(file).read_text())
            return limit if limit < _NO_LIMIT else None
    return None


def usable_ports(kernel: Kernel) -> int:
    """Count the ports that an outgoing connection may come from."""
    span = kernel.read("net.ipv4.ip_local_port_range")
    if span is None:
        return DEFAULT_PORTS
    low, high = map(int, span.split())
    reserved = ports_in(kernel.read("net.ipv4.ip_local_reserved_ports") or "")
    return high - low + 1 - sum(low <= port <= high for port in reserved)


def limits_of(engine: str, host: Host) -> Facts:
    """Look at all that can be seen without asking anybody: no program is started.

    Args:
        engine: where parts run. Containers have a backlog of their own, and what parts meet on the nodes of a swarm
            is not seen from here.
        host: what limits them.
    """
    kernel = Kernel()
    seen = Facts(
        host=host,
        engine=engine,
        soft=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        raisable=may_be_raised(),
        somaxconn=kernel.number("net.core.somaxconn"),
        conntrack=_conntrack(kernel),
        memory_available=psutil.virtual_memory().available,
        maxclients=min(_MAXCLIENTS, host.descriptors - redis_server.RESERVED_DESCRIPTORS),
        synchronised=synchronised(),
        disk_free=None,
        versions={},
    )
    if engine == "local":
        return seen
    if engine == "docker":
        return replace(seen, somaxconn=None)
    return replace(seen, somaxconn=None, conntrack=None, memory_available=None, synchronised=None)


def _conntrack(kernel: Kernel) -> tuple[int, int] | None:
    count, most = (kernel.number(f"net.netfilter.nf_conntrack_{name}") for name in ("count", "max"))
    return None if count is None or most is None else (count, most)


def facts(
    engine: str, host: Host, state_dir: Path, redis: str = "", traefik: str = "", asked: Collection[str] = tuple(OLDEST)
) -> Facts:
    """Look at a host, its programs too.

    Args:
        engine: where parts run.
        host: what limits it, or a container on it.
        state_dir: where fleets keep their files.
        redis: the Redis server that is set; empty: the one that would be found.
        traefik: the same of the edge.
        asked: the programs that are asked for their versions.
    """
    ask: Mapping[str, Callable[[], str | None]] = {
        "python": platform.python_version,
        "redis-server": lambda: _said_by(redis_server.find_server, redis, "--version"),
        "traefik": lambda: _said_by(find_traefik, traefik, "version"),
        "docker": _docker,
    }
    versions = {name: look() for name, look in ask.items() if name in asked}
    disk_free = None if engine == "swarm" else _disk_free(state_dir)
    return replace(limits_of(engine, host), disk_free=disk_free, versions=versions)


def _disk_free(directory: Path) -> int:
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free


def _said_by(find: Callable[[str], str], configured: str, *question: str) -> str | None:
    try:
        program = find(configured)
    except ShardsError:
        return None
    return version_of([program, *question])


def version_of(command: Sequence[str]) -> str | None:
    """Ask a program for its version, as ``7.0.15``; None where it does not say."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"(?:\bv=|Version:\s*v?)(\d[\d.]*)", answer)
    return match[1] if match else None


def _docker() -> str | None:
    with contextlib.suppress(ShardsError), contextlib.closing(daemon.connect()) as client, daemon.errors():
        return str(client.version()["Version"])
    return None

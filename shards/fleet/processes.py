"""Processes of this host: which belong to a fleet, what they use, who holds a port.

Each process of a fleet carries the fleet's directory in its environment. So it is found whatever became of its
parent, and a process that only got the number of one of ours is never mistaken for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from shards.addresses import Peer, plain

FLEET_VARIABLE = "SHARDS_FLEET"
PART_VARIABLE = "SHARDS_PART"


@dataclass(frozen=True)
class Usage:
    """What a process and its descendants use.

    Attributes:
        rss_bytes: resident memory.
        cpu_percent: of one core; 200 is two cores' worth.
        memory_limit_bytes: what it may use at most; None: there is no limit.
        cpu_limit_percent: the same of the CPU, of one core.
    """

    rss_bytes: int = 0
    cpu_percent: float = 0.0
    memory_limit_bytes: int | None = None
    cpu_limit_percent: float | None = None


def of_fleet(directory: Path) -> dict[str, list[psutil.Process]]:
    """Find the processes of a fleet, whoever their parent is.

    Args:
        directory: the fleet's.

    Returns:
        Part's name → its processes, parents before children.
    """
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        environ = _environ(process)
        if environ.get(FLEET_VARIABLE) == str(directory) and process.pid not in spared:
            found.setdefault(environ.get(PART_VARIABLE, ""), []).append(process)
    return found


def _environ(process: psutil.Process) -> Mapping[str, str]:
    # A zombie, a kernel thread or another user's process has no environment to read.
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ()
    return {}


def end(processes: Iterable[psutil.Process], grace_s: float) -> None:
    """End processes: ask, and kill those that are still there after `grace_s` seconds; 0: kill at once."""
    asked = list(processes)
    for process in asked if grace_s else ():
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(asked, timeout=grace_s)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5)


async def usage(pids: Mapping[str, int | None], sample_s: float = 0.2) -> dict[str, Usage]:
    """Measure what the parts use, each with its descendants.

    Args:
        pids: part's name → its process; None: it does not run.
        sample_s: over how many seconds the CPU's use is measured.
    """
    trees = await asyncio.to_thread(_trees, pids)
    before = {name: cpu_seconds(tree) for name, tree in trees.items()}
    await asyncio.sleep(sample_s)
    return {
        name: Usage(rss(tree), round(max(0.0, cpu_seconds(tree) - before[name]) / sample_s * 100, 1))
        for name, tree in trees.items()
    }


def _trees(pids: Mapping[str, int | None]) -> dict[str, list[psutil.Process]]:
    children: dict[int, list[psutil.Process]] = {}
    by_pid: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["ppid"]):
        by_pid[process.pid] = process
        children.setdefault(process.info["ppid"] or 0, []).append(process)
    trees: dict[str, list[psutil.Process]] = {}
    for name, pid in pids.items():
        tree = [by_pid[pid]] if pid in by_pid else []
        for process in tree:
            tree.extend(children.get(process.pid, ()))
        trees[name] = tree
    return trees


def rss(tree: Iterable[psutil.Process]) -> int:
    """Add up the memory of processes, in bytes; those that are gone count nothing."""
    total = 0
    for process in tree:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def cpu_seconds(tree: Iterable[psutil.Process]) -> float:
    """Add up the CPU time of processes, user and system, in seconds; those that are gone count nothing."""
    total = 0.0
    for process in tree:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def port_taken(host: str, port: int) -> OSError | None:
    """Tell why nobody can listen on a port now; None: it is free.

    Asks without `SO_REUSEPORT`, so that a stranger who shares the port is seen as well.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def listener(port: int) -> str | None:
    """Name the process that listens on a port, as ``name (pid N)``; None where it can't be told."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listens and listens.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None


def connects_from(pid: int, listens_on: Collection[int]) -> set[Peer]:
    """Find the addresses and ports from which a process has connected to others.

    Args:
        pid: the process.
        listens_on: its ports at which others connect to it.
    """
    with contextlib.suppress(psutil.Error, OSError):
        found = psutil.Process(pid).net_connections("tcp")
        ends = [one.laddr for one in found if one.raddr and one.laddr.port not in listens_on]
        return {(plain(end.ip), end.port) for end in ends}
    return set()

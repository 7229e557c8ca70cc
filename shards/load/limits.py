"""What one host's ports and descriptors allow: arithmetic first, then the little that asks the system."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import psutil

from shards.descriptors import (
    DESCRIPTORS_A_SOCKET,
    MOST_EDGES,
    descriptor_limit,
    sockets_per_edge,
    sockets_per_replica,
)
from shards.errors import UsageError
from shards.load.schedule import Group, shares

_IP_BIND_ADDRESS_NO_PORT = 24
_RESERVED_DESCRIPTORS = 200
_USABLE_PORTS = 0.8
_LOOPBACK_ADDRESSES = 250
_FEWEST_PROCESSES = 2
_FEWEST_SOCKETS = 500
"""Of a process that there would be none of but for an idle core."""

FILES_A_SOCKET = 2 + DESCRIPTORS_A_SOCKET
"""On a host that runs all: one of the client, those of its edge, one of its replica."""

_PROXY_RESERVE = 1000
"""Files that it keeps for a while of sockets that are closed: with 20,000 it was seen to end at 3,193 sockets."""

PROXY_FILES_A_SOCKET = 6
"""Of Docker's user-space proxy: a socket to each side, and for each direction a pipe, through which Go splices."""


@dataclass(frozen=True)
class Limits:
    """What a generator may use.

    Attributes:
        ports: ephemeral ports of one source address towards one destination.
        descriptors: what one process may open.
        files: what all processes of the host together may open beyond what they have.
        cores: that it may run on.
    """

    ports: int
    descriptors: int
    files: int = sys.maxsize
    cores: int = 1

    @classmethod
    def of_this_host(cls) -> Limits:
        """Ask the system."""
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        open_now, _, most = Path("/proc/sys/fs/file-nr").read_text().split()
        files = max(0, int(most) - int(open_now))
        return cls(int(high) - int(low) + 1, descriptor_limit(), files, len(os.sched_getaffinity(0)))

    @property
    def sockets_per_address(self) -> int:
        """Connections from one source address: the rest of its ports wait out TIME_WAIT after reconnects."""
        return int(self.ports * _USABLE_PORTS)

    @property
    def sockets_per_process(self) -> int:
        """Connections one process may hold."""
        return sockets_within(self.descriptors)

    def processes_for(self, groups: Sequence[Group]) -> int:
        """Tell how many processes shall carry groups, none of which may be divided.

        As many as descriptors ask for, and as many as there are cores where each has something to do; two at least.

        Raises:
            UsageError: a group is larger than what a process may open.
        """
        check_part(max(group.size for group in groups), self.descriptors, "one process, which a group lives in,")
        sockets = sum(group.size for group in groups)
        fewest = -(-sockets // self.sockets_per_process)
        for count in itertools.count(max(_FEWEST_PROCESSES, min(self.cores, sockets // _FEWEST_SOCKETS), fewest)):
            if max(_sizes(shares(groups, count))) <= self.sockets_per_process:
                return count
        raise AssertionError("a group alone fits into a process")

    def check_connections(self, connections: int, loopback: bool) -> None:
        """Refuse more connections than the host has ports for, whatever groups they are in.

        Raises:
            UsageError: says so, and the most that is possible.
        """
        most = self.sockets_per_address * (_LOOPBACK_ADDRESSES if loopback else 1)
        if connections > most:
            raise UsageError(
                f"{connections} connections need more ports than this host gives to one destination "
                f"({self.ports}, net.ipv4.ip_local_port_range): at most {most}"
            )
        # On loopback the server's end of each is a file of this host too.
        most = self.files // (2 if loopback else 1)
        if connections > most:
            raise UsageError(
                f"{connections} connections need more files than this host may open beyond what it has "
                f"({self.files}, fs.file-max): at most {most}"
            )

    def check_fleet(self, connections: int, replicas: int, workers: int) -> None:
        """Refuse more connections than a fleet on this host can hold, with as many edges as one host takes.

        Raises:
            UsageError: says which limit, and the most that is possible.
        """
        processes = replicas * workers
        edges = MOST_EDGES * sockets_per_edge(self.descriptors)
        held = processes * sockets_per_replica(self.descriptors)
        most, why = min(
            (edges, f"{MOST_EDGES} edges, the most of a host, each with {self.descriptors} descriptors (2 a socket)"),
            (
                held,
                f"{processes} workers of replicas with {self.descriptors} descriptors each; see --replicas",
            ),
            (
                self.files // FILES_A_SOCKET,
                f"{self.files} more files on this host (fs.file-max; {FILES_A_SOCKET} a socket)",
            ),
        )
        if connections > most:
            raise UsageError(
                f"{connections} connections are more than a fleet on this host holds: at most {most}, by {why}"
            )

    def lack_of_edges(self, connections: int, edges: int) -> str | None:
        """Say that so many edges hold fewer than these connections; None: they may hold them, if evenly spread."""
        most = edges * sockets_per_edge(self.descriptors)
        if connections <= most:
            return None
        return (
            f"{edges} edges hold {most} sockets at most ({self.descriptors} descriptors each, {DESCRIPTORS_A_SOCKET} a "
            f"socket), not {connections}: without --edges there are as many as it takes"
        )

    def check(self, groups: Sequence[Group], processes: int, loopback: bool) -> None:
        """Refuse more connections than the host can open.

        Raises:
            UsageError: says which limit, and the most that is possible.
        """
        connections = sum(group.size for group in groups)
        self.check_connections(connections, loopback)
        if max(_sizes(shares(groups, processes))) > self.sockets_per_process:
            raise UsageError(
                f"{connections} connections need more descriptors than {processes} processes may open "
                f"({self.descriptors} each, `ulimit -Hn`): at most {self.sockets_per_process * processes}, "
                f"or --processes {self.processes_for(groups)}"
            )


def check_proxy(connections: int, files: int) -> None:
    """Refuse more connections than Docker's user-space proxy holds: where it has no file left, it ends, with all.

    Args:
        connections: that clients of this host open to a published port.
        files: that the proxy may open.

    Raises:
        UsageError: says the most that is possible, and how to do without the proxy.
    """
    most = (files - _PROXY_RESERVE) // PROXY_FILES_A_SOCKET
    if connections > most:
        raise UsageError(
            f"{connections} connections of this host pass Docker's user-space proxy, which opens "
            f"{PROXY_FILES_A_SOCKET} files a socket and may open {files}: at most {most}; with "
            '{"userland-proxy": false} in /etc/docker/daemon.json, and Docker started anew, there is none'
        )


def proxy_files(port: int) -> int | None:
    """Tell how many files Docker's user-space proxy of a port may open; None: none runs on this host."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ValueError):
            if process.name() == "docker-proxy":
                words = process.cmdline()
                if words[words.index("-host-port") + 1] == str(port):
                    return _may_open(process)
    return None


def _may_open(process: psutil.Process) -> int:
    try:
        return int(process.rlimit(psutil.RLIMIT_NOFILE)[1])
    except psutil.AccessDenied:
        # The daemon's own: as a rule no less than ours.
        return descriptor_limit()


def _sizes(parts: Sequence[Sequence[Group]]) -> list[int]:
    return [sum(group.size for group in part) for part in parts]


def sockets_within(descriptors: int) -> int:
    """Tell how many connections a process may hold that may open so many files."""
    return descriptors - _RESERVED_DESCRIPTORS


def check_part(connections: int, descriptors: int, who: str) -> None:
    """Refuse a part that is more than its process, named `who`, may open.

    Raises:
        UsageError: says how many it may.
    """
    if connections > sockets_within(descriptors):
        raise UsageError(
            f"{connections} connections in {who} are more than it may open ({descriptors} descriptors, `ulimit -Hn`): "
            f"at most {sockets_within(descriptors)}"
        )


def check_ports(processes: Sequence[tuple[str | None, int]], parts: Sequence[Sequence[Group]]) -> None:
    """Refuse more connections than a host has ports towards one destination.

    Args:
        processes: of each its host, named as no other one is, and the connections that one may hold; a host of None
            has been checked before.
        parts: what each of them shall carry.

    Raises:
        UsageError: says which host, and how many it may hold.
    """
    wanted: Counter[tuple[str, int]] = Counter()
    for (host, most), size in zip(processes, _sizes(parts), strict=False):
        if host and most:
            wanted[host, most] += size
    for (host, most), connections in wanted.items():
        if connections > most:
            raise UsageError(
                f"{connections} connections from {host} need more ports than it gives to one destination "
                f"(net.ipv4.ip_local_port_range): at most {most}, or more workers on other hosts"
            )


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this host's own IPv4 loopback, where every 127.x.y.z may be a source address."""
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return False
    return address.version == 4 and address.is_loopback


def source_address(client: int, sockets_per_address: int) -> str | None:
    """Give the loopback address that `client` (from 0) connects from; None: leave it to the system.

    The first address's worth leaves it to the system, then come 127.0.0.2, 127.0.0.3 …
    """
    step = client // sockets_per_address
    return str(IPv4Address("127.0.0.1") + step) if step else None


def bound_socket(address: str) -> socket.socket:
    """Give a TCP socket that will connect from `address`, its port chosen only then.

    A port chosen at `bind` would be taken for every destination; one chosen at `connect` only for that one.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((address, 0))
    return sock


def open_descriptors() -> int:
    """Count the files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (ten thousand names, no paths)

"""From where a program in a container has connected to others: asked there, since the host need not see it."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Any

from docker.errors import APIError
from docker.models.containers import Container

from shards.addresses import Peer, plain
from shards.fleet.engines.docker.daemon import errors

_ASK = "cat /proc/net/tcp /proc/net/tcp6; ls -l /proc/[0-9]*/fd"
"""All connections of the network that the container shares, and the sockets that its own processes have open."""

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_ESTABLISHED = "01"


def outgoing(container: Container, listens_on: Collection[int]) -> set[Peer]:
    """Ask for the addresses and ports from which a container's processes have connected to others.

    Args:
        container: which; it runs, and its image has a shell.
        listens_on: its ports, at which others connect to it.

    Returns:
        They; none where it can't be asked.

    Raises:
        ShardsError: the daemon fails.
    """
    with errors():
        try:
            said: Any = container.exec_run(["sh", "-c", _ASK], stderr=False)
        except APIError:
            # It has just ended.
            return set()
    return read(said.output.decode(errors="replace"), listens_on)


def read(said: str, listens_on: Collection[int]) -> set[Peer]:
    """Read where a program has connected from in what the kernel says in the container; see `outgoing`.

    The columns of a connection are those of proc_net_tcp(5): number, local address, remote one, state, …, inode.
    """
    own = set(_SOCKET.findall(said))
    found = set()
    for columns in map(str.split, said.splitlines()):
        if len(columns) > 9 and columns[3] == _ESTABLISHED and columns[9] in own:
            address, _, port = columns[1].rpartition(":")
            if int(port, 16) not in listens_on:
                found.add((_address(address), int(port, 16)))
    return found


def _address(said: str) -> str:
    """Read an address as the kernel writes it: words of four bytes, each in the order of the host's processor.

    That is taken to be little-endian: of those that Docker runs on, only IBM Z is not.
    """
    words = [bytes.fromhex(said[at : at + 8]) for at in range(0, len(said), 8)]
    return plain(str(ip_address(b"".join(word[::-1] for word in words))))

"""Which ports of this host somebody listens on: from the kernel's tables of sockets."""

from __future__ import annotations

import contextlib
from pathlib import Path

_TCP_LISTENS, _UDP_UNCONNECTED = "0A", "07"
_TABLES = {"tcp": _TCP_LISTENS, "tcp6": _TCP_LISTENS, "udp": _UDP_UNCONNECTED, "udp6": _UDP_UNCONNECTED}


def ports_of(table: str, state: str) -> set[int]:
    """Give the ports of the sockets in a table like ``/proc/net/tcp`` that are in a state, as that writes it."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == state}


def listened_on(tables: Path = Path("/proc/net")) -> set[int]:
    """Give the ports that are listened on in this network namespace, by whomever, TCP and UDP.

    Args:
        tables: where the kernel shows its tables of sockets; one that is missing, as where there is no IPv6, is empty.
    """
    found: set[int] = set()
    for name, state in _TABLES.items():
        with contextlib.suppress(OSError):
            found |= ports_of((tables / name).read_text(), state)
    return found

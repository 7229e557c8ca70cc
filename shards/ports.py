"""Ports for what is about to be started: whoever has chosen one has it, until it ends or has chosen many others."""

from __future__ import annotations

import atexit
import random
import socket
from collections import deque
from collections.abc import Iterable

LISTEN_PORTS = (20_000, 32_000)
"""Below the range that Linux takes ports of outgoing connections from, so that thousands of these do not take the
port of a part that is being restarted."""

_MOST_HELD = 256
"""More than one command chooses at a time; each is an open file."""

_held: deque[socket.socket] = deque()


@atexit.register
def _let_go() -> None:
    for sock in _held:
        sock.close()


def free_port(taken: Iterable[int]) -> int:
    """Choose a port that nobody has, on loopback.

    No other process of this host chooses it meanwhile: fleets may be started side by side. What listens with
    `SO_REUSEADDR`, as all servers do, can.

    Args:
        taken: ports promised already.

    Raises:
        OSError: none was found in many tries.
    """
    avoid = set(taken)
    for _ in range(1000):
        port = random.randrange(*LISTEN_PORTS)
        if port not in avoid and _hold(port):
            return port
    raise OSError(f"no free port between {LISTEN_PORTS[0]} and {LISTEN_PORTS[1]}")


def _hold(port: int) -> bool:
    """Keep a port from being chosen: bound, and not listened on; False: somebody has it."""
    sock = socket.socket()
    try:
        sock.bind(("127.0.0.1", port))
        # Only now: with it, it would share the port of another one that is held.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        sock.close()
        return False
    _held.append(sock)
    if len(_held) > _MOST_HELD:
        _held.popleft().close()
    return True

"""Bare uWebSockets, by its Python binding `socketify`: how fast a single process without a broker can be.

Its topics live in one process, so it is one process, and there is no Redis.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.peers.base import Peer, Started, run, stack

_HERE = Path(__file__).resolve().parent


def _prepare(cache: Path) -> None:
    """Install it apart: this project's own environment does not need it."""
    cache.mkdir(parents=True, exist_ok=True)
    target = ["--upgrade", "--target", str(cache.resolve() / "uws"), "-r", str(_HERE / "requirements.txt")]
    run([sys.executable, "-m", "pip", "install", "-q", *target], cache, "socketify")


@contextlib.contextmanager
def _start(cache: Path) -> Iterator[Started]:
    with stack() as made:
        port = made.port()
        path = os.pathsep.join([str(cache.resolve() / "uws"), os.environ.get("PYTHONPATH", "")])
        made.spawn("app", [sys.executable, str(_HERE / "server.py"), str(port)], {"PYTHONPATH": path})
        yield made.apps([port])


UWS = Peer("uws", "uWebSockets (socketify), 1 process, no Redis", "plain", _prepare, _start)

"""Socket.IO with its Redis adapter: two Node.js processes, WebSocket transport only."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.peers.base import Missing, Peer, Started, run, stack

_HERE = Path(__file__).resolve().parent
_SERVERS = 2


def _prepare(cache: Path) -> None:
    """Install the packages of the lock file."""
    if not (shutil.which("node") and shutil.which("npm")):
        raise Missing("node and npm are not on PATH (Node.js >= 20)")
    folder = cache / "socketio"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_HERE / name, folder)
    run(["npm", "ci", "--no-audit", "--no-fund"], folder, "socket.io")
    # Beside its packages: so they are found.
    shutil.copy(_HERE / "server.mjs", folder)


@contextlib.contextmanager
def _start(cache: Path) -> Iterator[Started]:
    with stack() as made:
        redis = f"redis://127.0.0.1:{made.redis()}"
        ports = [made.port() for _ in range(_SERVERS)]
        for port in ports:
            server = cache.resolve() / "socketio" / "server.mjs"
            made.spawn("app", ["node", str(server), str(port), redis], {"NODE_ENV": "production"})
        yield made.apps(ports)


SOCKETIO = Peer("socketio", "Socket.IO, Redis adapter, 2 x Node.js", "socketio", _prepare, _start)

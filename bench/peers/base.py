"""What a peer is, and the stack that all but ours are started on: one Redis, app processes, two Traefik edges."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from shards.errors import ShardsError
from shards.fleet import processes
from shards.fleet.engines import edge, redis_server
from shards.fleet.engines.base import EdgePart, ReplicaPart, Route
from shards.ports import free_port

TIERS = ("app", "redis", "edge")
EDGES = 2
_UP_SECONDS = 30.0
_STOP_SECONDS = 5.0
_LAST_LINES = 3
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Missing(ShardsError):
    """A peer can't be had on this machine; says what is missing."""


@dataclass(frozen=True)
class Started:
    """A peer that runs.

    Attributes:
        url: the WebSocket base that the generator is given; it is of the edges.
        tiers: tier → its processes; their descendants belong to it too.
    """

    url: str
    tiers: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    Attributes:
        name: by which it is asked for.
        what: what it is, for the table.
        dialect: that the generator shall speak.
        prepare: installs what it needs into the given folder; raises `Missing` where it can't.
        start: starts it, given the same folder; it is gone when the context ends.
    """

    name: str
    what: str
    dialect: str
    prepare: Callable[[Path], None]
    start: Callable[[Path], AbstractContextManager[Started]]


class Stack:
    """Processes in a directory of their own. Use as a context manager: at the end all of them are gone."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="shards-bench-", ignore_cleanup_errors=True)
        self.directory = Path(self._temporary.name)
        self.tiers: dict[str, list[int]] = {tier: [] for tier in TIERS}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: list[int] = []

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        trees: list[psutil.Process] = []
        for process in self._running.values():
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(process.pid)
                trees += [root, *root.children(recursive=True)]
        processes.end(trees, _STOP_SECONDS)
        self._temporary.cleanup()

    def port(self) -> int:
        """Give a port that nobody listens on."""
        self._ports.append(free_port(self._ports))
        return self._ports[-1]

    def spawn(self, tier: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a process of a tier; what it says goes to a file in the directory."""
        name = f"{tier}-{len(self.tiers[tier])}"
        with (self.directory / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                command,
                cwd=self.directory,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.tiers[tier].append(self._running[name].pid)

    def redis(self) -> int:
        """Start a Redis server that writes nothing to disk, and give its port."""
        port = self.port()
        options = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": "no", "tcp-backlog": "4096"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.spawn("redis", [redis_server.find_server(), *words])
        self.wait("Redis", lambda: processes.port_taken("127.0.0.1", port) is not None)
        return port

    def apps(self, ports: Sequence[int]) -> Started:
        """Wait for the app servers on `ports`, put edges like our fleet's before them, and give the whole."""
        for port in ports:
            self.wait(f"the app server on port {port}", lambda port=port: _get(port, "/readyz") is not None)  # type: ignore[misc]
        replicas = [ReplicaPart(f"app-{number}", port, "blue", 1, "bench", 0, 0) for number, port in enumerate(ports)]
        public = self._edges(Route("blue", {"blue": replicas}))
        return Started(f"ws://127.0.0.1:{public}/ws/", self.tiers)

    def _edges(self, route: Route) -> int:
        """Start the edges; give the port they share."""
        watched = self.directory / "watched"
        watched.mkdir()
        (watched / "route.yml").write_text(edge.dump(edge.dynamic(route)))
        public = self.port()
        for number in range(EDGES):
            part = EdgePart(f"edge-{number}", self.port())
            configuration = self.directory / f"{part.name}.yml"
            configuration.write_text(edge.dump(edge.static(part, "127.0.0.1", public, watched)))
            self.spawn("edge", [edge.find_traefik(), f"--configFile={configuration}"], _edge_environment())
            self.wait(part.name, lambda part=part: _routed(part, route))  # type: ignore[misc]
        return public

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        """Wait until something is up.

        Raises:
            ShardsError: it is not after half a minute, or a process has ended; says what it said last.
        """
        deadline = time.monotonic() + _UP_SECONDS
        while not ready():
            ended = [name for name, process in self._running.items() if process.poll() is not None]
            if ended:
                raise ShardsError(f"{ended[0]} ended at once: {self._last_lines(ended[0])}")
            if time.monotonic() > deadline:
                raise ShardsError(f"{what} was not up after {_UP_SECONDS:.0f} s")
            time.sleep(0.05)

    def _last_lines(self, name: str) -> str:
        lines = (self.directory / f"{name}.log").read_text(errors="replace").split("\n")
        return " / ".join([line.strip() for line in lines if line.strip()][-_LAST_LINES:]) or "it said nothing"


def _edge_environment() -> dict[str, str]:
    """Give what the local engine gives its edges."""
    cores = len(os.sched_getaffinity(0))
    return {"GOGC": "50", "GOMAXPROCS": str(max(1, cores // EDGES))}


def _routed(part: EdgePart, route: Route) -> bool:
    def ask(path: str) -> Any:
        answer = _get(part.port, f"/api/http/{path}@file")
        return json.loads(answer) if answer else None

    return edge.confirms(ask(f"routers/{edge.ROUTER}"), {route.active: ask(f"services/{route.active}")}, route)


def _get(port: int, path: str) -> bytes | None:
    """Give the body of a 200 at `path`; None: there is none (yet)."""
    try:
        with _OPENER.open(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return bytes(answer.read())
    except OSError:
        return None


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    """Give a stack whose processes are gone at the end."""
    with Stack() as made:
        yield made


def nothing_to_prepare(cache: Path) -> None:
    """Need nothing that the project does not bring."""


def run(command: Sequence[str], cwd: Path, what: str, seconds: float = 300) -> None:
    """Run an installer.

    Raises:
        Missing: it failed, or is not there; says what it said last.
    """
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{what} could not be installed: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Missing(f"{what} could not be installed: {said[-1] if said else command[0]}")

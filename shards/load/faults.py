"""What happens to a fleet while it is under load: parts are killed, Invoke tasks run, each at its time.

Only through what a user has: `inv status --json` says which processes there are, `kill -9` ends one of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import shlex
import signal
import sys
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns
from typing import Any, Protocol

import psutil

from shards.aio import sleep_until
from shards.load import containers, target
from shards.load.scenarios import Event, repository

URL_VARIABLE = "SHARDS_LOAD_URL"
"""Where a command finds the WebSocket base of the fleet under load."""

CONNECTIONS_VARIABLE = "SHARDS_LOAD_CONNECTIONS"
"""Where a command finds how many sockets the load has."""

_COMMAND_SECONDS = 600.0
_OUTPUT_LINES = 20
_SECOND_NS = 1_000_000_000
_NOT_KILLED = 1

_PARTS = {"worker": "replicas", "replica": "replicas", "shard": "shards", "edge": "edges"}
_CONTROL = "redis_shared"


class Note(Protocol):
    """Takes down that something happened, now."""

    def __call__(self, name: str, **more: Any) -> None:
        """Take down `name` and what else there is to say of it."""


def victim(status: dict[str, Any], kind: str, chance: random.Random) -> tuple[str, int] | None:
    """Choose a running part of a kind.

    Args:
        status: what `inv status --json` said, with the processes of containers.
        kind: see `Event.kill`.
        chance: chooses.

    Returns:
        Its name and its process; None where there is none.
    """
    parts = status.get(_PARTS.get(kind, "redis"), ())
    if kind not in _PARTS:
        wanted = _CONTROL if kind == "control" else f"redis_{status.get('active_color')}"
        parts = [part for part in parts if part["name"] == wanted]
    running = [(part["name"], part["pid"]) for part in parts if part.get("pid")]
    return chance.choice(running) if running else None


def worker_of(replica: int, chance: random.Random) -> int:
    """Choose a worker process of a replica: one of those it has started, else itself."""
    with suppress(psutil.Error):
        children = psutil.Process(replica).children()
        workers = [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]
        return chance.choice(workers) if workers else replica
    return replica


class Faults:
    """Performs events. Commands run one after the other, however long one takes; kills come when they are due.

    Args:
        events: what shall happen.
        url: the WebSocket base of the fleet.
        project: the fleet's name; None: the one that `inv` takes for granted.
        connections: that the load has.
        seed: chooses the victims.
        note: told of all that happens.
    """

    def __init__(
        self, events: Sequence[Event], url: str, project: str | None, connections: int, seed: int, note: Note
    ) -> None:
        self._events = events
        self._connections = connections
        self._url = url
        self._project = project
        self._chance = random.Random(seed)
        self._note = note
        self._turn = asyncio.Lock()

    async def perform(self, start_ns: int) -> int:
        """Perform all events, from `start_ns` on by the monotonic clock.

        Returns:
            0, or the first exit status that was not; 1 where nobody could be killed.
        """
        statuses: list[int] = []
        async with asyncio.TaskGroup() as tasks:
            for event in self._events:
                if event.at is not None:
                    tasks.create_task(self._at(start_ns + int(event.at * _SECOND_NS), event, statuses))
            tasks.create_task(self._one_after_the_other(start_ns, statuses))
        return next(filter(None, statuses), 0)

    async def _one_after_the_other(self, start_ns: int, statuses: list[int]) -> None:
        due_ns = start_ns
        for event in self._events:
            if event.after is not None:
                await self._at(due_ns + int(event.after * _SECOND_NS), event, statuses)
                due_ns = monotonic_ns()

    async def _at(self, at_ns: int, event: Event, statuses: list[int]) -> None:
        await sleep_until(at_ns)
        statuses.append(await self._perform(event))

    def _perform(self, event: Event) -> Awaitable[int]:
        if event.kill:
            return self._kill(event.kill)
        if event.run:
            project = ["--project", self._project] if self._project else []
            return self._command(event.run, target.invoke(*shlex.split(event.run), *project), str(repository()))
        assert event.command
        return self._command(event.command, ["sh", "-c", event.command], None)

    async def _kill(self, kind: str) -> int:
        status = await target.status(self._url, self._project)
        found = victim(await asyncio.to_thread(containers.found, status), kind, self._chance)
        if found is None:
            self._note(f"kill {kind}: none is running")
            return _NOT_KILLED
        name, pid = found
        if kind == "worker":
            pid = worker_of(pid, self._chance)
        at_ns = monotonic_ns()
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError as error:
            self._note(f"kill {kind}: {name}: {error.strerror}")
            return _NOT_KILLED
        # Clients may have lost their sockets before this line is reached, and none before that time.
        self._note(f"kill {kind}: {name}", at_ns=at_ns, pid=pid)
        return 0

    async def _command(self, name: str, command: Sequence[str], folder: str | None) -> int:
        """Run a command; its output goes into the report."""
        async with self._turn:
            self._note(f"{name}: start")
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=folder,
                env=self._environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            status, output = await _end_of(process)
            self._note(f"{name}: end", exit=status, output=output.splitlines()[-_OUTPUT_LINES:])
            return status

    def _environment(self) -> dict[str, str]:
        # `python` is the one that runs this.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return {**os.environ, "PATH": path, URL_VARIABLE: self._url, CONNECTIONS_VARIABLE: str(self._connections)}


async def _end_of(process: asyncio.subprocess.Process) -> tuple[int, str]:
    """Wait for a command's end, 10 minutes at most; give its exit status, and what it said."""
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return -1, f"stopped after {_COMMAND_SECONDS:.0f} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)
    return process.returncode or 0, output.decode(errors="replace")

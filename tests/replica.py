"""A real replica for tests: ``python -m shards.server`` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from redis import Redis

from shards.ports import free_port
from shards.settings import variable_of
from shards.tokens import VERBS, KeyFile, grant_of
from tests.redis_server import AS_APP, RedisServer

ROOT = Path(__file__).resolve().parents[1]


class Replica:
    """A replica of a fleet whose Redis servers run."""

    def __init__(self, control: RedisServer, name: str = "blue-0", **environ: str) -> None:
        self.control = control
        self.name = name
        self.port = free_port(())
        self.environ = environ
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/"

    def start(self) -> Replica:
        """Start it; returns once it is ready."""
        environ = {
            **os.environ,
            "COLOR": self.name.partition("-")[0],
            "SHARDS_REPLICA": self.name,
            "SHARDS_PORT": str(self.port),
            "SHARDS_APP_DIR": str(ROOT),
            "MESSAGE_REDIS_URL": self.control.url,
            "CHANNEL_REDIS_URL": self.control.url,
            **{variable_of(name): value for name, value in AS_APP.items()},
            **self.environ,
        }
        self.process = subprocess.Popen([sys.executable, "-m", "shards.server"], env=environ, cwd=ROOT)
        deadline = time.monotonic() + 60
        while self.get("/readyz")[0] != 200:
            assert self.process.poll() is None, "the replica died"
            assert time.monotonic() < deadline, self.get("/readyz")
            time.sleep(0.05)
        return self

    def get(self, path: str) -> tuple[int, str]:
        """GET a path; gives status and body, or 0 where nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def token(self, *groups: str, may: tuple[str, ...] = VERBS, subject: str = "", seconds: float = 60) -> str:
        """Make a token that it accepts."""
        return KeyFile(self.environ["SHARDS_TOKEN_KEY_FILE"]).sign(grant_of(groups, may, subject), seconds)[0]

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any], Message]:
        """Make an HTTP request; gives status, JSON and headers of the answer."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}"), answer.headers

    def head(self, method: str, path: str) -> tuple[int, Message]:
        """Make an HTTP request; gives status and headers of the answer, which may be no JSON."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.headers

    def metric(self, name: str) -> float:
        """Sum a metric's samples over labels."""
        lines = self.get("/metrics?scope=replica")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))

    def metric_of(self, name: str, **labels: str) -> float:
        """Give the metric of this replica with these labels."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        lines = [line for line in self.get("/metrics?scope=replica")[1].splitlines() if line.startswith(name + "{")]
        found = [line for line in lines if wanted <= set(line.partition("{")[2].rpartition("}")[0].split(","))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def order(self, state: str, drain_ms: int = 0, to: tuple[str, ...] = (), alone: bool = False) -> None:
        """Give this replica's color, or it alone, its orders."""
        with Redis.from_url(self.control.url) as redis:
            orders = json.dumps({"state": state, "drain_ms": drain_ms, "to": to})
            redis.hset("shards:orders", self.name if alone else self.name.partition("-")[0], orders)

    def stop(self, kill: bool = False) -> None:
        """End it, gently or with kill -9."""
        if self.process is not None:
            if kill:
                self.process.kill()
            else:
                self.process.terminate()
            self.process.wait(60)
            self.process = None

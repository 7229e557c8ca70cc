"""Stock Django Channels: both layers of channels_redis, each under two uvicorn servers."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from bench.peers.base import Missing, Peer, Started, stack

_SERVERS = 2
_ROOT = Path(__file__).resolve().parents[3]


def _prepare(cache: Path) -> None:
    """Look for it: the project itself does not need it."""
    if importlib.util.find_spec("channels_redis") is None:
        raise Missing("channels_redis is not installed (pip install -e '.[bench]')")


def _starting(backend: str) -> Callable[[Path], AbstractContextManager[Started]]:
    @contextlib.contextmanager
    def start(cache: Path) -> Iterator[Started]:
        with stack() as made:
            redis = f"redis://127.0.0.1:{made.redis()}/0"
            environment = {"BENCH_LAYER": backend, "BENCH_REDIS": redis, "PYTHONPATH": str(_ROOT)}
            ports = [made.port() for _ in range(_SERVERS)]
            for port in ports:
                made.spawn("app", _uvicorn(port), environment)
            yield made.apps(ports)

    return start


def _uvicorn(port: int) -> list[str]:
    """Give uvicorn's command: its own choice of WebSocket protocol and loop, no compression, as ours."""
    options = ["--port", str(port), "--ws-per-message-deflate", "false", "--backlog", "4096"]
    options += ["--no-access-log", "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", "bench.peers.channels.asgi:application", *options]


_PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
_CORE = "channels_redis.core.RedisChannelLayer"

PUBSUB = Peer("pubsub", "Channels, channels_redis pubsub, 2 x uvicorn", "plain", _prepare, _starting(_PUBSUB))
CORE = Peer("core", "Channels, channels_redis core, 2 x uvicorn", "plain", _prepare, _starting(_CORE))

"""This project: `inv up` with its log, offsets and dedupe, as `shards.load` starts it, two replicas of one worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.peers.base import Peer, Started, nothing_to_prepare
from shards.errors import ShardsError
from shards.load import target
from shards.load.scenarios import Scenario

_REPLICAS = 2
_RATE_LIMIT = "SHARDS_RATE_LIMIT"


@contextlib.contextmanager
def _start(cache: Path) -> Iterator[Started]:
    scenario = Scenario("bench", connections=1, duration=1, rate=1, replicas=_REPLICAS)
    with _no_rate_limit(), target.own_fleet(scenario, None) as (url, project):
        status = asyncio.run(target.status(url, project))
        if not status:
            raise ShardsError("`inv status` says nothing of the fleet that was just started")
        yield Started(url, {"app": _pids(status, "replicas"), "redis": _redis(status), "edge": _pids(status, "edges")})


def _redis(status: dict[str, Any]) -> list[int]:
    return _pids(status, "shards") + _pids(status, "redis")


def _pids(status: dict[str, Any], kind: str) -> list[int]:
    return [part["pid"] for part in status.get(kind, []) if part.get("pid")]


@contextlib.contextmanager
def _no_rate_limit() -> Iterator[None]:
    """Let a socket send as much as it likes, as all the peers do: an echo is over 100 frames a second."""
    before = os.environ.get(_RATE_LIMIT)
    os.environ[_RATE_LIMIT] = "0"
    try:
        yield
    finally:
        os.environ.pop(_RATE_LIMIT)
        if before is not None:
            os.environ[_RATE_LIMIT] = before


OURS = Peer("ours", "shards, 2 replicas, 2 shards", "shards", nothing_to_prepare, _start)

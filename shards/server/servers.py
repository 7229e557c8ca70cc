"""What a fleet's Redis servers use, for those who ask a worker for the metrics of the whole fleet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from shards.log.login import login_at
from shards.log.pair import pair_of, primary_of
from shards.plane import Plane
from shards.server.exposition import Family
from shards.settings import Credentials, Settings

_ANSWER_S = 1.0
_FRESH_S = 2.0
"""Many may ask for metrics; the servers are asked so often at most."""

Info = Mapping[str, Any]

_FIGURES = (
    ("shards_redis_clients", "Clients that a Redis server has", "gauge", "connected_clients"),
    ("shards_redis_max_clients", "Clients that a Redis server may have", "gauge", "maxclients"),
    ("shards_redis_memory_bytes", "Memory that a Redis server uses", "gauge", "used_memory_rss"),
    ("shards_redis_data_bytes", "Memory that a Redis server has filled", "gauge", "used_memory"),
    ("shards_redis_max_data_bytes", "Memory that a Redis server may fill; 0: any amount", "gauge", "maxmemory"),
    ("shards_redis_evicted_keys", "Keys that a Redis server threw away for want of memory", "counter", "evicted_keys"),
)


class Servers:
    """Asks the Redis servers of a fleet: its shards, the control Redis, and the Redis of this worker's color.

    Args:
        settings: of this worker.
        plane: knows the shards there are.
    """

    def __init__(self, settings: Settings, plane: Plane) -> None:
        self._settings, self._plane = settings, plane
        self._asked_at = float("-inf")
        self._last: Mapping[str, Info | None] = {}
        self._asking = asyncio.Lock()

    async def families(self) -> list[Family]:
        """Give what the servers say of themselves; of one that does not answer, only that."""
        return families(await self._said())

    async def down(self) -> list[str]:
        """Name those that do not answer."""
        return [name for name, info in (await self._said()).items() if info is None]

    async def _said(self) -> Mapping[str, Info | None]:
        async with self._asking:
            if time.monotonic() - self._asked_at > _FRESH_S:
                self._last, self._asked_at = await self._ask_all(), time.monotonic()
            return self._last

    async def _ask_all(self) -> dict[str, Info | None]:
        table = self._plane.log.table
        asked = {shard.name: self._shard(shard.url) for shard in (table.shards if table else ())}
        asked["redis_shared"] = self._server(self._settings.message_redis_url)
        asked[f"redis_{self._settings.color}"] = self._server(self._settings.channel_redis_url)
        answers = await asyncio.gather(*(_within(one) for one in asked.values()))
        return dict(zip(asked, answers, strict=True))

    async def _shard(self, url: str) -> Info:
        shown = self._settings.credentials(url)
        pair = pair_of(url)
        if pair is not None:
            host, port = await primary_of(pair, shown)
            url = f"redis://{host}:{port}/0"
        return await _info(url, shown)

    async def _server(self, url: str) -> Info:
        return await _info(url, self._settings.redis_credentials())


async def _within(asked: Any) -> Info | None:
    try:
        async with asyncio.timeout(_ANSWER_S):
            said: Info = await asked
            return said
    except (RedisError, OSError, TimeoutError):
        return None


async def _info(url: str, shown: Credentials) -> Info:
    # A connection of its own, and no second try: one that waits for a dead server must be in nobody's way.
    once = Retry(NoBackoff(), 0)
    login = login_at(url, lambda: shown)
    async with Redis.from_url(url, credential_provider=login, socket_timeout=_ANSWER_S, retry=once) as redis:
        said: Info = await redis.info()
        return said


def families(said: Mapping[str, Info | None]) -> list[Family]:
    """Write what servers say of themselves as metrics.

    Args:
        said: each server's answer to ``INFO``; None: it did not answer.
    """
    up = [("shards_redis_up", {"server": name}, float(info is not None)) for name, info in said.items()]
    found = [Family("shards_redis_up", "Whether a Redis server answers", "gauge", up)]
    answered = {name: info for name, info in said.items() if info is not None}
    for name, documentation, kind, field in _FIGURES:
        sample = f"{name}_total" if kind == "counter" else name
        # One before 6.2 does not say how many clients it may have.
        samples = [(sample, {"server": one}, float(info[field])) for one, info in answered.items() if field in info]
        found.append(Family(name, documentation, kind, samples))
    return found

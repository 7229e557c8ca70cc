"""Shards that run elsewhere: can they be used, and is one that is said to be lost really gone?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from shards.errors import ShardsError, UsageError
from shards.fleet import probe
from shards.fleet.engines.redis_server import OLDEST
from shards.router.table import Shard
from shards.settings import Credentials

CHECK_S = 5.0
"""A server that takes longer to answer than this, in seconds, is of no use."""


async def check(shards: Sequence[Shard], credentials: Callable[[str], Credentials]) -> list[str]:
    """See whether the servers can be shards.

    Args:
        shards: those that run elsewhere.
        credentials: gives, by URL, what each is shown.

    Returns:
        Warnings, a line each.

    Raises:
        ShardsError: one cannot be used; the message says why.
        UsageError: two of them are the same server.
    """
    found = await asyncio.gather(*(_ask(shard, credentials(shard.url)) for shard in shards))
    places: dict[tuple[str, str], Shard] = {}
    for shard, info in zip(shards, found, strict=True):
        place = (str(info["run_id"]), shard.url.rpartition("/")[2])
        if place in places:
            raise UsageError(f"{places[place].url} and {shard.url} are the same server: name it once")
        places[place] = shard
    return [
        f"{shard.url} keeps no append-only file: when it restarts, acked messages can be lost; set `appendonly yes`"
        for shard, info in zip(shards, found, strict=True)
        if not info.get("aof_enabled")
    ]


async def well(shard: Shard, credentials: Credentials) -> bool:
    """Tell whether a shard, here or elsewhere, answers and takes writes."""
    try:
        info = await _ask(shard, credentials)
    except ShardsError:
        return False
    return info.get("aof_last_write_status", "ok") == "ok" and not info.get("loading")


async def _ask(shard: Shard, credentials: Credentials) -> dict[str, Any]:
    client = probe.shard_client(shard.url, credentials, CHECK_S)
    try:
        async with asyncio.timeout(CHECK_S):
            await client.ping()
            info: dict[str, Any] = await client.info()
    except (RedisError, OSError, TimeoutError) as error:
        raise ShardsError(_unusable(shard, error)) from None
    finally:
        await client.aclose()
    wrong = _wrong(info)
    if wrong:
        raise ShardsError(f"{shard.url} {wrong}")
    return info


def _unusable(shard: Shard, error: Exception) -> str:
    text = str(error)
    if isinstance(error, AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
        address = shard.url.partition("://")[2]
        return f"{shard.url} refuses the password: give the right one, as redis://:PASSWORD@{address}"
    if isinstance(error, ResponseError):
        return f"{shard.url} refuses: {text}"
    reason = text or f"no answer in {CHECK_S:.0f} s"
    return f"{shard.url} can't be reached: {reason}; check the address, and that it listens to this host"


def _wrong(info: dict[str, Any]) -> str:
    version = str(info.get("redis_version", "0"))
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        return f"is Redis {version}: a shard must be 6.2 or newer"
    if info.get("role") != "master":
        return "is a read-only replica: give the URL of its primary"
    if info.get("cluster_enabled"):
        return "is part of a Redis Cluster: a shard must be a server of its own"
    return ""

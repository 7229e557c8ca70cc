"""Shards that run elsewhere: can they be used, and is one that is said to be lost really gone?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from shards.errors import ShardsError, UsageError
from shards.fleet import probe
from shards.fleet.engines.redis_server import OLDEST
from shards.log.shard import ANNOUNCEMENTS
from shards.router.table import Shard
from shards.settings import Credentials

CHECK_S = 5.0
"""A server that takes longer to answer than this, in seconds, is of no use."""

PUBSUB_LIMIT = "pubsub 268435456 67108864 60"
"""What our own servers let a worker fall behind, see docker/redis/redis.conf: bytes; bytes for so many seconds."""


@dataclass(frozen=True)
class _Server:
    """What a server says of itself.

    Attributes:
        info: its INFO.
        settings: those of durability and limits; what it won't tell is missing.
        listeners: how many workers hear of slot tables there, whichever database they use.
    """

    info: dict[str, Any]
    settings: dict[str, str]
    listeners: int


async def check(
    shards: Sequence[Shard], credentials: Callable[[str], Credentials], ours: Collection[str] = ()
) -> list[str]:
    """See whether the servers can be shards.

    Args:
        shards: those that run elsewhere.
        credentials: gives, by URL, what each is shown.
        ours: the URLs of those that are shards of this fleet already.

    Returns:
        Warnings, a line each.

    Raises:
        ShardsError: one cannot be used; the message says why.
        UsageError: two of them are the same server, or one throws keys away when it is full.
    """
    servers = await asyncio.gather(*(_ask(shard, credentials(shard.url)) for shard in shards))
    found = list(zip(shards, servers, strict=True))
    _refuse_the_same(found)
    known = {server.info["run_id"] for shard, server in found if shard.url in ours}
    for shard, server in found:
        _refuse_evicting(shard, server)
        if server.listeners and server.info["run_id"] not in known:
            raise ShardsError(
                f"{shard.url} has workers of another fleet, maybe in another database: give each fleet its own servers"
            )
    return [f"{shard.url} {warning}" for shard, server in found for warning in _warnings(server)]


def _refuse_the_same(found: Sequence[tuple[Shard, _Server]]) -> None:
    places: dict[tuple[str, str], Shard] = {}
    for shard, server in found:
        place = (str(server.info["run_id"]), shard.url.rpartition("/")[2])
        if place in places:
            raise UsageError(f"{places[place].url} and {shard.url} are the same server: name it once")
        places[place] = shard


def _refuse_evicting(shard: Shard, server: _Server) -> None:
    policy = server.info.get("maxmemory_policy", "noeviction")
    if server.info.get("maxmemory") and policy != "noeviction":
        raise UsageError(
            f"{shard.url} has `maxmemory-policy {policy}`: when it is full, it throws acked messages away; "
            "set `maxmemory-policy noeviction`"
        )


def _warnings(server: _Server) -> list[str]:
    found = []
    if not server.info.get("aof_enabled"):
        found.append("keeps no append-only file: when it restarts, acked messages can be lost; set `appendonly yes`")
    elif server.settings.get("appendfsync") == "everysec":
        found.append(
            "has `appendfsync everysec`: killed while its disk is busy, it can lose acked messages; set `always`, or "
            "`no` and sync it from outside"
        )
    limit = server.settings.get("client-output-buffer-limit", PUBSUB_LIMIT)
    if _is_below(limit, PUBSUB_LIMIT):
        found.append(
            "cuts workers off that fall behind sooner than our own servers do; set "
            f"`client-output-buffer-limit {PUBSUB_LIMIT}`"
        )
    return found


def _is_below(limit: str, wanted: str) -> bool:
    """Tell whether a `client-output-buffer-limit` lets subscribers fall behind less than `wanted`; 0: no limit."""
    return any(0 < have < want for have, want in zip(_pubsub(limit), _pubsub(wanted), strict=True))


def _pubsub(limit: str) -> list[int]:
    words = limit.split()
    at = words.index("pubsub")
    return [int(word) for word in words[at + 1 : at + 3]]


async def well(shard: Shard, credentials: Credentials) -> bool:
    """Tell whether a shard, here or elsewhere, answers and takes writes."""
    try:
        info = (await _ask(shard, credentials)).info
    except ShardsError:
        return False
    return info.get("aof_last_write_status", "ok") == "ok" and not info.get("loading")


async def _ask(shard: Shard, credentials: Credentials) -> _Server:
    client = probe.shard_client(shard.url, credentials, CHECK_S)
    try:
        async with asyncio.timeout(CHECK_S):
            await client.ping()
            server = _Server(await client.info(), await _settings(client), await _listeners(client))
    except (RedisError, OSError, TimeoutError) as error:
        raise ShardsError(_unusable(shard, error)) from None
    finally:
        await client.aclose()
    wrong = _wrong(server.info)
    if wrong:
        raise ShardsError(f"{shard.url} {wrong}")
    return server


async def _settings(client: Any) -> dict[str, str]:
    """Ask for settings, one by one, as Redis 6.2 wants it; a server run by others may refuse to tell."""
    found: dict[str, str] = {}
    for name in ("appendfsync", "client-output-buffer-limit"):
        with suppress(ResponseError):
            found |= await client.config_get(name)
    return found


async def _listeners(client: Redis) -> int:
    with suppress(ResponseError):
        return sum([count for _, count in await client.pubsub_numsub(ANNOUNCEMENTS)])
    return 0


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

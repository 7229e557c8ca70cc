"""Shards of two servers, a primary and its copy: which is the primary, asked of Redis Sentinel at each connect.

Such a shard's url names the Sentinels that watch it, and what they call it:
``redis+sentinel://host:port,host:port,host:port/shared-0``.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shards.log.link import Link
from shards.settings import Credentials

SCHEME = "redis+sentinel://"

COPIED_MS = 500
"""How long a primary is given to have its copy confirm, in milliseconds. Other commands of the connection wait."""

_SENTINEL_SECONDS = 1.0
_MOVE_COPIED_MS = 5_000

Address = tuple[str, int]


class NotCopied(ConnectionError):
    """The copy did not confirm in time: the primary alone has it, and may lose it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A shard of two servers.

    Attributes:
        name: what Sentinel calls it.
        sentinels: host and port of each that watches it.
    """

    name: str
    sentinels: tuple[Address, ...]

    @property
    def url(self) -> str:
        """The pair as a shard's url."""
        return f"{SCHEME}{','.join(f'{host}:{port}' for host, port in self.sentinels)}/{self.name}"


def pair_of(url: str) -> Pair | None:
    """Read a shard's url; None where it is that of a single server."""
    if not url.startswith(SCHEME):
        return None
    hosts, _, name = url.removeprefix(SCHEME).partition("/")
    addresses = (host.rpartition(":") for host in hosts.split(","))
    return Pair(name, tuple((host, int(port)) for host, _, port in addresses))


async def primary_of(pair: Pair, shown: Credentials) -> Address:
    """Ask the Sentinels, one after the other in any order, which server of the pair is the primary.

    Args:
        pair: which.
        shown: what the Sentinels are shown.

    Raises:
        ConnectionError: none of them says.
    """
    for address in random.sample(pair.sentinels, len(pair.sentinels)):
        try:
            async with asyncio.timeout(_SENTINEL_SECONDS):
                found = await _ask(address, pair.name, shown)
        except (OSError, TimeoutError, hiredis.ReplyError):
            continue
        if found:
            return found
    raise ConnectionError("no Sentinel says which server is the primary")


async def _ask(sentinel: Address, name: str, shown: Credentials) -> Address | None:
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(lambda: Link(lambda *_: None, lambda _: None), *sentinel)
    try:
        if shown.password:
            await link.ask("AUTH", shown.username, shown.password)
        found = await link.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
    finally:
        link.abort()
    return (found[0].decode(), int(found[1])) if found else None


class PrimaryClient(Redis):
    """A client of the server that was a pair's primary when it was made."""


async def until_copied(shard: Redis) -> None:
    """Wait until the copy of a pair has all that its primary has done so far; a single server has none.

    Raises:
        redis.exceptions.ConnectionError: the copy did not confirm in time.
    """
    if not isinstance(shard, PrimaryClient):
        return
    async with shard.pipeline(transaction=False) as pipe:
        # WAIT is for what its connection did last: a PING, which came after everything.
        pipe.ping()
        pipe.execute_command("WAIT", 1, _MOVE_COPIED_MS)
        _, copies = await pipe.execute()
    if copies < 1:
        raise RedisConnectionError("its copy does not confirm")

"""``python -m shards.server.prepare COLOR NAME=URL…``: what `inv up` tells a new fleet, for one started without it.

Gives the slots to the shards where there is no slot table yet, and orders the color to be active where nothing is
ordered yet. Waits for the servers; run again, it changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shards.errors import ShardsError, StaleVersion, UsageError
from shards.log.move import newest_version
from shards.router.control import Control, Orders
from shards.router.table import Shard, SlotTable
from shards.settings import Settings

ROUTE_VARIABLE = "SHARDS_ROUTE"
"""Where edges that no file reaches shall send requests first, in the proxy's own words."""

_WAIT_S, _AGAIN_S = 60.0, 0.3


async def prepare(settings: Settings, color: str, shards: Sequence[Shard]) -> None:
    """Write the first slot table and the first order, where there are none.

    Raises:
        redis.exceptions.RedisError: a server does not answer.
    """
    async with _client(settings, settings.message_redis_url) as redis:
        control = Control(redis)
        if await control.table() is None:
            newest = 0
            for shard in shards:
                async with _client(settings, shard.url) as client:
                    newest = max(newest, await newest_version(client))
            await control.swap_table(SlotTable.first(shards, newest + 1, secrets.token_hex(8)), 0)
        route = os.environ.get(ROUTE_VARIABLE, "")
        if route and await control.route() is None:
            await control.write_route(route.encode())
        if all([await control.orders(each) is None for each in ("blue", "green")]):
            await control.order({color: Orders("active")})


def _client(settings: Settings, url: str) -> Redis:
    shown = settings.credentials(url)
    return Redis.from_url(url, username=shown.username, password=shown.password, socket_timeout=5)


async def _insist(settings: Settings, color: str, shards: Sequence[Shard]) -> None:
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            return await prepare(settings, color, shards)
        except StaleVersion:
            # Somebody else was faster.
            pass
        except (RedisError, OSError) as error:
            if time.monotonic() > end:
                raise ShardsError(f"a Redis server does not answer: {error}") from None
        await asyncio.sleep(_AGAIN_S)


def read(arguments: Sequence[str]) -> tuple[str, list[Shard]]:
    """Read the command line.

    Raises:
        UsageError: it makes no sense.
    """
    color, *named = arguments or [""]
    pairs = [word.partition("=") for word in named]
    if color not in ("blue", "green") or not pairs or not all(name and url for name, _, url in pairs):
        raise UsageError("say the color and the shards: blue shared-0=redis://shared-0:6379/0 …")
    return color, [Shard(name, url) for name, _, url in pairs]


def main() -> None:
    """Run as a container of its own, before replicas can be ready."""
    try:
        color, shards = read(sys.argv[1:])
        asyncio.run(_insist(Settings.read(), color, shards))
    except ShardsError as error:
        print(f"shards.server.prepare: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

"""Messages to a name, on the color's Redis: whoever takes one first has it, and nobody else does.

At most once, as the channel-layer specification says. channels_redis keeps what it hands out in a backup queue
until a second command has cleaned it, and whoever receives in between gets it again (seen in a test that sent one
message; docs/decisions/0004-mailboxes.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from importlib.resources import files
from typing import cast

from redis.asyncio import Redis

from shards.aio import end
from shards.metrics import METRICS

_WAIT_SECONDS = 5
_ANSWER_SECONDS = 5
_KEY = "shards:mailbox:"


class Mailboxes:
    """The mailboxes of one color, for one event loop.

    Args:
        url: of the color's Redis.
        password: its password; None: none.
        expiry: seconds after which a message that nobody took is dropped.
    """

    def __init__(self, url: str, password: str | None, expiry: int) -> None:
        # A blocked BLPOP holds its connection: its answer may take as long as it waits, and then some.
        timeout = _WAIT_SECONDS + _ANSWER_SECONDS
        self._redis = Redis.from_url(url, password=password, socket_timeout=timeout, socket_connect_timeout=2)
        self._put = self._redis.register_script((files("shards") / "mailbox.lua").read_text())
        self._expiry = expiry
        self._taking: dict[str, asyncio.Task[bytes | None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def put(self, name: str, message: bytes, capacity: int) -> bool:
        """Put a message into a mailbox; False: it is full.

        Raises:
            redis.exceptions.RedisError: the color's Redis does not take it.
        """
        return bool(await self._put(keys=[_KEY + name], args=[message, capacity, self._expiry * 1000]))

    async def take(self, name: str) -> bytes:
        """Wait for a message and take it. A cancelled call leaves it to the next one, in this process.

        Raises:
            redis.exceptions.RedisError: the color's Redis does not answer.
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            while True:
                taking = self._taking.get(name) or asyncio.create_task(self._pop(name))
                self._taking[name] = taking
                try:
                    message = await asyncio.shield(taking)
                finally:
                    # Only what is done goes: one that is still waiting has the next call's message.
                    if taking.done():
                        del self._taking[name]
                if message is not None:
                    return message

    async def _pop(self, name: str) -> bytes | None:
        answer = await cast(Awaitable[list[bytes] | None], self._redis.blpop([_KEY + name], timeout=_WAIT_SECONDS))
        if answer is None:
            return None
        expires_ms, _, message = answer[1].partition(b":")
        if int(expires_ms) > time.time() * 1000:
            return message
        METRICS.layer_dropped.inc()
        return None

    async def flush(self) -> None:
        """Empty every mailbox of this color.

        Raises:
            redis.exceptions.RedisError: the color's Redis does not answer.
        """
        async for key in self._redis.scan_iter(match=_KEY + "*", count=1000):
            await self._redis.delete(key)

    async def close(self) -> None:
        """Disconnect; who waits is cancelled."""
        await end(self._taking.values())
        await self._redis.aclose()

"""What belongs to a color by name, on its Redis: mailboxes, and the named channels in groups.

Whoever takes a message first has it, and nobody else does: at most once, as the channel-layer specification says.
channels_redis keeps what it hands out in a backup queue until a second command has cleaned it, and whoever receives in
between gets it again (seen in a test that sent one message; docs/decisions/0004-mailboxes.md).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import AuthenticationError, MaxConnectionsError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shards.aio import end
from shards.log.link import Reply
from shards.log.login import login_at
from shards.log.shard import ShardConnection
from shards.metrics import METRICS
from shards.router.table import Shard
from shards.settings import Credentials

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_CONNECTIONS = 10
"""Connections on which commands go; one more for each channel that is listened on."""

MOST_LISTENED = 100
"""Named channels that may be received from at once in one process, its own included: each holds a connection."""

_WAIT_SECONDS = 5
_ANSWER_SECONDS = 5
_CONNECT_SECONDS = 2
_MEMBERS_SECONDS = 1.5
_HUNG_SECONDS = 5.0
_BACKOFF_SECONDS = (0.1, 2.0)
_NODE_ALIVE_SECONDS = 30
_MAILBOX, _GROUP, _NODES = "shards:mailbox:", "shards:group:", "shards:nodes"


class Mailboxes:
    """The mailboxes of one color, for one event loop.

    Args:
        url: of the color's Redis.
        credentials: gives what it is shown; asked at each connect.
        expiry: seconds after which a message that nobody took is dropped.

    Every method but `take`, which waits, raises `redis.exceptions.RedisError` where the color's Redis does not answer
    in time. Nothing is sent again by itself: a message could arrive twice.

    Each channel that `take` waits on holds a connection of its own: no more than `MOST_LISTENED` may be waited on.
    """

    def __init__(self, url: str, credentials: Callable[[], Credentials], expiry: int) -> None:
        login = login_at(url, credentials)
        # More callers than connections wait for one, rather than open more.
        pool = BlockingConnectionPool.from_url(
            url,
            credential_provider=login,
            max_connections=MOST_CONNECTIONS,
            timeout=_ANSWER_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_CONNECT_SECONDS,
        )
        self._redis = Redis.from_pool(pool)
        # A blocked BLPOP holds its connection: its answer may take as long as it waits, and then some.
        self._listening = Redis.from_url(
            url,
            credential_provider=login,
            max_connections=MOST_LISTENED,
            socket_timeout=_WAIT_SECONDS + _ANSWER_SECONDS,
            socket_connect_timeout=_CONNECT_SECONDS,
        )
        # Each group_send asks who is in the group by name; over redis-py that took three quarters of its CPU.
        self._asking = ShardConnection(Shard("color", url), lambda _: credentials(), _Deaf())
        self._put = self._redis.register_script((files("shards") / "lua" / "put.lua").read_text())
        self._expiry = expiry
        self._waits_for_redis = False
        self._hung_until = 0.0
        self._unclaimed: dict[str, asyncio.Task[bytes | None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def put(self, message: bytes, capacities: dict[str, int]) -> int:
        """Put a message into mailboxes.

        Args:
            message: what to put.
            capacities: for each mailbox, by its channel's name, how many messages may wait in it.

        Returns:
            How many of them were full: there it was dropped. It is counted.
        """
        if not capacities:
            return 0
        keys = [_MAILBOX + name for name in capacities]
        answers: list[tuple[int, int]] = await self._put(
            keys=keys, args=[message, self._expiry * 1000, *capacities.values()]
        )
        full = len(answers) - sum(fits for fits, _ in answers)
        METRICS.layer_dropped.inc(full + sum(expired for _, expired in answers))
        return full

    async def take(self, name: str) -> bytes:
        """Wait for a message and take it, and for Redis, where that is away. A cancelled call takes no message: what
        was on its way goes back.

        Raises:
            redis.exceptions.MaxConnectionsError: as many channels are waited on as may be.
            redis.exceptions.AuthenticationError: the password is wrong.
            redis.exceptions.ResponseError: Redis refuses.
        """
        backoff = _BACKOFF_SECONDS[0]
        async with self._locks.setdefault(name, asyncio.Lock()):
            while True:
                popping = self._unclaimed.pop(name, None) or self._spawn(self._pop(name))
                try:
                    message = await asyncio.shield(popping)
                except asyncio.CancelledError:
                    # Redis may be giving it a message just now. The next call here gets it, or else the mailbox.
                    self._unclaimed[name] = popping
                    popping.add_done_callback(partial(self._return, name))
                    raise
                except (AuthenticationError, MaxConnectionsError):
                    raise
                except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                    self._note_away(error)
                    await asyncio.sleep(backoff * random.uniform(0.5, 1))
                    backoff = min(backoff * 2, _BACKOFF_SECONDS[1])
                    continue
                self._note_back()
                backoff = _BACKOFF_SECONDS[0]
                if message is not None:
                    return message

    def _note_away(self, error: Exception) -> None:
        """Say once, however many channels are waited on, that Redis is waited for."""
        if not self._waits_for_redis:
            self._waits_for_redis = True
            logger.warning("color redis: %s; waiting for it", error or type(error).__name__)

    def _note_back(self) -> None:
        if self._waits_for_redis:
            self._waits_for_redis = False
            logger.warning("color redis: it answers again")

    async def _pop(self, name: str) -> bytes | None:
        try:
            answer = await cast(
                Awaitable[list[bytes] | None], self._listening.blpop([_MAILBOX + name], timeout=_WAIT_SECONDS)
            )
        except MaxConnectionsError:
            raise MaxConnectionsError(
                f"{name}: this process receives from {MOST_LISTENED} named channels already; spread them over more"
            ) from None
        return _unexpired(answer[1]) if answer else None

    def _return(self, name: str, popped: asyncio.Task[bytes | None]) -> None:
        """Put back what nobody has claimed."""
        if self._unclaimed.get(name) is not popped:
            return
        del self._unclaimed[name]
        if not popped.cancelled() and popped.exception() is None and (message := popped.result()) is not None:
            self.give_back(name, message)

    def give_back(self, name: str, message: bytes) -> None:
        """Put a message back as the first one, since nobody got it."""
        self._spawn(self._put_back(name, message))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _put_back(self, name: str, message: bytes) -> None:
        entry = b"%d:%b" % ((time.time() + self._expiry) * 1000, message)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.lpush(_MAILBOX + name, entry)
                pipe.pexpire(_MAILBOX + name, self._expiry * 1000)
                await pipe.execute()
        except (RedisError, OSError) as error:
            METRICS.layer_dropped.inc()
            logger.warning("color redis: a message for %s is lost: %s", name, error)

    # Groups

    async def join(self, group: str, name: str, seconds: float) -> None:
        """Have `name` in `group` for so many seconds from now."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(_GROUP + group, name, str(time.time() + seconds))
            pipe.pexpire(_GROUP + group, int(seconds * 1000))
            await pipe.execute()

    async def leave(self, group: str, name: str) -> None:
        """Take `name` out of `group`."""
        await self._redis.hdel(_GROUP + group, name)

    async def members(self, group: str) -> list[str]:
        """Give the named channels in `group`.

        Raises:
            redis.exceptions.RedisError: Redis is away, or does not answer.
            TimeoutError: it did not within `_MEMBERS_SECONDS`; for `_HUNG_SECONDS` it is not waited for again.
        """
        until = await self._ask_members(group)
        if isinstance(until, Exception):
            until = await self._ask_members_anew(group)
        return [name.decode() for name, lapses in until.items() if float(lapses) > time.time()]

    async def _ask_members_anew(self, group: str) -> dict[bytes, bytes]:
        """Ask over another connection: one that was lost is not back at once. Who asks a Redis that hangs, waits."""
        if time.monotonic() < self._hung_until:
            raise RedisConnectionError("the color's Redis does not answer")
        try:
            async with asyncio.timeout(_MEMBERS_SECONDS):
                return await cast(Awaitable[dict[bytes, bytes]], self._redis.hgetall(_GROUP + group))
        except (TimeoutError, RedisTimeoutError):
            self._hung_until = time.monotonic() + _HUNG_SECONDS
            raise

    async def _ask_members(self, group: str) -> Reply:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asking.command(lambda r: None if answer.done() else answer.set_result(r), "HGETALL", _GROUP + group)
        return await answer

    # Processes

    async def enlist(self, node: str) -> None:
        """Say that a process lives; to be said again within 30 s."""
        now = time.time()
        await self._redis.zadd(_NODES, {node: now})
        await self._redis.zremrangebyscore(_NODES, 0, now - _NODE_ALIVE_SECONDS)

    async def nodes(self) -> list[str]:
        """Give the processes that live."""
        return [node.decode() for node in cast(Sequence[bytes], await self._redis.zrange(_NODES, 0, -1))]

    async def dismiss(self, node: str) -> None:
        """Say that a process stops."""
        await self._redis.zrem(_NODES, node)

    async def flush(self) -> None:
        """Empty every mailbox and every group of this color."""
        for pattern in (_MAILBOX, _GROUP):
            async for key in self._redis.scan_iter(match=pattern + "*", count=1000):
                await self._redis.delete(key)

    def start(self) -> None:
        """Begin to connect; what is asked before goes over connections of its own."""
        self._asking.start()

    async def close(self) -> None:
        """Disconnect; who waits is cancelled."""
        await end(self._tasks)
        await self._asking.stop()
        await self._listening.aclose()
        await self._redis.aclose()


class _Deaf:
    """Nothing is subscribed on the color's Redis."""

    def shard_up(self, connection: ShardConnection) -> None:
        """See `shards.log.shard.Listener`."""

    def shard_down(self, connection: ShardConnection) -> None:
        """See `shards.log.shard.Listener`."""

    def pushed(self, connection: ShardConnection, channel: bytes, payload: bytes) -> None:
        """See `shards.log.shard.Listener`."""


def _unexpired(entry: bytes) -> bytes | None:
    expires_ms, _, message = entry.partition(b":")
    if int(expires_ms) > time.time() * 1000:
        return message
    METRICS.layer_dropped.inc()
    return None

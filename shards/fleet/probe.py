"""Questions to the parts of a fleet: one HTTP request, one PING, a wait with a deadline."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shards.log.login import Login
from shards.log.pair import PrimaryClient, pair_of, primary_of
from shards.settings import Credentials

PROBE_S = 1.0
"""A part that takes longer to answer is not healthy."""

_PATIENCE_S, _AGAIN_S = 20.0, 0.2

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What an HTTP server answered.

    Attributes:
        status: its status code.
        body: what it sent, decoded where it is JSON.
    """

    status: int
    body: Any


async def get(
    port: int,
    path: str,
    host: str = "127.0.0.1",
    within_s: float = PROBE_S,
    token: str = "",
    tls: ssl.SSLContext | None = None,
) -> Answer | None:
    """Ask an HTTP server, straight: no proxy settings, no connection kept.

    Args:
        port: of it.
        path: what to ask for.
        host: of it.
        within_s: how long it may take, in seconds.
        token: to show it; empty: none.
        tls: whom to trust, where it speaks TLS.

    Returns:
        The answer; None where none came within `within_s` seconds.
    """
    try:
        async with asyncio.timeout(within_s):
            return await _get(host, port, path, f"Authorization: Bearer {token}\r\n" if token else "", tls)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
        return None


async def _get(host: str, port: int, path: str, more: str, tls: ssl.SSLContext | None) -> Answer:
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        # HTTP/1.0: the answer ends where the connection does.
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n{more}\r\n".encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    # Docker takes connections for a container that does not: then there is no head.
    status = int(head[len("HTTP/1.x ") :][:3])
    try:
        return Answer(status, json.loads(body))
    except ValueError:
        return Answer(status, body.decode(errors="replace"))


def redis_client(port: int, password: str, timeout: float = PROBE_S, host: str = "127.0.0.1") -> Redis:
    """Make a client of one of the fleet's Redis servers; the caller closes it."""
    return Redis(host=host, port=port, password=password, socket_timeout=timeout, socket_connect_timeout=timeout)


def lasting_client(port: int, password: Callable[[], str], timeout: float, host: str = "127.0.0.1") -> Redis:
    """Make a client of one of the fleet's Redis servers for as long as one likes; the caller closes it.

    Args:
        port: of it.
        password: gives what to show it, asked at each connect: `inv rotate` changes that.
        timeout: how long one answer may take, in seconds.
        host: of it.
    """
    login = Login(lambda: Credentials(password=password()))
    return Redis(
        host=host, port=port, credential_provider=login, socket_timeout=timeout, socket_connect_timeout=timeout
    )


def shard_client(url: str, credentials: Credentials, timeout: float = PROBE_S, kind: type[Redis] = Redis) -> Redis:
    """Make a client of a shard's server, wherever it runs; the caller closes it."""
    return kind.from_url(
        url,
        username=credentials.username if credentials.password else None,
        password=credentials.password or None,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )


async def primary_client(url: str, credentials: Credentials, within_s: float) -> Redis:
    """Make a client of a shard, of the server that is the primary now where it is a pair; the caller closes it.

    Args:
        url: the shard's.
        credentials: what its servers and Sentinels are shown.
        within_s: how long one answer may take, in seconds.

    Raises:
        redis.exceptions.ConnectionError: no Sentinel says which server is the primary.
    """
    pair = pair_of(url)
    if pair is None:
        return shard_client(url, credentials, within_s)
    try:
        host, port = await primary_of(pair, credentials)
    except ConnectionError as error:
        raise RedisConnectionError(f"{pair.name}: {error}") from None
    return shard_client(f"redis://{host}:{port}/0", credentials, within_s, PrimaryClient)


async def redis_clients(client: Redis) -> int | None:
    """Ask a Redis server how many clients it has; None where it does not answer, or still loads its data.

    Args:
        client: of the server; it is closed.
    """
    try:
        async with asyncio.timeout(PROBE_S):
            await client.ping()
            return int((await client.info("clients"))["connected_clients"])
    except (RedisError, OSError, TimeoutError):
        return None
    finally:
        await client.aclose()


async def ask_redis(port: int, password: str, *command: str) -> Any:
    """Ask a Redis server or a Sentinel one thing.

    Returns:
        What it says; the error where it refuses; None also where it does not answer.
    """
    client: Any = redis_client(port, password)
    try:
        async with asyncio.timeout(PROBE_S):
            return await client.execute_command(*command)
    except ResponseError as refusal:
        return refusal
    except (RedisError, OSError, TimeoutError):
        return None
    finally:
        await client.aclose()


async def primary_port(sentinels: Sequence[int], password: str, pair: str) -> int | None:
    """Ask the Sentinels for the port of a pair's primary; None where none of them answers, or knows the pair.

    Args:
        sentinels: their ports.
        password: of theirs.
        pair: the name of the pair.
    """
    for port in sentinels:
        found = await ask_redis(port, password, "SENTINEL GET-MASTER-ADDR-BY-NAME", pair)
        if isinstance(found, (list, tuple)):
            return int(found[1])
    return None


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the control Redis, again where it does not answer: one that is killed is back in a second or two.

    Raises:
        redis.exceptions.RedisError: it did not answer for 20 seconds.
    """
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await ask()
        except (RedisConnectionError, RedisTimeoutError):
            if time.monotonic() >= end:
                raise
        await asyncio.sleep(_AGAIN_S)


async def until(question: Callable[[], Awaitable[bool]], deadline_s: float, every_s: float = 0.1) -> bool:
    """Ask until the answer is yes.

    Returns:
        Whether it was, within `deadline_s` seconds.
    """
    end = time.monotonic() + deadline_s
    while not await question():
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(every_s)
    return True

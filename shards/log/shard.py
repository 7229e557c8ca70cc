"""A connection to one shard, kept up."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha1
from importlib.resources import files
from typing import Protocol
from urllib.parse import urlsplit

from shards.aio import end
from shards.log.link import Answered, Link, LinkLost, Nonsense, Reply
from shards.router.table import Shard
from shards.settings import Credentials

logger = logging.getLogger(__name__)

ANNOUNCEMENTS = "!"
"""Channel of new slot tables: the version, a space, the table; no group can have this name."""

NO_GROUP = ord("!")
"""With which the channels begin that are none of a group."""

_CONNECT_SECONDS = 3.0
_PING_SECONDS = 1.0
_SILENCE_SECONDS = 3.0
_BACKOFF_SECONDS = (0.05, 1.0)


Pushed = Callable[[bytes, bytes], None]
"""Takes a message pushed: channel, payload."""


class Script:
    """A Lua script of this package, called by its digest."""

    def __init__(self, name: str) -> None:
        self.source = (files("shards.log") / "lua" / f"{name}.lua").read_text()
        self.digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


PUBLISH, READ, FENCE = Script("publish"), Script("read"), Script("fence")


class Listener(Protocol):
    """Hears what happens on a shard's connection."""

    def shard_up(self, connection: ShardConnection) -> None:
        """Hear that the connection is usable; before this call returns nothing is pushed."""

    def shard_down(self, connection: ShardConnection) -> None:
        """Hear that the connection is gone; every command that waited was told."""

    def pushed(self, connection: ShardConnection, channel: bytes, payload: bytes) -> None:
        """Hear a message published on a subscribed channel."""


class ShardConnection:
    """Connects to a shard, and again whenever the connection is lost, until stopped.

    Args:
        shard: where to connect.
        credentials: gives, by a shard's URL, what it is shown; asked at each connect.
        listener: hears of every connect, loss and message.
    """

    pulse = "PING"
    """Asked each second, to find out whether the connection is still one."""

    def __init__(self, shard: Shard, credentials: Callable[[str], Credentials], listener: Listener) -> None:
        self.shard = shard
        self._credentials = credentials
        self._listener = listener
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether commands can be sent now."""
        return self._link is not None

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._keep_up(), name=f"shard {self.shard.name}")

    async def stop(self) -> None:
        """Disconnect and connect no more."""
        await end([self._task])

    def run(self, script: Script, answered: Answered, keys: Sequence[str], args: Sequence[str | bytes | int]) -> None:
        """Run a script; `answered` gets its reply, or an exception, `LinkLost` where the shard is down."""
        if self._link is None:
            answered(LinkLost(f"{self.shard.name} is down"))
        else:
            self._link.send(answered, "EVALSHA", script.digest, len(keys), *keys, *args)

    def command(self, answered: Answered, *command: str | bytes | int) -> None:
        """Send a command; `answered` gets its reply, or an exception, `LinkLost` where the shard is down."""
        if self._link is None:
            answered(LinkLost(f"{self.shard.name} is down"))
        else:
            self._link.send(answered, *command)

    def refused(self, error: Exception) -> None:
        """Connect anew where the shard has forgotten the scripts (SCRIPT FLUSH), since that loads them; or is mad."""
        if self._link is not None and (isinstance(error, Nonsense) or str(error).startswith("NOSCRIPT")):
            self._link.abort()

    def subscribe(self, channels: Sequence[str]) -> None:
        """Have messages on `channels` pushed; forgotten when the connection is lost."""
        if self._link is not None and channels:
            self._link.send_pushed("SUBSCRIBE", *channels)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Have messages on `channels` pushed no more."""
        if self._link is not None and channels:
            self._link.send_pushed("UNSUBSCRIBE", *channels)

    async def _keep_up(self) -> None:
        backoff, told = _BACKOFF_SECONDS[0], ""
        while True:
            try:
                await self._connection()
                backoff, told = _BACKOFF_SECONDS[0], ""
            except Exception as error:
                reason = str(error) or type(error).__name__
                if reason != told:
                    # Once, not with each attempt.
                    logger.warning("shard %s: %s", self.shard.name, reason)
                told = reason
            await asyncio.sleep(backoff * random.uniform(0.5, 1))
            backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

    async def _connection(self) -> None:
        lost = asyncio.Event()
        link = Link(self._hearing(), lambda _: lost.set())
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._connect(link)
            self._link = link
            self._listener.shard_up(self)
            await self._watch(link, lost)
        finally:
            link.abort()
            if self._link is not None:
                self._link = None
                self._listener.shard_down(self)
            await _close(link)

    def _hearing(self) -> Pushed:
        """Give what takes each message pushed."""
        return partial(self._listener.pushed, self)

    async def _connect(self, link: Link) -> None:
        url = urlsplit(self.shard.url)
        await asyncio.get_running_loop().create_connection(
            lambda: link,
            url.hostname or "127.0.0.1",
            url.port or 6379,
            ssl=True if url.scheme == "rediss" else None,
        )
        await self._greet(link, url.path.strip("/") or "0")

    async def _greet(self, link: Link, database: str) -> None:
        shown = self._credentials(self.shard.url)
        auth = ("AUTH", shown.username, shown.password) if shown.password else ()
        await link.ask("HELLO", "3", *auth, "SETNAME", "shards-worker")
        if database != "0":
            await link.ask("SELECT", database)
        for script in (PUBLISH, READ, FENCE):
            await link.ask("SCRIPT", "LOAD", script.source)
        link.send_pushed("SUBSCRIBE", ANNOUNCEMENTS)

    async def _watch(self, link: Link, lost: asyncio.Event) -> None:
        """Return once the connection is lost; drop it where a ping stays unanswered, as half-open TCP leaves it."""
        loop = asyncio.get_running_loop()
        answered_at = loop.time()

        def pong(reply: Reply) -> None:
            nonlocal answered_at
            if self.is_well(reply):
                answered_at = loop.time()

        while not lost.is_set():
            link.send(pong, self.pulse)
            try:
                await asyncio.wait_for(lost.wait(), _PING_SECONDS)
            except TimeoutError:
                if loop.time() - answered_at > _SILENCE_SECONDS:
                    logger.warning("shard %s: silent, reconnecting", self.shard.name)
                    link.abort()

    def is_well(self, reply: Reply) -> bool:
        """Tell whether the answer to `pulse` is one that the connection may go on with."""
        return not isinstance(reply, Exception)


async def _close(link: Link) -> None:
    """Drop a connection and wait until it is gone; one whose making was cut off may come up in between."""
    await asyncio.sleep(0)
    while link.open:
        link.abort()
        await asyncio.sleep(0)

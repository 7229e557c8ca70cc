"""A channel that one process receives from: what waits for it, and who waits on it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections import deque
from typing import Any

from shards.hub import Message
from shards.log.log import BACKEND_MARK, Place
from shards.metrics import METRICS
from shards.payload import Payload, decode

logger = logging.getLogger(__name__)

_Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Event]


class Channel:
    """A queue that any thread and event loop may put into and get from; also its groups' member.

    Args:
        name: the channel's.
        capacity: messages that may wait.
        expiry: seconds after which one that nobody took is dropped.

    Attributes:
        joined: the groups it is in, or about to be: set once it is.
        places: of groups that its predecessor in another worker followed: where it goes on when it joins them.
    """

    public_id = None

    def __init__(self, name: str, capacity: int, expiry: float) -> None:
        self.name = name
        self.used_at = time.monotonic()
        self._given_up = False
        self._maker: weakref.ref[asyncio.Task[Any]] | None = None
        self._received_under_maker = False
        self.joined: dict[str, asyncio.Event] = {}
        self.places: dict[str, Place] = {}
        self._capacity = capacity
        self._expiry = expiry
        self._lock = threading.Lock()
        self._messages: deque[tuple[float, Payload]] = deque()
        self._waiters: deque[_Waiter] = deque()

    @property
    def idle(self) -> bool:
        """Whether somebody waits here, and nothing does that he could take."""
        with self._lock:
            return bool(self._waiters) and not self._messages

    def made_by(self, task: asyncio.Task[Any] | None) -> None:
        """Remember who made it: with Channels the task of a connection, which receives for as long as it lasts."""
        self._maker = weakref.ref(task) if task else None

    def _maker_lives(self) -> bool:
        task = self._maker() if self._maker else None
        return task is not None and not task.done()

    def is_unused(self, seconds: float, given_up_seconds: float) -> bool:
        """Tell whether nobody waits, nor has received or joined a group with it for a time.

        Args:
            seconds: how long.
            given_up_seconds: how long where the last receive was cancelled, or who made the channel has ended since:
                that is how connections end. The one alone does not tell: a receive may have got a message just
                when its connection ended.
        """
        idle = time.monotonic() - self.used_at
        ended = self._given_up or (self._received_under_maker and not self._maker_lives())
        return not self._waiters and idle > (given_up_seconds if ended else seconds)

    def put(self, message: Payload) -> bool:
        """Add a message; False: the channel is full of messages that have not expired."""
        with self._lock:
            self._drop_expired()
            if len(self._messages) >= self._capacity:
                return False
            self._messages.append((time.monotonic() + self._expiry, message))
            self._wake_one()
            return True

    async def get(self) -> Payload:
        """Wait for a message. Of several calls each gets another message; a cancelled one takes none."""
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        while (message := self._take_or_wait(waiter)) is None:
            try:
                await waiter[1].wait()
            except BaseException:
                self._give_up(waiter)
                raise
            waiter[1].clear()
        return message

    def clear(self) -> int:
        """Forget the messages that wait, and give their number; who waits for one goes on."""
        with self._lock:
            waited = len(self._messages)
            self._messages.clear()
            return waited

    def _take_or_wait(self, waiter: _Waiter) -> Payload | None:
        with self._lock:
            self.used_at, self._given_up = time.monotonic(), False
            self._received_under_maker = self._maker_lives()
            self._drop_expired()
            if self._messages:
                return self._messages.popleft()[1]
            self._waiters.append(waiter)
            return None

    def _give_up(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif self._messages:
                # It was woken for a message that it will not take now.
                self._wake_one()
            self.used_at, self._given_up = time.monotonic(), True

    def _wake_one(self) -> None:
        while self._waiters:
            loop, arrived = self._waiters.popleft()
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:
                continue  # its loop has ended: nobody waits there any more
            return

    def _drop_expired(self) -> None:
        while self._messages and self._messages[0][0] <= time.monotonic():
            self._messages.popleft()
            METRICS.layer_dropped.inc()

    # What the hub calls, see shards.hub.Member

    def has_room(self, size: int) -> bool:
        """Always: what is too much for it is dropped."""
        return True

    def on_subscribed(self, group: str, place: Place, recovered: bool) -> None:
        """Hear that the group's messages follow."""
        if group in self.joined:
            self.joined[group].set()

    def on_message(self, message: Message) -> None:
        """Queue what server code sent; what a client published is for sockets, and could name any handler."""
        if not message.entry.body.endswith(BACKEND_MARK + b"}"):
            return
        try:
            payload = decode(b"{" + message.entry.body[1:])["data"]
        except ValueError as error:
            logger.warning("group %s, offset %d: %s", message.group, message.entry.offset, error)
            payload = None
        if not isinstance(payload, dict) or not self.put(payload):
            METRICS.layer_dropped.inc()

    def on_gap(self, group: str, place: Place) -> None:
        """Nothing to do: Channels has no word for it; the gap is counted."""

    def on_unavailable(self, group: str) -> None:
        """Never called: it waits for as long as it takes."""

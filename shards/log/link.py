"""One connection to a Redis server that answers commands and pushes messages in one ordered stream (RESP3).

That order is what delivery rests on: after the answer to a read, the next pushed message is the one after what
was read; nothing falls between. redis-py keeps subscriptions on a connection of their own, so it cannot say this,
and its asyncio client took nine times the CPU a message here (docs/decisions/0002-message-plane.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

logger = logging.getLogger(__name__)

Reply = Any
Answered = Callable[[Reply], None]
"""Takes the reply to a command: what Redis said, or an exception, given, not raised."""


class LinkLost(ConnectionError):
    """The connection went away before the reply came; the command may or may not have been carried out."""


def tell_lost(answered: Answered, why: LinkLost) -> None:
    """Tell one of all who wait that the connection is gone; if he fails, the others must be told all the same."""
    try:
        answered(why)
    except Exception:
        logger.exception("whoever was told that a connection is lost has failed")


class Nonsense(ConnectionError):
    """A server's answer is none to what it was asked."""


_CONFIRMED = (b"subscribe", b"unsubscribe")


class _Pushes:
    """What is expected of a server in a command's place: so many pushes. Called where it gives a reply instead."""

    __slots__ = ("_left", "_refused")

    def __init__(self, count: int, refused: Callable[[], None]) -> None:
        self._left, self._refused = count, refused

    def came(self) -> bool:
        """Count a push; gives whether it was the last one."""
        self._left -= 1
        return self._left <= 0

    def __call__(self, reply: Reply) -> None:
        if not isinstance(reply, LinkLost):
            logger.warning("a Redis server does not subscribe: %s", reply)
            self._refused()


class Link(asyncio.Protocol):
    """A connection in use.

    Args:
        on_push: takes each message pushed: channel, payload.
        on_lost: called once when the connection is gone, after every waiting command was told.
    """

    def __init__(self, on_push: Callable[[bytes, bytes], None], on_lost: Callable[[Link], None]) -> None:
        self._on_push = on_push
        self._on_lost = on_lost
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._waiting: deque[Answered] = deque()
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._dropped = False
        self._loop = asyncio.get_running_loop()

    def send(self, answered: Answered, *command: bytes | str | int) -> None:
        """Send a command; `answered` is called with its reply, always, once.

        Commands sent in one turn of the event loop travel in one write.
        """
        if self._transport is None:
            answered(LinkLost("not connected"))
            return
        self._waiting.append(answered)
        self._write(hiredis.pack_command(cast(Any, command)))

    def send_pushed(self, command: str, *channels: bytes | str) -> None:
        """Send SUBSCRIBE or UNSUBSCRIBE: a push for each channel is the answer, in its place among the replies.

        A server that refuses loses the connection: it would never tell of what is published there.
        """
        if self._transport is not None:
            self._waiting.append(_Pushes(len(channels), self.abort))
            self._write(hiredis.pack_command(cast(Any, (command, *channels))))

    async def ask(self, *command: bytes | str | int) -> Reply:
        """Send a command and wait for its reply.

        Raises:
            LinkLost: the connection went away.
            hiredis.ReplyError: Redis refused.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.send(lambda reply: None if future.done() else future.set_result(reply), *command)
        reply = await future
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def open(self) -> bool:
        """Whether there is a connection that has not been told lost."""
        return self._transport is not None

    def abort(self) -> None:
        """Drop the connection now; nothing more is believed that it has said."""
        self._dropped = True
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)

    def _flush(self) -> None:
        data, self._outgoing = b"".join(self._outgoing), []
        if self._transport is not None:
            self._transport.write(data)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._read(data)
        except (hiredis.ProtocolError, IndexError) as error:
            # Where one answer is none, nobody knows whose the next one is.
            logger.warning("a Redis server says what makes no sense: %r", error)
            self.abort()
        except Exception:
            logger.exception("whoever was told what a Redis server says has failed; it is asked anew")
            self.abort()

    def _read(self, data: bytes) -> None:
        self._reader.feed(data)
        gets, pushed, waiting = self._reader.gets, self._on_push, self._waiting
        while not self._dropped and (reply := gets()) is not Ellipsis:
            if type(reply) is not hiredis.PushNotification:
                waiting.popleft()(reply)
            elif reply[0] == b"message":
                pushed(reply[1], reply[2])
            elif reply[0] in _CONFIRMED:
                self._confirmed()

    def _confirmed(self) -> None:
        """Take note that a channel was subscribed, or is no more."""
        if isinstance(expected := self._waiting[0], _Pushes) and expected.came():
            self._waiting.popleft()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        waiting, self._waiting = self._waiting, deque()
        for answered in waiting:
            tell_lost(answered, LinkLost(str(exc or "closed by the server")))
        self._on_lost(self)

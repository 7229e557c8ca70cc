"""One simulated client: a socket, its place in its group, and the manners of a client that resumes.

It subscribes its group by connecting to ``/ws/<group>/``, checks every frame against the ledger, and comes back with
its session, epoch and offset when the server asks it to or cuts it off, sending again what was not acked.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from time import monotonic_ns
from urllib.parse import urlencode, urlsplit, urlunsplit

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from shards.load import frames
from shards.load.ledger import GroupLedger, Member
from shards.load.limits import bound_socket

_TEXT = WSMsgType.TEXT
_CONNECT_SECONDS = 30.0
_FINAL_CLOSES = {1002, 1003, 1007, 1008, 1009, 1010}
_BACKOFF_SECONDS = 0.1
_BACKOFF_MOST_SECONDS = 5.0

CONNECT_ERRORS = (OSError, TimeoutError, WSError)
"""What a failed attempt to connect may raise."""


class Shared:
    """What the clients of one process have in common.

    Attributes:
        url: the WebSocket base, ``ws://host:port/ws/``; a query in it is kept.
        gate: bounds the handshakes under way.
        open: sockets that are subscribed now.
        delivered: messages received, duplicates left out.
        latencies: of those, since someone last took the list: nanoseconds from due to received.
        reconnects: times a client came back.
        away: of those, since someone last took the list: nanoseconds from losing a socket to being subscribed again.
        closed_by_server: closes that no client asked for.
        errors: what went wrong, how often, by kind.
        examples: the first of each kind, in full.
        stopping: the run ends; nobody reconnects any more.
    """

    def __init__(self, url: str, handshakes: int) -> None:
        self.url = url
        self.gate = asyncio.Semaphore(handshakes)
        self.open = 0
        self.delivered = 0
        self.latencies: list[int] = []
        self.reconnects = 0
        self.away: list[int] = []
        self.closed_by_server = 0
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.stopping = False

    def wrong(self, kind: str, example: str = "") -> None:
        """Note that something went wrong."""
        self.errors[kind] += 1
        self.examples.setdefault(kind, example)

    def group_url(self, group: str, place: dict[str, str | int]) -> str:
        """Give the address that subscribes `group`, resuming from `place` where there is one."""
        parts = urlsplit(self.url)
        query = "&".join(part for part in (parts.query, urlencode(place)) if part)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{group}/", query=query))


class Room:
    """A group as its clients see it."""

    __slots__ = ("ledger", "name", "template")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ledger = GroupLedger()
        self.template = frames.publish_template(name, monotonic_ns())


class Client(WSListener):
    """One client, over all its sockets, one after the other.

    Args:
        shared: what it has in common with others.
        room: the group it is in.
        source: the address to connect from; None: the system's choice.
    """

    __slots__ = (
        "_gone_ns",
        "_mover",
        "_ready",
        "_session",
        "_transport",
        "_unacked",
        "member",
        "room",
        "shared",
        "source",
    )

    def __init__(self, shared: Shared, room: Room, source: str | None = None) -> None:
        self.shared = shared
        self.room = room
        self.source = source
        self.member = Member(room.ledger)
        self._session: str | None = None
        self._transport: WSTransport | None = None
        self._ready: asyncio.Future[None] | None = None
        self._mover: asyncio.Task[None] | None = None
        self._unacked: dict[int, int] = {}
        self._gone_ns = 0

    @property
    def subscribed(self) -> bool:
        """Whether its socket is open and subscribed."""
        return self._transport is not None and self._ready is None

    async def connect(self) -> None:
        """Open a socket and wait until it is subscribed, resuming where there is a place to resume from.

        Raises:
            OSError, TimeoutError, WSError: it did not work; see `reason`.
        """
        self._ready = asyncio.get_running_loop().create_future()
        try:
            async with self.shared.gate, asyncio.timeout(_CONNECT_SECONDS):
                await ws_connect(
                    lambda: self,
                    self.shared.group_url(self.room.name, self._place()),
                    socket_factory=lambda _: self._socket(),
                    websocket_handshake_timeout=_CONNECT_SECONDS,
                    max_redirects=0,
                    read_buffer_init_size=1024,
                )
                if self._transport is not None or self._ready.done():
                    await self._ready
                if self._transport is None:
                    raise ConnectionResetError("closed during the handshake")
        except BaseException:
            self.close()
            raise
        finally:
            self._ready = None
        self.shared.open += 1
        for number, due_ns in self._unacked.items():
            self._send(number, due_ns)

    def _socket(self) -> socket.socket | None:
        return bound_socket(self.source) if self.source else None

    def _place(self) -> dict[str, str | int]:
        if self._session is None:
            return {}
        if self.member.epoch is None:
            return {"session": self._session}
        return {"session": self._session, "epoch": self.member.epoch, "offset": self.member.position}

    def publish(self, due_ns: int) -> None:
        """Publish the group's next message; without a socket it is sent as soon as there is one again."""
        number = self.room.ledger.publish(self.member.number)
        self._unacked[number] = due_ns
        if self.subscribed:
            self._send(number, due_ns)

    def _send(self, number: int, due_ns: int) -> None:
        assert self._transport is not None
        self._transport.send(_TEXT, self.room.template % (number, due_ns))

    def close(self) -> None:
        """Close the socket, if there is one."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if self._ready is None:
            self._gone()
        transport.send_close(WSCloseCode.OK)
        transport.disconnect()

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Take the new socket into use."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame. This is the hot path: all that is usual is done right here."""
        now = monotonic_ns()
        if transport is not self._transport:
            return
        if frame.msg_type is not _TEXT:
            self._control(transport, frame)
            return
        try:
            message = frames.decode(frame.get_payload_as_bytes())
            if type(message) is frames.Message:
                if message.group != self.room.name:
                    raise ValueError("a message of another group")
                if self.member.message(message.offset, int(message.id)):
                    self.shared.delivered += 1
                    self.shared.latencies.append(now - message.data.t)
            else:
                self._other(message)
        except ValueError as error:
            self.shared.wrong("protocol", str(error))

    def _control(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        else:
            self.shared.wrong("protocol", f"a {frame.msg_type.name} frame")

    def _other(self, message: frames.Frame) -> None:
        match message:
            case frames.Ack():
                self.room.ledger.acked(int(message.id), message.offset, self.member.log)
                self._unacked.pop(int(message.id), None)
            case frames.Welcome():
                self._session = message.session
            case frames.Subscribed():
                self.member.subscribed(message.epoch, message.offset, message.recovered)
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
            case frames.Gap():
                self.member.gap(message.epoch, message.offset)
            case frames.Reconnect():
                self._come_back(random.uniform(0, message.within_ms / 1000))
            case frames.Error():
                self._refused(message)

    def _refused(self, error: frames.Error) -> None:
        """Count a refusal; a refused publish is sent again a little later."""
        self.shared.wrong(f"error frame {error.code}", error.message)
        if error.id is not None and error.id.isdecimal():
            asyncio.get_running_loop().call_later(random.uniform(0.5, 1.5), self._send_again, int(error.id))

    def _send_again(self, number: int) -> None:
        if number in self._unacked and self.subscribed:
            self._send(number, self._unacked[number])

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Come back, unless the close was this client's own wish or says that it did something wrong."""
        if transport is not self._transport:
            return
        self._transport = None
        code = _close_code(transport)
        self.shared.closed_by_server += 1
        if self._ready is not None:
            if not self._ready.done():
                self._ready.set_exception(ConnectionResetError(f"closed with {code} before it was subscribed"))
            return
        self._gone()
        if code in _FINAL_CLOSES:
            self.shared.wrong(f"closed for good with {code}")
        else:
            # Whoever was asked to move at a later moment has nothing to wait for any more.
            if self._mover is not None:
                self._mover.cancel()
                self._mover = None
            self._come_back(random.uniform(0, _BACKOFF_SECONDS))

    def _gone(self) -> None:
        self.shared.open -= 1
        self._gone_ns = monotonic_ns()

    def _come_back(self, delay: float) -> None:
        if not self.shared.stopping and (self._mover is None or self._mover.done()):
            self._mover = asyncio.create_task(self._move(delay))

    async def _move(self, delay: float) -> None:
        """Reconnect after `delay` seconds; where it fails, again and again with full jitter."""
        attempt = 0
        while not self.shared.stopping:
            await asyncio.sleep(delay)
            self.close()
            try:
                await self.connect()
            except CONNECT_ERRORS as error:
                self.shared.wrong("reconnect failed", reason(error))
                attempt += 1
                delay = random.uniform(0, min(_BACKOFF_MOST_SECONDS, _BACKOFF_SECONDS * 2**attempt))
            else:
                self.shared.reconnects += 1
                self.shared.away.append(monotonic_ns() - self._gone_ns)
                return


def _close_code(transport: WSTransport) -> int:
    handshake = transport.close_handshake
    received = handshake.recv if handshake else None
    return received.code.value if received else WSCloseCode.ABNORMAL_CLOSURE.value


def reason(error: BaseException) -> str:
    """Say in a few words why a connection failed."""
    if isinstance(error, WSHandshakeError) and error.response is not None:
        return f"HTTP {int(error.response.status)}"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__

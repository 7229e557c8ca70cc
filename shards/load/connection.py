"""A simulated client's socket: it connects, is closed on purpose or by the server, and comes back.

What is said over it is the business of a dialect's client, see `dialects`.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
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

from shards.load.limits import bound_socket

CONNECT_SECONDS = 30.0
"""How long a connection may take to come about, unless something else is asked for."""

GROUP = "{group}"
"""In an address: where a group's name goes."""

_FINAL_CLOSES = {1002, 1003, 1007, 1008, 1009, 1010}
_BACKOFF_SECONDS = 0.1
_NOTHING = -1
_BACKOFF_MOST_SECONDS = 5.0

CONNECT_ERRORS = (OSError, TimeoutError, WSError)
"""What a failed attempt to connect may raise."""

PROTOCOL = "protocol"
"""The kind of error that a frame is which the protocol does not know."""

ERROR_FRAME = "error frame "
"""How the kinds of errors begin that a server told of; the code follows."""

PUBLISH_REFUSED = "publish refused: "
"""The same of publishes that are sent again: where that did not help, the ack is missing in the end."""

RECONNECT_FAILED = "reconnect failed: "
"""The same of attempts to come back, which are repeated; the reason follows. Who never was back has no socket."""


class Shared:
    """What the clients of one process have in common.

    Attributes:
        url: the WebSocket base, ``ws://host:port/ws/``, to whose path a group's name is added; a query in it is kept.
            Or the whole address, with ``{group}`` where the name goes.
        connect_s: how long a connection may take to come about.
        tls: how to check the server of a ``wss://`` one; None: as the system does.
        open: sockets that are subscribed now.
        delivered: messages received, duplicates left out.
        latencies: of those, since someone last took the list: nanoseconds from due to received.
        naive: of those that a tool would have measured that sends, waits for its own message and sends again, since
            someone last took the list: nanoseconds from sent to received.
        late_ns: a delivery is late when its latency is above this.
        reconnects: times a client came back.
        away: of those, since someone last took the list: when the socket was lost, by the monotonic clock, and how long
            it took until it was subscribed again, in nanoseconds.
        closed_by_server: closes that no client asked for.
        errors: what went wrong, how often, by kind.
        examples: the first of each kind, in full.
        looping: clients in a closed loop publish again.
        stopping: the run ends; nobody reconnects any more.
    """

    def __init__(
        self,
        url: str,
        late_ns: int = 1_000_000_000,
        tls: ssl.SSLContext | None = None,
        connect_s: float = CONNECT_SECONDS,
    ) -> None:
        self.url = url
        self.tls = tls
        self.connect_s = connect_s
        self.open = 0
        self.delivered = 0
        self.latencies: list[int] = []
        self.naive: list[int] = []
        self.late_ns = late_ns
        self.reconnects = 0
        self.away: list[tuple[int, int]] = []
        self.closed_by_server = 0
        self.errors: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.looping = False
        self.stopping = False

    def wrong(self, kind: str, example: str = "") -> None:
        """Note that something went wrong."""
        self.errors[kind] += 1
        self.examples.setdefault(kind, example)

    def group_url(self, group: str, place: dict[str, str | int]) -> str:
        """Give the address that subscribes `group`, resuming from `place` where there is one."""
        parts = urlsplit(self.url.replace(GROUP, group))
        query = "&".join(part for part in (parts.query, urlencode(place)) if part)
        path = parts.path if GROUP in self.url else f"{parts.path.rstrip('/')}/{group}/"
        return urlunsplit(parts._replace(path=path, query=query))


class Connection(WSListener):
    """One client's socket, and the next one when that is gone.

    Args:
        shared: what it has in common with others.
        source: the address to connect from; None: the system's choice.

    Attributes:
        asked: the number of the message that a closed loop would be waiting for now.
    """

    __slots__ = ("_asked_ns", "_gone_ns", "_mover", "_ready", "_transport", "asked", "shared", "source")

    def __init__(self, shared: Shared, source: str | None) -> None:
        self.shared = shared
        self.source = source
        self._transport: WSTransport | None = None
        self._ready: asyncio.Future[None] | None = None
        self._mover: asyncio.Task[None] | None = None
        self._gone_ns = 0
        self.asked = _NOTHING
        self._asked_ns = 0

    def url(self) -> str:
        """Give the address to connect to."""
        raise NotImplementedError

    def placed(self) -> bool:
        """Tell whether it has ever been in its group."""
        raise NotImplementedError

    def publish(self, due_ns: int) -> None:
        """Publish the group's next message, which was due at `due_ns`."""
        raise NotImplementedError

    def asks(self, number: int) -> None:
        """Note that message `number` is sent now; unless one is under way, a closed loop would have sent it too."""
        if self.asked == _NOTHING:
            self.asked, self._asked_ns = number, monotonic_ns()

    def answered(self, now: int) -> None:
        """Note that the message waited for is there."""
        self.shared.naive.append(now - self._asked_ns)
        self.asked = _NOTHING

    @property
    def subscribed(self) -> bool:
        """Whether its socket is open and subscribed."""
        return self._transport is not None and self._ready is None

    async def connect(self) -> None:
        """Open a socket and wait until it is subscribed.

        However many others do so too: who was cut off comes back when it wants to, and that is what a storm is.

        Raises:
            OSError, TimeoutError, WSError: it did not work; see `reason`.
        """
        self._ready = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self.shared.connect_s):
                await ws_connect(
                    lambda: self,
                    self.url(),
                    ssl_context=self.shared.tls,
                    socket_factory=lambda _: self._socket(),
                    websocket_handshake_timeout=self.shared.connect_s,
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

    @property
    def returning(self) -> bool:
        """Whether it has no socket, and is on its way to the next one."""
        return self._mover is not None and not self._mover.done() and not self.subscribed

    @property
    def connecting(self) -> bool:
        """Whether `connect` is under way, and its end not known yet."""
        return self._ready is not None and not self._ready.done()

    def refuse(self, why: str) -> None:
        """Let `connect` fail: the server does not subscribe the group."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ConnectionRefusedError(why))

    def _socket(self) -> socket.socket | None:
        return bound_socket(self.source) if self.source else None

    def entered(self) -> None:
        """Let `connect` end: the group is subscribed."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

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

    def control(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame that is no text."""
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        else:
            self.shared.wrong(PROTOCOL, f"a {frame.msg_type.name} frame")

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
            self.come_back(random.uniform(0, _BACKOFF_SECONDS))

    def _gone(self) -> None:
        self.shared.open -= 1
        self.asked = _NOTHING
        self._gone_ns = monotonic_ns()

    def come_back(self, delay: float) -> None:
        """Open a new socket after `delay` seconds, unless that is under way already."""
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
                self.shared.wrong(f"{RECONNECT_FAILED}{reason(error)}")
                attempt += 1
                delay = random.uniform(0, min(_BACKOFF_MOST_SECONDS, _BACKOFF_SECONDS * 2**attempt))
            else:
                self.shared.reconnects += 1
                self.shared.away.append((self._gone_ns, monotonic_ns() - self._gone_ns))
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

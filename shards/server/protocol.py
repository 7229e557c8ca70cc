"""uvicorn's WebSocket protocol, with a way for consumers to write frames as they are."""

from __future__ import annotations

from asyncio import BaseTransport
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from uvicorn._types import ASGIReceiveEvent
from websockets.http11 import Request
from websockets.protocol import State

from shards.hub import Message, text_frame
from shards.server.handoff.message import Offer
from shards.server.handoff.movable import MovableSocket

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

    from shards.server.worker import Worker

EXTENSION = "shards.socket"


class SocketProtocol(MovableSocket):
    """One WebSocket.

    A consumer finds it in ``scope["extensions"]["shards.socket"]`` and may take it over: then texts are given to it as
    they come, without queue, task and pause, and it writes whole frames past ASGI's `send`, the same bytes for every
    member of a group. See `shards.consumers.Socket`.
    """

    on_slow: Callable[[], None] | None = None
    """Called once more than the send budget waits for the client to read."""

    on_drain: Callable[[int], None] | None = None
    """Called where the socket should go elsewhere, with the milliseconds it may take; None: it is just closed."""

    answers_due = 0
    """Answers that will be written soon; a message may be held to go out with one, in one write."""

    _held = b""
    """Messages that go out with an answer, or at the end of this turn of the event loop."""

    _pong = b""
    """The answer to a client's last ping, while more than the send budget waits for it to read."""

    _served = False
    """Whether the app is through with it."""

    @property
    def worker(self) -> Worker:
        """The worker this socket is of."""
        return cast("Worker", self.app_state["shards.worker"])

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self

    def board(self, offer: Offer, giver: str, answer: Callable[[str | None], None]) -> None:
        super().board(offer, giver, answer)
        cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = self

    def send_receive_event_to_app(self) -> None:
        if self.on_text is None or self.close_sent:
            super().send_receive_event_to_app()
        elif self.curr_msg_data_type == "bytes":
            self.close(1003, "text frames only")
        else:
            try:
                text = b"".join(self.frames).decode()
            except UnicodeDecodeError:
                super().send_receive_event_to_app()
            else:
                self.on_text(text)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.on_slow is not None:
            self.on_slow()

    def resume_writing(self) -> None:
        super().resume_writing()
        pong, self._pong = self._pong, b""
        if pong and not self.transport.is_closing():
            self.transport.write(pong)

    def handle_ping(self) -> None:
        """Answer a ping; of those of a client that does not read, only the last one (RFC 6455, section 5.5.3)."""
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pong)
        else:
            self._pong = pong

    def send_keepalive_ping(self) -> None:
        """Ping a client that has been silent; one that talks is alive, and with 10,000 of them pings are work."""
        silent_for = self.loop.time() - self.heard_at
        if self.ping_interval is not None and silent_for < self.ping_interval:
            self.ping_timer = self.loop.call_later(self.ping_interval - silent_for, self.send_keepalive_ping)
        else:
            super().send_keepalive_ping()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept" and not self.disconnected and self.arriving is None:
            self._forget_handshake()
            self.worker.opened(self)

    def _forget_handshake(self) -> None:
        """Give 5 KB back: the scope has what an app needs of the request."""
        del self.request, self.response
        if self.conn.state is State.OPEN:
            # The one that has read the request keeps it. Between two frames, where this is, any other is as good.
            self.conn.parser = self.conn.parse()
            next(self.conn.parser)

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        if self.arriving is not None:
            self.worker.took(self)

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._served = True
        self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.worker.closed(self)
        self._forget()

    def _forget(self) -> None:
        """Once both the connection and its app have ended, cut what goes round in circles.

        So what a socket took is given back at once. The garbage collector would find it, but comes by seldom, and stops
        the worker for as long as it takes to look at every other socket's objects.
        """
        if self._served and self.disconnected:
            self._served = False
            self.on_text = self.on_slow = self.on_drain = None
            self.rider, self.passenger.consumer = self.passenger, None
            self.scope["extensions"].pop(EXTENSION, None)
            del self.conn.parser

    def flushed(self) -> bool:
        return not self._held and super().flushed()

    # What consumers call, see shards.consumers.Socket

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""
        return len(self._held) + self.transport.get_write_buffer_size()

    def take_over(self, on_text: Callable[[str], None], on_slow: Callable[[], None], send_budget: int) -> None:
        """Give each text to `on_text` from now on, and call `on_slow` where over `send_budget` bytes wait."""
        self.on_text, self.on_slow = on_text, on_slow
        self.transport.set_write_buffer_limits(high=send_budget)

    def defer(self, event: dict[str, object]) -> None:
        """Have ASGI's `receive` give an event; nothing more is read from the client until it has."""
        self.queue.put_nowait(cast(ASGIReceiveEvent, event))
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def write(self, payload: bytes) -> None:
        """Send text; nothing happens once the socket is closed."""
        if not self.close_sent and not self.disconnected:
            held, self._held = self._held, b""
            self.transport.write(held + text_frame(payload))

    def write_message(self, message: Message) -> None:
        """Send a message, framed once for all of its receivers."""
        if self.close_sent or self.disconnected:
            return
        if self.answers_due:
            self._hold(message.frame)
        else:
            self.transport.write(message.frame)

    def _hold(self, frame: bytes) -> None:
        """Keep a message until this turn of the event loop ends: an ack comes right after what it acknowledges."""
        if not self._held:
            self.loop.call_soon(self._let_go)
        self._held += frame

    def _let_go(self) -> None:
        # Not to be found by what the write may lead to: a reader too slow for it is closed, which lets go of it, too.
        held, self._held = self._held, b""
        if held and not self.close_sent and not self.disconnected:
            self.transport.write(held)

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket; the consumer gets its `websocket.disconnect` at once."""
        self._let_go()  # which may be too much for a slow reader, who is closed for that
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self._give_up)

    def _give_up(self) -> None:
        """Drop a peer that does not answer the close; it may not be reading at all, so nothing is flushed."""
        self.transport.abort()

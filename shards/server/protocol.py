"""uvicorn's WebSocket protocol, with a way for consumers to write frames as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Opcode
from websockets.http11 import Request

from shards.hub import Message, text_frame
from shards.server.small import SmallEvent, SmallQueue

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel for this platform
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

    from shards.server.worker import Worker

EXTENSION = "shards.socket"


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket.

    A consumer finds it in ``scope["extensions"]["shards.socket"]`` and may take it over: then texts are given to it as
    they come, without queue, task and pause, and it writes whole frames past ASGI's `send`, the same bytes for every
    member of a group. See `shards.consumers.Socket`.
    """

    on_text: Callable[[str], None] | None = None
    """Takes each text, once a consumer has taken the socket over."""

    on_slow: Callable[[], None] | None = None
    """Called once more than the send budget waits for the client to read."""

    on_drain: Callable[[int], None] | None = None
    """Called where the socket should go elsewhere, with the milliseconds it may take; None: it is just closed."""

    answers_due = 0
    """Answers that will be written soon; a message may be held to go out with one, in one write."""

    _held = b""
    """Messages that go out with an answer, or at the end of this turn of the event loop."""

    _partial = b""
    """Of a frame that is not whole yet, what came."""

    _in_fragments = False
    """Whether a text or binary message has begun whose last fragment has not come."""

    heard_at = 0.0
    """When the client last sent anything, by the loop's clock."""

    @property
    def worker(self) -> Worker:
        """The worker this socket is of."""
        return cast("Worker", self.app_state["shards.worker"])

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.queue = cast(Any, SmallQueue[ASGIReceiveEvent]())
        self.writable = cast(Any, SmallEvent())

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        if self.on_text is None:
            super().data_received(data)
        else:
            self._take_frames(self._partial + data if self._partial else data)

    def _take_frames(self, data: bytes) -> None:
        """Take the whole frames in `data`, and keep what is left of it; one that is too long is refused at its head.

        So the parser is given whole frames only, and is not needed for the plain texts that nearly all of them are.
        """
        start = 0
        while (end := frame_end(data, start)) is not None and end <= len(data):
            if not self._take_frame(data, start, end):
                return
            start = end
        self._partial = data[start:]
        if end is not None and end - start > self.config.ws_max_size:
            super().data_received(self._partial)
            self._partial = b""

    def _take_frame(self, data: bytes, start: int, end: int) -> bool:
        """Take a frame; give whether there may be more: after a close nothing counts."""
        text = None if self._in_fragments or self.close_sent else text_at(data, start, end)
        if text is not None:
            cast(Callable[[str], None], self.on_text)(text)
            return True
        opcode, final = data[start] & 0x0F, data[start] & 0x80
        if opcode in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):
            self._in_fragments = not final
        super().data_received(data[start:end])
        return not self.transport.is_closing()

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

    def send_keepalive_ping(self) -> None:
        """Ping a client that has been silent; one that talks is alive, and with 10,000 of them pings are work."""
        silent_for = self.loop.time() - self.heard_at
        if self.ping_interval is not None and silent_for < self.ping_interval:
            self.ping_timer = self.loop.call_later(self.ping_interval - silent_for, self.send_keepalive_ping)
        else:
            super().send_keepalive_ping()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.accept" and not self.disconnected:
            # The scope has what an app needs of them.
            del self.request, self.response
            self.worker.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.worker.closed(self)

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
        if self._held and not self.close_sent and not self.disconnected:
            self.transport.write(self._held)
        self._held = b""

    def close(self, code: int, reason: str = "") -> None:
        """Close the socket; the consumer gets its `websocket.disconnect` at once."""
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        self._let_go()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self._give_up)

    def _give_up(self) -> None:
        """Drop a peer that does not answer the close; it may not be reading at all, so nothing is flushed."""
        self.transport.abort()


_TEXT, _MASKED = 0x81, 0x80
_LENGTH_IN_2, _LENGTH_IN_8 = 126, 127


def frame_end(data: bytes, start: int) -> int | None:
    """Tell where a client's frame ends, which may be after `data`; None where its head is not whole.

    Args:
        data: what was received.
        start: where the frame begins in it.
    """
    if len(data) < start + 2:
        return None
    length, head = data[start + 1] & 0x7F, 6 if data[start + 1] & _MASKED else 2
    if length < _LENGTH_IN_2:
        return start + head + length
    size = 2 if length == _LENGTH_IN_2 else 8
    if len(data) < start + 2 + size:
        return None
    return start + head + size + int.from_bytes(data[start + 2 : start + 2 + size], "big")


def text_at(data: bytes, start: int, end: int) -> str | None:
    """Read a client's frame; None where it is not one plain text of less than 64 KiB (RFC 6455, section 5.2)."""
    length = data[start + 1]
    if data[start] != _TEXT or length < _MASKED or length & 0x7F == _LENGTH_IN_8:
        return None
    mask = start + (2 if length & 0x7F < _LENGTH_IN_2 else 4)
    try:
        return apply_mask(data[mask + 4 : end], data[mask : mask + 4]).decode()
    except UnicodeDecodeError:
        return None

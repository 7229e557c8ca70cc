"""A WebSocket whose TCP connection can be taken out of this process, and put into another one, between two frames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Literal, cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from shards.carried import EXTENSION, Carried, Passenger, Rider, serve_as
from shards.rate import TokenBucket
from shards.server.frames import frame_end, payload_start, text_at
from shards.server.handoff.message import Offer
from shards.server.handoff.stand_in import StandIn
from shards.server.small import SmallEvent, SmallQueue

_ODD_A_SECOND, _ODD_AT_ONCE = 100.0, 200.0
_FRAGMENT = 1024
"""Control frames, and fragments shorter than that, of one client. Each is work, and 40,000 fit into one read."""

_MOST_AFTER_CLOSE = 1 << 20
"""Bytes that are read of a client once it was told to close."""

_GONE = 1012
"""What an app is told whose socket has moved: the service restarts, and the client is elsewhere now."""


Unheard = tuple[Literal["text", "bytes"], bytes]


class MovableSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, given whole frames only, so that between two of them nothing of it is in the parser.

    Leaving: `freeze`; wait until it is `settled`; `seal`; then either `release` or `thaw`.
    Arriving: `board`; once it has answered, either `connection_made`, by way of a transport, or `turn_back`.
    """

    # What uvicorn keeps of a socket. As attributes of any object they take a dictionary of their own each, 1.6 KB: they
    # are more than the 30 names up to which Python lets instances share their keys.
    __slots__ = (
        *("app", "app_state", "asgi_version", "client", "close_sent", "close_timeout", "close_timer", "config", "conn"),
        *("connections", "curr_msg_data_type", "default_headers", "disconnected", "frames", "handshake_complete"),
        *("handshake_initiated", "initial_response", "last_ping_rtt", "logger", "loop", "pending_ping_payload"),
        *("ping_interval", "ping_sent_at", "ping_timeout", "ping_timer", "pong_timer", "queue", "read_paused"),
        *("request", "response", "root_path", "scheme", "scope", "server", "tasks", "transport", "writable"),
    )

    queue: SmallQueue[ASGIReceiveEvent]  # type: ignore[assignment]

    on_text: Callable[[str], None] | None = None
    """Takes each plain text at once; None: it goes the way of all other frames."""

    rider: Rider
    """The app's end."""

    moving = False
    """Whether it is about to leave: nothing is read from the client."""

    arriving: Callable[[str | None], None] | None = None
    """Of a socket that arrives: called with None once the app has connected, or with the reason why it has not."""

    sealed = False
    """Whether the app is kept from writing, since all has been said of a socket that moves."""

    boarded = False
    """Whether `arriving` was called."""

    subprotocol: str | None = None

    heard_at = 0.0
    """When the client last sent anything, by the loop's clock."""

    _partial = b""
    """Of a frame that is not whole yet, what came."""

    _after_close = 0
    """Bytes that came once a close was sent."""

    _in_fragments = False
    """Whether a text or binary message has begun whose last fragment has not come."""

    _ping: tuple[bytes, float] | None = None
    """While it moves: the payload of a ping without an answer, and when there must be one, by the loop's clock."""

    _silent_since = 0.0
    """Of one that moves: when its last worker stopped reading, by the host's monotonic clock."""

    _silent_before = 0.0
    """For how many seconds it was not read from in moves that came to nothing."""

    _unheard: list[Unheard] = []  # noqa: RUF012 (replaced, never changed)
    """While it moves: messages that the app has not received."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.queue = SmallQueue[ASGIReceiveEvent]()
        self._odd = TokenBucket(_ODD_A_SECOND, _ODD_AT_ONCE)
        self.writable = cast(Any, SmallEvent())
        self.passenger = Passenger()
        self.rider = self.passenger

    async def run_asgi(self) -> None:
        serve_as(self.passenger)
        await super().run_asgi()
        self._board("it has ended")

    # Whole frames

    def data_received(self, data: bytes) -> None:
        self.heard_at = self.loop.time()
        if self.close_sent and self._deaf_to(data):
            return
        if self.handshake_initiated:
            self._take_frames(self._partial + data if self._partial else data)
        else:
            super().data_received(data)
            if not self.handshake_initiated and self.conn.handshake_exc is not None:
                self._refuse_handshake()

    def _deaf_to(self, data: bytes) -> bool:
        """Drop who goes on and on after its close, instead of an answer to that."""
        self._after_close += len(data)
        if self._after_close > _MOST_AFTER_CLOSE:
            self.transport.abort()
        return self.transport.is_closing()

    def _refuse_handshake(self) -> None:
        """Answer a request that the parser can't take, and which uvicorn hears nothing of: it would wait for ever."""
        said = b"".join(self.conn.data_to_send())
        self.transport.write(said or b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.transport.close()

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
        if end is not None and end - payload_start(data, start) > self.config.ws_max_size:
            super().data_received(self._partial)
            self._partial = b""

    def _take_frame(self, data: bytes, start: int, end: int) -> bool:
        """Take a frame; give whether there may be more: after a close nothing counts."""
        plain = not self._in_fragments and not self.close_sent and end - start <= self.config.ws_max_size
        if self.on_text is not None and plain:
            text = text_at(data, start, end)
            if text is not None:
                self.on_text(text)
                return True
        opcode, final = data[start] & 0x0F, data[start] & 0x80
        if self.close_sent and opcode != Opcode.CLOSE:
            return True
        is_odd = opcode >= Opcode.CLOSE or (not final and end - start < _FRAGMENT)
        if is_odd and not self._odd.take(self.heard_at):
            self.conn.fail(CloseCode.POLICY_VIOLATION, "too many control frames or small fragments")
            self.handle_parser_exception()
            return False
        if opcode in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):
            self._in_fragments = not final
        super().data_received(data[start:end])
        return not self.transport.is_closing()

    def handle_cont(self, event: Frame) -> None:
        """Add a fragment to its message, in one piece: a list of single bytes takes fifty times as much, or no end."""
        whole: Any = self.frames[0]
        if not isinstance(whole, bytearray):
            whole = bytearray(whole)
        whole += event.data
        self.frames = [bytes(whole) if event.fin else whole]
        if event.fin:
            self.send_receive_event_to_app()

    # The end

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._end_in_time()

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._end_in_time()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._end_in_time()

    def _end_in_time(self) -> None:
        """Drop what a client that is closed does not read; else it would be kept for as long as that client likes."""
        if self.transport.is_closing() and self.close_timer is None and self.transport.get_write_buffer_size():
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    # Leaving

    @property
    def movable(self) -> bool:
        """Whether it can be handed over at all."""
        return self.open_here and self.scheme == "ws" and self.rider.handoff

    @property
    def open_here(self) -> bool:
        """Whether it is an open WebSocket of this process: accepted, and not about to close."""
        return (
            self.handshake_complete
            and not self.close_sent
            and not self.disconnected
            and not isinstance(self.transport, StandIn)
            and not self.transport.is_closing()
        )

    def freeze(self) -> None:
        """Read nothing more, and take back what the app has not received."""
        self.moving = True
        self._silent_since = time.monotonic()
        self.transport.pause_reading()
        payload, timer = self.pending_ping_payload, self.pong_timer
        self._ping = (payload, timer.when()) if payload is not None and timer is not None else None
        self.stop_keepalive()
        self._unheard = self._take_unheard()

    def _take_unheard(self) -> list[Unheard]:
        """Take messages out of the queue, where it is the app's own."""
        events = self.queue.take_all(lambda event: event["type"] == "websocket.receive" and "command" not in event)
        received = cast(list[dict[str, Any]], events)
        return [("text", e["text"].encode()) if "text" in e else ("bytes", e["bytes"]) for e in received]

    def settled(self) -> bool:
        """Tell whether the app waits for the client, and has nothing else to do."""
        return self.queue.waited_for and self.rider.settled()

    def flushed(self) -> bool:
        """Tell whether all that was written has left."""
        return self.transport.get_write_buffer_size() == 0

    def descriptor(self) -> int:
        """Give the number of the connection's file in this process."""
        return int(self.transport.get_extra_info("socket").fileno())

    def seal(self, id: int, carried: Carried) -> Offer:
        """Have the app write nothing more, and give all there is to say of the socket."""
        self.sealed = True
        self.writable.clear()
        now = self.loop.time()
        return Offer(
            id=id,
            client=self.client,
            server=self.server,
            root_path=self.scope["root_path"],
            path=self.scope["path"],
            raw_path=self.scope["raw_path"],
            query_string=self.scope["query_string"],
            headers=list(self.scope["headers"]),
            subprotocols=list(self.scope["subprotocols"]),
            subprotocol=self.subprotocol,
            unread=self._partial,
            fragments=[bytes(frame) for frame in self.frames] if self._in_fragments else None,
            binary=self.curr_msg_data_type == "bytes",
            unheard=self._unheard,
            silent_s=now - self.heard_at,
            ping=self._ping[0] if self._ping else None,
            pong_s=self._ping[1] - now if self._ping else 0.0,
            carried=carried,
            silent_since=self._silent_since - self._silent_before,
        )

    def thaw(self) -> None:
        """Go on here after all."""
        self.moving = False
        self._silent_before += time.monotonic() - self._silent_since
        if self.sealed:
            # All was written by then. One that was not sealed may be waiting for its client to read.
            self.sealed = False
            self.writable.set()
        if self.disconnected or self.transport.is_closing():
            return
        self._resume_pings(self.heard_at)
        self._hear_unheard()
        if not self.queue.empty():
            self.read_paused = True
        else:
            self.read_paused = False
            self.transport.resume_reading()

    def release(self) -> None:
        """Let go of a connection that another process has: the app hears that it is gone, the client nothing."""
        self.disconnected = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": _GONE, "reason": "handed over"})
        self.writable.set()
        # Its descriptor is closed, and not shut down, so the copy elsewhere lives.
        self.transport.abort()

    def _resume_pings(self, heard_at: float) -> None:
        self.heard_at = heard_at
        if self.ping_interval is None:
            return
        if self._ping is not None and self.ping_timeout is not None:
            self.pending_ping_payload, due = self._ping
            self.pong_timer = self.loop.call_at(due, self.keepalive_timeout)
        else:
            self.ping_timer = self.loop.call_at(heard_at + self.ping_interval, self.send_keepalive_ping)

    def _hear_unheard(self) -> None:
        for kind, data in self._unheard:
            message = data.decode() if kind == "text" else data
            self.queue.put_nowait(cast(ASGIReceiveEvent, {"type": "websocket.receive", kind: message}))
        self._unheard = []

    # Arriving

    def board(self, offer: Offer, giver: str, answer: Callable[[str | None], None]) -> None:
        """Begin to serve a connection that may come: the app connects, and writes to a `StandIn`.

        Args:
            offer: the socket.
            giver: the worker that it comes from.
            answer: called once, in the turn of the event loop in which it is known: with None, since the app has
                connected, or with the reason why it has not.
        """
        self.arriving = answer
        self.transport = StandIn()
        self.client, self.server, self.scheme = offer.client, offer.server, "ws"
        self.conn = ServerProtocol(state=State.OPEN, max_size=self.config.ws_max_size, logger=self.logger)
        self.passenger.arrived = offer.carried
        self.subprotocol = offer.subprotocol
        self.handshake_initiated = True
        self.scope = {
            "type": "websocket",
            "asgi": {"version": self.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": offer.server,
            "client": offer.client,
            "root_path": offer.root_path,
            "path": offer.path,
            "raw_path": offer.raw_path,
            "query_string": offer.query_string,
            "headers": offer.headers,
            "subprotocols": offer.subprotocols,
            "state": self.app_state.copy(),
            "extensions": cast(Any, {"websocket.http.response": {}, EXTENSION: {"worker": giver}}),
        }
        self._partial = offer.unread
        self._unheard = offer.unheard
        self.curr_msg_data_type = "bytes" if offer.binary else "text"
        if offer.fragments is not None:
            self._in_fragments = True
            self.frames = [b"".join(offer.fragments)]
            self.conn.current_size = len(self.frames[0])
        self._silent_since = offer.silent_since
        now = self.loop.time()
        self._ping = None if offer.ping is None else (offer.ping, now + offer.pong_s)
        self.heard_at = now - offer.silent_s
        self.queue.put_nowait({"type": "websocket.connect"})
        task = self.loop.create_task(self.run_asgi())
        task.add_done_callback(self.on_task_complete)
        self.tasks.add(task)

    def _board(self, reason: str | None) -> None:
        if self.arriving is not None and not self.boarded:
            self.boarded = True
            self.arriving(reason)

    async def send(self, message: ASGISendEvent) -> None:
        if self.arriving is not None and not self.handshake_complete:
            self._answer_offer(message)
            return
        if message["type"] == "websocket.accept":
            self.subprotocol = message.get("subprotocol")
        await super().send(message)

    def _answer_offer(self, message: ASGISendEvent) -> None:
        """Take what the app says to its `websocket.connect`; the client was told long ago."""
        if message["type"] != "websocket.accept":
            self._board("the app rejects it")
            self.turn_back()
        elif message.get("subprotocol") != self.subprotocol:
            self._board("the app wants another subprotocol")
            self.turn_back()
        else:
            self.handshake_complete = True

    async def receive(self) -> ASGIReceiveEvent:
        if self.arriving is not None and not self.boarded and self.handshake_complete and self.queue.empty():
            self._board(self._misfit())
        message = await self.queue.get()
        if self.read_paused and not self.moving and self.queue.empty():
            self.read_paused = False
            self.transport.resume_reading()
        return message

    def _misfit(self) -> str | None:
        """The app waits for what comes, so it has connected; give why it is none for what the last one carried."""
        arrived = self.passenger.arrived
        if arrived is not None and arrived.session and self.rider is self.passenger:
            return "the app has no group consumer here any more"
        return None

    @property
    def paused_s(self) -> float:
        """For how long nobody read from it, in seconds, also where it was tried in vain before it moved."""
        return time.monotonic() - self._silent_since

    def turn_back(self) -> None:
        """End the app's part of a connection that does not come."""
        self._board("it does not come")
        self.handshake_complete = self.disconnected = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self.transport.close()

    def send_500_response(self) -> None:
        if self.arriving is None:
            super().send_500_response()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stand_in, client = self.transport, self.client
        super().connection_made(transport)
        if isinstance(stand_in, StandIn):
            self.client = client
            self._resume_pings(self.heard_at)
            stand_in.hand_on(self.transport)
            self._hear_unheard()
            self.read_paused = not self.queue.empty()

"""Whatever a client has sent of which frame when its socket moves: app and client see what they see without it."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from shards.server.handoff.message import Frames, Offer, pack, read_message
from shards.server.protocol import EXTENSION, SocketProtocol

REQUEST = (
    b"GET /ws/room/?token=T HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"
)


class Wire(asyncio.Transport):
    """A connection in memory: what the server writes is what the client has got."""

    def __init__(self, written: bytearray) -> None:
        super().__init__()
        self.written = written
        self.paused = self.closing = False
        self.unread = 0
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        assert not self.closing, "written after the end"
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return self.unread

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("10.0.0.1", 1), "sockname": ("10.0.0.2", 2)}.get(name, default)

    def close(self) -> None:
        if not self.closing and not self.unread:
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)
        self.closing = True

    def abort(self) -> None:
        self.closing = self.closing and not self.unread
        self.unread = 0
        self.close()


class Worker:
    """What a socket asks of its worker."""

    def opened(self, socket: SocketProtocol) -> None:
        pass

    closed = took = opened


async def echo(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """An app that knows ASGI only; it answers each message with itself."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "b"})
    while (event := await receive())["type"] == "websocket.receive":
        heard.append(event.get("text", event.get("bytes")))
        await send({**event, "type": "websocket.send"})
    if event["code"] != 1012:
        heard.append(event["code"])


async def echo_past_asgi(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """An app that takes its socket over, as group consumers do."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "b"})
    socket: SocketProtocol = scope["extensions"][EXTENSION]

    def answer(text: str) -> None:
        heard.append(text)
        socket.write(text.encode())

    socket.take_over(answer, lambda: None, 1 << 20)
    event = await receive()
    if event["code"] != 1012:
        heard.append(event["code"])


class Host:
    """A worker in memory, and a client's connection to it; it pings where it is told how often."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        ping_s: float | None = None,
        pong_s: float = 20,
        most: int = 70_000,
    ) -> None:
        self.heard: list[Any] = []
        self.written = bytearray()
        self.paths: set[str] = set()
        self.moves = 0

        async def application(scope: Any, receive: Any, send: Any) -> None:
            self.paths.add(scope["path"] + "?" + scope["query_string"].decode() + repr(scope["client"]))
            await app(scope, receive, send, self.heard)

        self.config = uvicorn.Config(
            application, ws_max_size=most, log_config=None, ws_ping_interval=ping_s, ws_ping_timeout=pong_s
        )
        self.config.load()
        self.state = ServerState()
        self.socket, self.wire = self.protocol(), Wire(self.written)
        self.wire.protocol = self.socket
        self.socket.connection_made(self.wire)

    def protocol(self) -> SocketProtocol:
        return SocketProtocol(self.config, self.state, {"shards.worker": Worker()})

    async def feed(self, data: bytes) -> None:
        """Have the client's bytes arrive, once they are read."""
        await turn()
        async with asyncio.timeout(5):
            while self.wire.paused:
                await asyncio.sleep(0)
        if not self.wire.closing:
            self.socket.data_received(data)

    async def try_in_vain(self, seconds: float) -> None:
        """Hold the socket for so long, as one that shall move, and let it go on."""
        self.socket.freeze()
        await asyncio.sleep(seconds)
        self.socket.rider.stay()
        self.socket.thaw()

    async def hand_over(self) -> None:
        """Move the socket to another protocol, by way of the message that goes between workers; not one that ends."""
        old = self.socket
        if not old.movable:
            assert CLOSE in [head for head, _ in frames(self.written)], "only one that is being closed may stay"
            return
        old.freeze()
        async with asyncio.timeout(5):
            while not old.settled():
                await asyncio.sleep(0)
        framed = pack(old.seal(1, await old.rider.carry()))
        offer = read_message(next(iter(Frames().feed(framed))))
        assert isinstance(offer, Offer)
        new = self.protocol()
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        new.board(offer, "old", answer.set_result)
        async with asyncio.timeout(5):
            assert await answer is None
        old.release()
        self.socket, self.wire = new, Wire(self.written)
        self.wire.protocol = new
        new.connection_made(self.wire)
        self.wire.paused = new.read_paused
        self.moves += 1
        await turn()

    async def end(self) -> tuple[list[Any], bytes, set[str]]:
        """Give what the app heard, and what the client got after the handshake."""
        await turn()
        self.wire.close()
        await turn()
        return self.heard, bytes(self.written).partition(b"\r\n\r\n")[2], self.paths


async def turn() -> None:
    """Let everybody do what they have to."""
    for _ in range(20):
        await asyncio.sleep(0)


def frame(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True, extensions=[])


@st.composite
def fragmented(draw: st.DrawFn, opcode: Opcode, payload: bytes) -> list[bytes]:
    """A message in fragments, with control frames between them."""
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    frames = []
    for number, piece in enumerate(pieces):
        frames.append(frame(opcode if number == 0 else Opcode.CONT, piece, fin=number == len(pieces) - 1))
        if draw(st.booleans()):
            frames.append(frame(draw(st.sampled_from([Opcode.PING, Opcode.PONG])), draw(st.binary(max_size=10))))
    return frames


PAYLOADS = st.one_of(st.text(max_size=20), st.sampled_from(["", "x" * 125, "x" * 126, "ä" * 200, "x" * 66_000]))


@st.composite
def conversations(draw: st.DrawFn, binary: bool) -> bytes:
    """What a client says, up to its close, or without one."""
    said = b""
    for text in draw(st.lists(PAYLOADS, max_size=5)):
        opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY])) if binary else Opcode.TEXT
        said += b"".join(draw(fragmented(opcode, text.encode())))
    ends = [b"", frame(Opcode.CLOSE, b"\x03\xe8bye"), frame(Opcode.CLOSE, b""), frame(Opcode.TEXT, b"\xff")]
    return said + draw(st.sampled_from([*ends, b"\x83\x80\x00\x00\x00\x00", frame(Opcode.CONT, b"alone")]))


async def talk(app: Callable[..., Awaitable[None]], said: bytes, cuts: list[int], moves: set[int]) -> tuple[Any, int]:
    """Have a client say `said` in pieces, with the socket moved before each piece of a number in `moves`.

    Returns:
        What came of it, and how often the socket moved.
    """
    host = Host(app)
    await host.feed(REQUEST)
    await turn()
    edges = [0, *sorted(cut for cut in cuts if cut < len(said)), len(said)]
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        if number in moves:
            await host.hand_over()
        await host.feed(said[start:end])
    if len(edges) - 1 in moves:
        await host.hand_over()
    return await host.end(), host.moves


@pytest.mark.parametrize("app", [echo, echo_past_asgi])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_handoff_between_any_two_bytes_changes_nothing(
    app: Callable[..., Awaitable[None]], data: st.DataObject
) -> None:
    said = data.draw(conversations(binary=app is echo))
    cuts = data.draw(st.lists(st.integers(0, max(1, len(said))), max_size=8))
    moves = data.draw(st.sets(st.integers(0, 9), min_size=1))
    stayed, none = asyncio.run(talk(app, said, cuts, set()))
    moved, times = asyncio.run(talk(app, said, cuts, moves))
    assert moved == stayed
    # It is open before its first piece.
    assert none == 0
    assert times >= (0 in moves)


def test_one_byte_at_a_time_and_a_handoff_at_each() -> None:
    said = frame(Opcode.TEXT, b"he", fin=False) + frame(Opcode.PING, b"p") + frame(Opcode.CONT, b"llo") + frame(
        Opcode.BINARY, b"\x00" * 130
    )  # fmt: skip
    cuts = list(range(len(said)))
    (heard, written, paths), times = asyncio.run(talk(echo, said, cuts, set(range(len(said) + 1))))
    assert times == len(said) + 1
    assert heard == ["hello", b"\x00" * 130, 1005]
    assert written == asyncio.run(talk(echo, said, [], set()))[0][1]
    assert len(paths) == 1


PING, CLOSE = 0x89, 0x88


def frames(written: bytearray) -> list[tuple[int, bytes]]:
    """Give what the client got after the handshake: first byte and payload of each frame."""
    data, found = bytes(written).partition(b"\r\n\r\n")[2], []
    while data:
        begin = {126: 4, 127: 10}.get(data[1], 2)
        end = begin + (int.from_bytes(data[2:begin]) if begin > 2 else data[1])
        found.append((data[0], data[begin:end]))
        data = data[end:]
    return found


def pings(host: Host) -> list[bytes]:
    return [payload for head, payload in frames(host.written) if head == PING]


async def connected(app: Callable[..., Awaitable[None]], **pinged: Any) -> Host:
    host = Host(app, **pinged)
    await host.feed(REQUEST)
    await turn()
    return host


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def requests() -> int:
    """Count the requests that are in memory."""
    gc.collect()
    # Not isinstance: lazy objects of Django would be asked for their class.
    return sum(type(one) is Request for one in gc.get_objects())


@pytest.mark.parametrize("app", [echo, echo_past_asgi])
async def test_an_open_socket_is_small(app: Callable[..., Awaitable[None]]) -> None:
    """It keeps nothing of its request but the scope, and no more attributes than Python lets sockets share keys for."""
    before = requests()
    host = await connected(app)
    assert requests() == before
    assert len(vars(host.socket)) <= 30
    await host.end()


@pytest.mark.parametrize("app", [echo, echo_past_asgi])
async def test_who_is_silent_is_pinged_on_the_other_side_too(app: Callable[..., Awaitable[None]]) -> None:
    host = await connected(app, ping_s=0.1)
    await host.hand_over()
    for count in (1, 2):
        await until(lambda count=count: len(pings(host)) == count)  # type: ignore[misc]
        await host.feed(frame(Opcode.PONG, pings(host)[-1]))
    await host.end()


async def test_a_ping_that_was_asked_before_the_move_may_be_answered_after_it() -> None:
    host = await connected(echo, ping_s=0.1, pong_s=1.0)
    await until(lambda: len(pings(host)) == 1)
    await host.hand_over()
    await host.feed(frame(Opcode.PONG, pings(host)[0]))
    await until(lambda: len(pings(host)) == 2)
    assert not host.wire.closing
    await host.end()


async def test_who_has_not_answered_a_ping_gets_no_other_one_for_moving() -> None:
    host = await connected(echo, ping_s=0.1, pong_s=0.5)
    await until(lambda: len(pings(host)) == 1)
    await host.hand_over()
    await until(lambda: host.wire.closing)
    assert [head for head, _ in frames(host.written)] == [PING, CLOSE]


async def test_how_long_a_socket_was_silent_is_told_with_the_tries_that_came_to_nothing() -> None:
    host = await connected(echo)
    for _ in range(2):
        await host.try_in_vain(0.1)
    await host.hand_over()
    assert host.socket.paused_s >= 0.2
    await host.end()


async def test_an_app_whose_client_does_not_read_waits_for_that_after_a_try_in_vain_too() -> None:
    host = await connected(echo)
    host.socket.pause_writing()
    await host.try_in_vain(0)
    assert not host.socket.writable.is_set()
    host.socket.resume_writing()
    assert host.socket.writable.is_set()
    await host.end()


async def test_what_the_app_says_on_the_other_side_before_it_has_the_socket_is_said() -> None:
    async def greets(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "b"})
        await send({"type": "websocket.send", "text": "hi"})
        await receive()

    host = await connected(greets)
    await host.hand_over()
    assert frames(host.written) == [(0x81, b"hi")] * 2
    await host.end()

"""Any bytes in any pieces: a socket reads what the websockets library reads of them, or closes as it does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from shards.server.protocol import EXTENSION
from tests.server.test_handoff_frames import REQUEST, Host, frame, turn

MOST = 300
"""Bytes of a message here; frames of every kind of length are far shorter and just longer."""


async def listener(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """An app of Channels' kind that says nothing, so that all that is written is the protocol's."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "b"})
    while (event := await receive())["type"] == "websocket.receive":
        heard.append(event.get("text", event.get("bytes")))


async def listener_past_asgi(scope: Any, receive: Any, send: Any, heard: list[Any]) -> None:
    """The same, as group consumers listen."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "b"})
    scope["extensions"][EXTENSION].take_over(heard.append, lambda: None, 1 << 20)
    while (await receive())["type"] != "websocket.disconnect":
        pass


class Reference:
    """What the library makes of a stream, and what RFC 6455 adds to it: text is UTF-8, or the end."""

    def __init__(self, texts_only: bool) -> None:
        self.texts_only = texts_only
        self.heard: list[Any] = []
        self.over = self.closing = False
        self._protocol = ServerProtocol(state=State.OPEN, max_size=MOST)
        self._message: list[Frame] = []
        self.written = b""

    def read(self, data: bytes) -> None:
        # A byte at a time: what follows a message is read after what comes of it.
        for byte in data:
            if self.over or self.closing:
                return
            self._protocol.receive_data(bytes([byte]))
            for event in self._protocol.events_received():
                assert isinstance(event, Frame)
                self._take(event)
            self._write()
            self.over = self.over or self._protocol.parser_exc is not None

    def _take(self, event: Frame) -> None:
        if event.opcode is Opcode.CLOSE:
            self.over = True
        elif event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._message.append(event)
            if event.fin:
                message, self._message = self._message, []
                self._hear(message[0].opcode is Opcode.TEXT, b"".join(bytes(part.data) for part in message))

    def _hear(self, is_text: bool, data: bytes) -> None:
        if not is_text and self.texts_only:
            self.closing = True
            self._protocol.send_close(CloseCode.UNSUPPORTED_DATA, "text frames only")
            return
        try:
            self.heard.append(data.decode() if is_text else data)
        except UnicodeDecodeError:
            self._protocol.send_close(CloseCode.INVALID_DATA)
            self.over = True

    def _write(self) -> None:
        self.written += b"".join(self._protocol.data_to_send())


@st.composite
def frames_of_any_kind(draw: st.DrawFn) -> bytes:
    """A frame whose head says anything, and is now and then true."""
    size = draw(st.sampled_from([0, 1, 2, 20, 125, 126, 127, 285, 290, MOST - 1, MOST, MOST + 1, MOST + 20]))
    opcode = draw(st.sampled_from([1, 1, 1, 0, 0, 2, 8, 9, 10, 3, 11, 15]))
    first = opcode | draw(st.sampled_from([0x80, 0x80, 0x80, 0, 0xC0, 0xF0]))
    masked = draw(st.sampled_from([0x80, 0x80, 0x80, 0x80, 0]))
    kind = draw(st.sampled_from([7, 7, 16, 64])) if size < 126 else draw(st.sampled_from([16, 64]))
    said = draw(st.sampled_from([size, size, size, size, size, size + 1, 1 << 15, (1 << 63) - 1, (1 << 64) - 1]))
    if kind == 7:
        head = bytes([first, masked | size])
    elif kind == 16:
        head = bytes([first, masked | 126]) + min(said, 65535).to_bytes(2, "big")
    else:
        head = bytes([first, masked | 127]) + said.to_bytes(8, "big")
    payload = draw(st.sampled_from([b"x", "ä".encode(), b"\xff", b"\x03\xe8", b"\0"])) * size
    return head + (b"\0\0\0\0" if masked else b"") + payload[:size]


texts = st.builds(lambda text: frame(Opcode.TEXT, text.encode()), st.text(max_size=40))
streams = st.lists(texts | frames_of_any_kind() | st.binary(max_size=20), max_size=8).map(b"".join)


async def talk(app: Callable[..., Any], said: bytes, cuts: list[int], rest: bytes) -> tuple[list[Any], bytes, bool]:
    """Say `said` in pieces; give what the app heard, what was written, and whether the connection is over."""
    host = Host(app, most=MOST)
    await host.feed(REQUEST)
    await turn()
    edges = [0, *sorted(cut for cut in cuts if cut < len(said)), len(said)]
    for start, end in itertools.pairwise(edges):
        await host.feed(said[start:end])
        kept = len(host.socket._partial) + sum(len(part) + 64 for part in host.socket.frames)
        assert host.wire.closing or kept < 3 * MOST, "whatever comes, little is kept of it"
    await turn()
    # Where its head says that a frame is none, that is told once it is whole.
    await host.feed(rest)
    await turn()
    closing = host.wire.closing
    heard, written, _ = await host.end()
    return heard, written, closing


@pytest.mark.parametrize("app", [listener, listener_past_asgi])
@settings(max_examples=250)
@example(said=frame(Opcode.TEXT, b"x" * (MOST - 3)) + frame(Opcode.TEXT, b"next"), cuts=[50])
@example(said=frame(Opcode.TEXT, b"", False) + frame(Opcode.CONT, b"", False) * 100, cuts=[])
@given(said=streams, cuts=st.lists(st.integers(0, 1500), max_size=8))
def test_any_bytes_are_read_as_the_library_reads_them(app: Callable[..., Any], said: bytes, cuts: list[int]) -> None:
    reference = Reference(texts_only=app is listener_past_asgi)
    reference.read(said)
    heard, written, over = asyncio.run(talk(app, said, cuts, bytes(2 * MOST) if reference.over else b""))
    assert heard == reference.heard
    assert written == reference.written
    # Of who is to close, nothing but that counts.
    assert over == reference.over or reference.closing

"""Whatever comes as a request is answered, or waited for; nothing is raised, and no connection left without a word."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from shards.server.http import HttpProtocol
from shards.server.protocol import SocketProtocol
from tests.server.test_handoff_frames import Wire, Worker, turn


class Connection(Wire):
    """One whose protocol may be replaced, as it is when an HTTP connection becomes a WebSocket."""

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Accept every socket, answer every request."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
    else:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


async def say(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Say something on a new connection; give what was answered, and whether it is closed."""
    config = uvicorn.Config(app, ws=SocketProtocol, http=HttpProtocol, log_config=None, ws_per_message_deflate=False)
    config.load()
    wire = Connection(bytearray())
    wire.protocol = HttpProtocol(config, ServerState(), {"shards.worker": Worker()})
    wire.protocol.connection_made(wire)
    for piece in pieces:
        if not wire.closing:
            wire.protocol.data_received(piece)
        await turn()
    answered, closed = bytes(wire.written), wire.closing
    if not closed:
        wire.close()
        await turn()
    return answered, closed


def request(target: bytes = b"/ws/", *headers: bytes, key: bytes = b"dGhlIHNhbXBsZSBub25jZQ==") -> bytes:
    usual = (b"Host: test", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13")
    lines = (b"GET " + target + b" HTTP/1.1", *usual, b"Sec-WebSocket-Key: " + key, *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n"


tokens = st.binary(max_size=12) | st.sampled_from([b"", b"%ff", b"%00", b"\xc3\xa4", b"\xff", b"?epoch=\xe4&offset=1"])
names = st.sampled_from([b"Cookie", b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Extensions", b"Origin", b"X"])
headers = st.builds(lambda name, value: name + b": " + value, names, tokens)
requests = st.builds(
    lambda target, lines, key: request(b"/ws/" + target, *lines, key=key),
    tokens,
    st.lists(headers, max_size=3),
    st.just(b"dGhlIHNhbXBsZSBub25jZQ==") | tokens,
)


@settings(max_examples=200)
@example(said=request(b"/ws/?epoch=\xe4&offset=1"), cut=9)
@example(said=request(b"/ws/?token=" + b"x" * 9000), cut=9)
@example(said=request(b"/ws/", b"Cookie: " + b"x" * 9000), cut=9)
@example(said=request(b"/ws/", *[b"X: y"] * 150), cut=9)
@given(said=requests, cut=st.integers(0, 200))
def test_a_whole_request_is_answered_whatever_is_in_it(said: bytes, cut: int) -> None:
    answered, _ = asyncio.run(say([said[:cut], said[cut:]]))
    assert re.match(rb"HTTP/1.1 (101|200|4\d\d) ", answered), answered


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60) | requests, max_size=4))
def test_nothing_that_is_said_raises(pieces: list[bytes]) -> None:
    answered, closed = asyncio.run(say(pieces))
    assert b"HTTP/1.1 5" not in answered
    assert closed or not pieces or answered.startswith(b"HTTP/1.1 ") or not answered


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (request(b"/ws/?token=" + b"x" * 9000), b"414"),
        (request(b"/ws/", b"Cookie: " + b"x" * 9000), b"431"),
        (request(b"/ws/", *[b"X: y"] * 150), b"431"),
        (request(b"/ws/?epoch=\xe4&offset=1"), b"400"),
    ],
    ids=["a long token", "a long cookie", "many headers", "a query that is not ASCII"],
)
def test_a_handshake_that_is_too_much_is_refused_and_not_left_hanging(said: bytes, status: bytes) -> None:
    answered, closed = asyncio.run(say([said]))
    assert answered.split(b" ")[1:2] == [status]
    assert closed

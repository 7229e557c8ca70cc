"""Frames as clients may send them: in pieces, many at once, among control frames, and broken."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import CloseCode, Frame, Opcode

from shards.hub import Message
from shards.log.log import Entry, body_of
from shards.server.frames import frame_end, text_at
from tests.replica import Replica
from tests.server.raw import RawSocket
from tests.server.test_handoff_frames import Wire, connected, echo, echo_past_asgi, frames, until


def masked(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=True)


@given(st.text(), st.binary(max_size=20))
def test_reads_a_text_as_the_library_writes_it(text: str, after: bytes) -> None:
    frame = masked(Opcode.TEXT, text.encode())
    assert frame_end(frame + after, 0) == len(frame)
    assert text_at(frame + after, 0, len(frame)) == text


@given(st.sampled_from([10, 125, 126, 65535, 65536, 70000]), st.integers(0, 13))
def test_knows_where_a_frame_ends_once_its_head_is_there(size: int, known: int) -> None:
    frame = masked(Opcode.BINARY, bytes(size))
    head = 2 if size < 126 else 4 if size < 65536 else 10
    assert frame_end(frame[:known], 0) == (len(frame) if known >= head else None)


@given(st.sampled_from([Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.CLOSE]), st.binary(max_size=100))
def test_anything_else_is_no_text(opcode: Opcode, data: bytes) -> None:
    frame = masked(opcode, data)
    assert text_at(frame, 0, len(frame)) is None


def publish(number: int, size: int = 10, group: bytes = b"room") -> bytes:
    return b'{"type":"publish","group":"%s","id":"%d","data":"%s"}' % (group, number, b"x" * size)


@pytest.mark.parametrize("piece", [1, 7, 100, 10_000])
async def test_frames_in_pieces_and_many_at_once_are_all_carried_out(service: list[Replica], piece: int) -> None:
    texts = b"".join(masked(Opcode.TEXT, publish(number, size)) for number, size in enumerate([1, 200, 70, 3000]))
    stream = texts + masked(Opcode.PING, b"p") + masked(Opcode.TEXT, publish(9))
    async with RawSocket(service[0].port) as socket:
        for start in range(0, len(stream), piece):
            await socket.send(stream[start : start + piece])
        assert [frame["id"] for frame in await socket.texts(5, "ack")] == ["0", "1", "2", "3", "9"]
        assert socket.pongs == [b"p"]


async def test_a_message_in_fragments_with_a_ping_between_is_one_message(service: list[Replica]) -> None:
    text = publish(1)
    async with RawSocket(service[0].port) as socket:
        await socket.send(masked(Opcode.TEXT, text[:10], fin=False) + masked(Opcode.PING, b""))
        await socket.send(masked(Opcode.CONT, text[10:]) + masked(Opcode.TEXT, publish(2)))
        assert [frame["id"] for frame in await socket.texts(2, "ack")] == ["1", "2"]


@pytest.mark.parametrize(
    ("stream", "code"),
    [
        (masked(Opcode.TEXT, b"\xff\xfe"), CloseCode.INVALID_DATA),
        (masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.TEXT, b"b"), CloseCode.PROTOCOL_ERROR),
        (Frame(Opcode.TEXT, publish(1)).serialize(mask=False), CloseCode.PROTOCOL_ERROR),
        (b"\x83\x80aaaa", CloseCode.PROTOCOL_ERROR),
        (b"\x81\xff" + struct.pack(">Q", 1 << 40) + b"mask", CloseCode.MESSAGE_TOO_BIG),
        (masked(Opcode.BINARY, b"x"), CloseCode.UNSUPPORTED_DATA),
    ],
    ids=["not UTF-8", "text amid fragments", "unmasked", "unknown opcode", "announces a terabyte", "binary"],
)
async def test_a_broken_frame_closes_the_socket_with_its_code(
    service: list[Replica], stream: bytes, code: CloseCode
) -> None:
    async with RawSocket(service[0].port) as socket:
        await socket.send(stream)
        assert await socket.closed() == code


async def test_what_follows_a_close_is_not_carried_out(service: list[Replica]) -> None:
    async with RawSocket(service[0].port) as socket, RawSocket(service[0].port) as other:
        close = masked(Opcode.CLOSE, struct.pack(">H", CloseCode.NORMAL_CLOSURE))
        await socket.send(
            masked(Opcode.TEXT, publish(1, group=b"closing"))
            + close
            + masked(Opcode.TEXT, publish(2, group=b"closing"))
        )
        assert await socket.closed() == CloseCode.NORMAL_CLOSURE
        await other.send(masked(Opcode.TEXT, publish(3, group=b"closing")))
        assert [ack["offset"] for ack in await other.texts(1, "ack")] == [2], "only the first was published"


async def test_who_publishes_in_its_own_group_gets_each_message_and_its_ack_in_order(service: list[Replica]) -> None:
    count = 150
    async with RawSocket(service[0].port) as socket:
        await socket.send(masked(Opcode.TEXT, b'{"type":"subscribe","group":"own"}'))
        await socket.texts(1, "subscribed")
        frames = [masked(Opcode.TEXT, publish(number, group=b"own")) for number in range(count)]
        for start in range(0, count, 50):
            await socket.send(b"".join(frames[start : start + 50]))
        acks, messages = await socket.texts(count, "ack"), await socket.texts(count, "message")
    for found in (acks, messages):
        assert [(frame["offset"], frame["id"]) for frame in found] == [(n + 1, str(n)) for n in range(count)]


async def test_of_many_pings_a_client_that_does_not_read_gets_one_answer() -> None:
    host = await connected(echo)
    host.socket.pause_writing()
    before = len(host.written)
    for number in range(199):
        await host.feed(masked(Opcode.PING, b"%d" % number))
    assert len(host.written) == before, "they would pile up without end"
    host.socket.resume_writing()
    assert frames(host.written) == [(0x8A, b"198")]
    await host.feed(masked(Opcode.PING, b"again"))
    assert frames(host.written)[1:] == [(0x8A, b"again")]
    await host.end()


@pytest.mark.parametrize("app", [echo, echo_past_asgi])
@pytest.mark.parametrize(
    "piece",
    [masked(Opcode.PING, b""), masked(Opcode.PONG, b"x"), masked(Opcode.CONT, b"", fin=False)],
    ids=["pings", "pongs", "empty fragments"],
)
async def test_who_sends_control_frames_or_fragments_without_end_is_closed(app: Any, piece: bytes) -> None:
    host = await connected(app)
    await host.feed(masked(Opcode.TEXT, b"", fin=False))
    await host.feed(piece * 190)
    assert not host.wire.closing, "a large message may come in many"
    await host.feed(piece * 40_000)
    assert host.wire.closing
    assert [payload[:2] for head, payload in frames(host.written) if head == 0x88] == [struct.pack(">H", 1008)]
    await host.end()


async def test_who_goes_on_after_a_close_is_dropped() -> None:
    host = await connected(echo_past_asgi)
    host.socket.close(1008, "enough")
    written = len(host.written)
    for _ in range(3):
        await host.feed(masked(Opcode.PING, b"") * 40_000)
        assert not host.wire.closing, "its close may be on its way"
    assert len(host.written) == written
    await host.feed(masked(Opcode.TEXT, bytes(40_000)) * 40)
    assert host.wire.closing
    await host.end()


@pytest.mark.parametrize(
    "last",
    [masked(Opcode.CLOSE, b""), b"\x83\x80aaaa", masked(Opcode.TEXT, b"\xff")],
    ids=["close", "nonsense", "text"],
)
async def test_who_is_closed_and_does_not_read_is_dropped_in_time(last: bytes) -> None:
    host = await connected(echo)
    host.wire.unread, host.socket.close_timeout = 1000, 0.05
    await host.feed(last)
    assert host.wire.closing
    assert host.socket in host.state.connections
    await until(lambda: host.socket not in host.state.connections)


class NarrowWire(Wire):
    """One whose reader has stopped, so that what is written over the limit is said at once, as event loops do."""

    def write(self, data: Any) -> None:
        super().write(data)
        self.unread += len(data)
        if self.unread > 1000 >= self.unread - len(data):
            self.protocol.pause_writing()


@pytest.mark.parametrize("apart", [True, False], ids=["a turn each", "all at once, and then closed"])
async def test_the_message_too_many_for_a_slow_reader_that_talks_is_written_once(apart: bool) -> None:
    host = await connected(echo_past_asgi)
    socket = host.socket
    socket.on_slow = lambda: socket.close(1013, "too slow")
    socket.transport = NarrowWire(host.written)
    socket.transport.protocol = socket
    before = len(host.written)
    socket.answers_due = 1  # a publish of its own is under way
    for number in range(3):
        socket.write_message(Message("room", Entry(number, 0, body_of(str(number), b'"%s"' % (b"x" * 400)))))
        if apart:
            await asyncio.sleep(0)
    if not apart:
        socket.close(1008, "too many errors")
    assert socket.close_sent
    assert [bytes(host.written[before:]).count(b'"offset":%d' % number) for number in range(3)] == [1, 1, 1]

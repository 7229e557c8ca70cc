"""Whatever comes from the other end of a handoff is a message, or `BadMessage`; nothing else is raised."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shards.carried import Carried, Followed
from shards.log.log import Place
from shards.server.handoff.message import (
    MAX_BYTES,
    BadMessage,
    Frames,
    Go,
    Hello,
    Keep,
    Offer,
    Ready,
    Refused,
    Sorry,
    Welcome,
    pack,
    read_answer,
    read_hello,
    read_message,
)

READERS = [read_message, read_hello, read_answer]
DEEP = b"\x82\xa4type\xa5hello\xa1x" + b"\x91" * 100_000 + b"\xc0"
"""A greeting with a field that nobody knows, lists in lists in lists."""

text, data = st.text(max_size=10), st.binary(max_size=10)
numbers = st.integers(0, 2**63 - 1)
followed = st.builds(Followed, text, st.none() | st.builds(Place, text, numbers), st.booleans(), st.booleans())
carried = st.builds(Carried, session=text, groups=st.lists(followed, max_size=3).map(tuple), state=st.none() | data)
address = st.tuples(text, st.integers(0, 65535))
offers = st.builds(
    Offer,
    id=numbers,
    client=st.none() | address,
    server=st.none() | st.tuples(text, st.none() | st.integers(0, 65535)),
    root_path=text,
    path=text,
    raw_path=data,
    query_string=data,
    headers=st.lists(st.tuples(data, data), max_size=3),
    subprotocols=st.lists(text, max_size=2),
    subprotocol=st.none() | text,
    unread=data,
    fragments=st.none() | st.lists(data, max_size=3),
    unheard=st.lists(st.tuples(st.sampled_from(["text", "bytes"]), data), max_size=2),
    carried=carried,
)
messages = (
    offers
    | st.builds(Ready, numbers)
    | st.builds(Refused, numbers, text)
    | st.builds(Go, numbers)
    | st.builds(Keep, numbers)
)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
).map(msgspec.msgpack.encode)


@given(st.lists(messages, max_size=5), st.lists(st.integers(0, 2000), max_size=6))
def test_what_was_sent_is_read_in_whatever_pieces_it_comes(sent: list[Any], cuts: list[int]) -> None:
    stream, frames, read = b"".join(map(pack, sent)), Frames(), []
    for start, end in itertools.pairwise([0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]):
        read += [read_message(frame) for frame in frames.feed(stream[start:end])]
    assert read == sent


@pytest.mark.parametrize("read", READERS)
@example(frame=DEEP)
@given(frame=st.binary() | anything)
def test_any_frame_is_a_message_or_a_bad_one(read: Callable[[bytes], Any], frame: bytes) -> None:
    try:
        message = read(frame)
    except BadMessage:
        return
    assert isinstance(message, Offer | Ready | Refused | Go | Keep | Hello | Welcome | Sorry)


@pytest.mark.parametrize("read", READERS)
@given(message=messages | st.builds(Hello, text) | st.builds(Sorry, text), data=st.data())
def test_a_message_that_was_changed_on_the_way_is_one_or_a_bad_one(
    read: Callable[[bytes], Any], message: Any, data: st.DataObject
) -> None:
    frame = bytearray(pack(message)[4:])
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadMessage):
        read(bytes(frame[: data.draw(st.integers(0, len(frame)))]))


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_any_stream_is_cut_into_frames_or_is_bad_and_little_is_kept(pieces: list[bytes]) -> None:
    frames, given_out = Frames(), b""
    try:
        for piece in pieces:
            for frame in frames.feed(piece):
                given_out += len(frame).to_bytes(4, "big") + frame
    except BadMessage as bad:
        assert str(MAX_BYTES) in str(bad)
    else:
        assert (b"".join(pieces)).startswith(given_out)
        assert len(frames._left) == len(b"".join(pieces)) - len(given_out)

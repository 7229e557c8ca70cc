"""What two workers say to one another when one hands sockets over. Pure.

The giver connects, says `Hello`, and is answered by a `Welcome` with the version that both speak, or by a `Sorry`.
Then, for each socket, at its own pace, any number at once:

    giver                                taker
    Offer + the descriptor   ──────>     makes the app's end, which connects as it would for a new client
                             <──────     Ready, or Refused
    Go                       ──────>     reads and writes from now on
    or Keep                  ──────>     forgets it: the giver goes on itself

The giver touches the socket no more once it has said `Go`, the taker not before it has heard it. So it is never two
that read or write, whatever dies at whatever moment: a taker that has not heard `Go` when the giver is gone closes its
copy.

A frame is its length in four bytes and MessagePack; `Hello` and what answers it are the same in every version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from shards.carried import Carried
from shards.errors import ShardsError

VERSION = 1
"""Of `Offer` and what it leads to. A change that an older taker would misread needs another one."""

MAX_BYTES = 4 << 20
"""A frame's length; a socket about which there is more to say is not handed over."""

_LENGTH_BYTES = 4

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class BadMessage(ShardsError):
    """A peer says what is no message, or what nobody says at this point."""


class TooLarge(ShardsError):
    """There is more to say of a socket than may be said."""


class _Said(msgspec.Struct, forbid_unknown_fields=True, tag=str.lower):
    pass


class Hello(msgspec.Struct, tag="hello"):
    """The giver's first word: who it is and which versions it speaks."""

    worker: str
    versions: tuple[int, ...] = (VERSION,)


class Welcome(msgspec.Struct, tag="welcome"):
    """The taker's answer: the version to speak."""

    version: int = VERSION


class Sorry(msgspec.Struct, tag="sorry"):
    """The taker's answer where it takes nothing, and why."""

    reason: str


class Offer(_Said):
    """A socket, whose descriptor comes with this.

    Attributes:
        id: by which it is spoken of on this connection.
        client: the address of the TCP connection's other end.
        server: that of its own end.
        root_path, path, raw_path, query_string, headers, subprotocols: as in the ASGI scope.
        subprotocol: the one that was agreed on; None: none.
        unread: what has come of a frame that is not whole.
        fragments: what has come of a message whose last fragment has not.
        binary: whether that message is one of bytes.
        unheard: messages that the app has not received yet.
        silent_s: for how long nothing has come from the client, in seconds.
        ping: the payload of a ping that it has not answered.
        pong_s: within how many seconds it must answer.
        carried: what the app's end takes along.
        silent_since: when the giver stopped reading, by the host's monotonic clock, in seconds.
    """

    id: int
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    root_path: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: list[tuple[bytes, bytes]]
    subprotocols: list[str]
    subprotocol: str | None = None
    unread: bytes = b""
    fragments: list[bytes] | None = None
    binary: bool = False
    unheard: list[tuple[Literal["text", "bytes"], bytes]] = []
    silent_s: float = 0.0
    ping: bytes | None = None
    pong_s: float = 0.0
    carried: Carried = Carried()
    silent_since: float = 0.0


class Ready(_Said):
    """The taker's app has connected: say `Go` or `Keep`."""

    id: int


class Refused(_Said):
    """The taker does not take the socket, and why."""

    id: int
    reason: str


class Go(_Said):
    """The socket is the taker's."""

    id: int


class Keep(_Said):
    """The giver keeps the socket."""

    id: int


Greeting = Hello | Welcome | Sorry
Message = Offer | Ready | Refused | Go | Keep

_encode = msgspec.msgpack.Encoder().encode
_decode_message = msgspec.msgpack.Decoder(Message).decode
_decode_hello = msgspec.msgpack.Decoder(Hello).decode
_decode_answer = msgspec.msgpack.Decoder(Welcome | Sorry).decode


def pack(message: Greeting | Message) -> bytes:
    """Frame a message.

    Raises:
        TooLarge: it is longer than `MAX_BYTES`.
    """
    body = _encode(message)
    if len(body) > MAX_BYTES:
        raise TooLarge(f"{len(body)} bytes are too many to hand over: {MAX_BYTES} at most")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def read_message(frame: bytes) -> Message:
    """Read what follows the greeting. Raises `BadMessage`."""
    try:
        message: Message = _decode_message(frame)
        return message
    except _UNREADABLE as error:
        raise BadMessage(f"that is no message of version {VERSION}: {error}") from None


def read_hello(frame: bytes) -> Hello:
    """Read a giver's first word. Raises `BadMessage`."""
    try:
        return _decode_hello(frame)
    except _UNREADABLE as error:
        raise BadMessage(f"that is no greeting: {error}") from None


def read_answer(frame: bytes) -> Welcome | Sorry:
    """Read what a taker answers to the greeting. Raises `BadMessage`."""
    try:
        answer: Welcome | Sorry = _decode_answer(frame)
        return answer
    except _UNREADABLE as error:
        raise BadMessage(f"that answers no greeting: {error}") from None


class Frames:
    """Cuts a stream into frames."""

    def __init__(self) -> None:
        self._left = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the frames that end in `data`.

        Raises:
            BadMessage: one is longer than any may be.
        """
        data = self._left + data
        start = 0
        while len(data) - start >= _LENGTH_BYTES:
            length = int.from_bytes(data[start : start + _LENGTH_BYTES], "big")
            if length > MAX_BYTES:
                raise BadMessage(f"a message of {length} bytes: {MAX_BYTES} at most")
            end = start + _LENGTH_BYTES + length
            if end > len(data):
                break
            yield data[start + _LENGTH_BYTES : end]
            start = end
        self._left = data[start:]

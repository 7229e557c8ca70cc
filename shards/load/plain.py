"""Clients of servers that promise less than ours: what one publishes, all members of its group get as it is.

There are no acks and no offsets, so what is lost, doubled or out of order is counted by what the payload itself
carries: the message's number in its group, and who of the group published it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from time import monotonic_ns
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from picows import WSFrame, WSMsgType, WSTransport

from shards.load.connection import GROUP, PROTOCOL, Connection, Shared
from shards.load.ledger import EXAMPLES, Account, Impossible, Noting, Tally

_TEXT = WSMsgType.TEXT
_PAYLOAD_BYTES = 64


class Payload(msgspec.Struct, array_like=True, gc=False):
    """What a generated message is: an array, for a string of it in JSON needs no escapes.

    Attributes:
        publisher: who of the group sent it, from 0.
        number: of the message in its group, from 0.
        t: when it was due, by the host's monotonic clock in nanoseconds.
    """

    publisher: int
    number: int
    t: int


decode = msgspec.json.Decoder(Payload).decode


def payload(publisher: int, number: int, due_ns: int) -> bytes:
    """Give a message, 64 bytes long."""
    return (b"[%d,%d,%d]" % (publisher, number, due_ns)).ljust(_PAYLOAD_BYTES)


class PlainLedger:
    """One group: how many messages it was sent, and its members."""

    __slots__ = ("_published", "members", "published")

    def __init__(self) -> None:
        self.published = 0
        self.members: list[PlainMember] = []
        self._published: Counter[int] = Counter()

    def publish(self, publisher: int) -> int:
        """Give the next message its number; `publisher` is the number of who publishes it."""
        self.published += 1
        self._published[publisher] += 1
        return self.published - 1

    def unsettled(self) -> bool:
        """Tell whether a delivery is still to come."""
        return any(member.delivered < self.published for member in self._present())

    def publishers(self) -> int:
        """Tell how many published something."""
        return len(self._published)

    def tally(self) -> Tally:
        """Sum up."""
        return sum((account.tally for account in self.accounts()), start=Tally())

    def accounts(self) -> list[Account]:
        """Give each member's books, in the order of their numbers; together they make the tally."""
        books = [member.account() for member in self.members]
        for publisher, count in self._published.items():
            books[publisher].tally.published = books[publisher].tally.ackless = count
        return books

    def _present(self) -> Iterator[PlainMember]:
        return (member for member in self.members if member.placed)


class PlainMember(Noting):
    """What one member was given of its group.

    Args:
        group: the ledger of its group.

    Attributes:
        number: its own, from 0, among the group's members.
        placed: whether it has ever been in the group; all that is published is expected then.
    """

    __slots__ = (
        "_last",
        "_seen",
        "delivered",
        "duplicated",
        "group",
        "lates",
        "number",
        "placed",
        "reordered",
    )

    def __init__(self, group: PlainLedger) -> None:
        super().__init__()
        self.group = group
        self.number = len(group.members)
        self.placed = False
        self.delivered = self.duplicated = self.reordered = self.lates = 0
        self._seen = bytearray()
        self._last: dict[int, int] = {}
        group.members.append(self)

    def message(self, publisher: int, number: int) -> bool:
        """Note a delivery.

        Returns:
            Whether it was the first of this message to this member.

        Raises:
            Impossible: there is no such message.
        """
        if not 0 <= number < self.group.published:
            raise Impossible(f"message {number}, which was never published")
        seen = self._seen
        if number >= len(seen):
            seen.extend(bytes(self.group.published - len(seen)))
        if seen[number]:
            self.duplicated += 1
            self._note(f"duplicated: id {number}")
            return False
        seen[number] = 1
        if number > self._last.get(publisher, -1):
            self._last[publisher] = number
        else:
            self.reordered += 1
            self._note(f"reordered: id {number}, after id {self._last[publisher]}")
        self.delivered += 1
        return True

    def late(self) -> None:
        """Note that the delivery before was late."""
        self.lates += 1

    def account(self) -> Account:
        """Give this member's books."""
        expected = self.group.published if self.placed else 0
        tally = Tally(
            expected=expected,
            delivered=self.delivered,
            lost=max(0, expected - self.delivered),
            duplicated=self.duplicated,
            reordered=self.reordered,
            late=self.lates,
        )
        unseen = (number for number in range(expected) if number >= len(self._seen) or not self._seen[number])
        lost = [f"lost: id {number}" for number in islice(unseen, EXAMPLES)]
        return Account(self.number, tally, [*self._noted(), *lost][:EXAMPLES])


class PlainRoom:
    """A group as its clients see it."""

    __slots__ = ("ledger", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ledger = PlainLedger()


class PlainClient(Connection):
    """A client that is in the group of its address, ``/ws/<group>/``, from the handshake on.

    Args:
        shared: what it has in common with others.
        room: the group it is in.
        source: the address to connect from; None: the system's choice.
    """

    __slots__ = ("member", "room")

    def __init__(self, shared: Shared, room: PlainRoom, source: str | None = None) -> None:
        super().__init__(shared, source)
        self.room = room
        self.member = PlainMember(room.ledger)

    def url(self) -> str:
        """Give the address of its group."""
        return self.shared.group_url(self.room.name, {})

    def placed(self) -> bool:
        """Tell whether it has ever been in its group."""
        return self.member.placed

    def entered(self) -> None:
        """Let `connect` end; what is published from now on is expected."""
        self.member.placed = True
        super().entered()

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Take the new socket into use."""
        super().on_ws_connected(transport)
        self.entered()

    def publish(self, due_ns: int) -> None:
        """Publish the group's next message; without a socket it is lost."""
        number = self.room.ledger.publish(self.member.number)
        if self.subscribed:
            self.asks(number)
            self._send(payload(self.member.number, number, due_ns))

    def _send(self, message: bytes) -> None:
        assert self._transport is not None
        self._transport.send(_TEXT, message)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame: a message, and nothing else."""
        now = monotonic_ns()
        if transport is not self._transport:
            return
        if frame.msg_type is not _TEXT:
            self.control(transport, frame)
            return
        try:
            self._message(frame.get_payload_as_bytes(), now)
        except ValueError as error:
            self.shared.wrong(PROTOCOL, str(error))

    def _message(self, text: bytes, now: int) -> None:
        message = decode(text)
        if self.member.message(message.publisher, message.number):
            latency = now - message.t
            self.shared.delivered += 1
            self.shared.latencies.append(latency)
            if message.number == self.asked:
                self.answered(now)
            if latency > self.shared.late_ns:
                self.member.late()


class SocketIoClient(PlainClient):
    """A client of Socket.IO: Engine.IO 4 over a WebSocket from the start, no polling.

    The group is in the query (``group=G``), where the server's middleware finds it; a message is an event ``m`` with
    one string.
    """

    __slots__ = ()

    _OPEN, _PING, _PONG = b"0", b"2", b"3"
    _JOIN, _JOINED = b"40", b"40"
    _EVENT = b'42["m","'
    _EVENT_END = b'"]'

    def url(self) -> str:
        """Give the address of the server, with the group in the query."""
        parts = urlsplit(self.shared.url.replace(GROUP, self.room.name))
        wanted = urlencode({"EIO": 4, "transport": "websocket", "group": self.room.name})
        query = "&".join(part for part in (parts.query, wanted) if part)
        return urlunsplit(parts._replace(path="/socket.io/", query=query))

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Take the new socket into use; the server speaks first."""
        self._transport = transport

    def _send(self, message: bytes) -> None:
        super()._send(self._EVENT + message + self._EVENT_END)

    def _message(self, text: bytes, now: int) -> None:
        if text.startswith(self._EVENT):
            super()._message(text[len(self._EVENT) : -len(self._EVENT_END)], now)
        elif text == self._PING:
            super()._send(self._PONG)
        elif text.startswith(self._JOINED):
            self.entered()
        elif text.startswith(self._OPEN):
            super()._send(self._JOIN)
        else:
            raise ValueError(f"a packet that was not expected: {text[:80]!r}")

"""What a server speaks, so that one generator can load ours and others alike.

``shards``: our wire protocol, with acks and offsets · ``half``: that, and clients in plain rooms beside it ·
``plain``: what one publishes, all members of the group in the
path get as it is · ``socketio``: the same in the packets of Socket.IO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import Any, Protocol

from picows import WSFrame, WSTransport

from shards.load import half
from shards.load.client import Client, Room
from shards.load.connection import Connection, Shared
from shards.load.ledger import Account, Tally
from shards.load.plain import PlainClient, PlainRoom, SocketIoClient


class Ledger(Protocol):
    """What a group's ledger tells, whatever it counts by."""

    def unsettled(self) -> bool:
        """Tell whether something is still to come."""

    def publishers(self) -> int:
        """Tell how many published something."""

    def tally(self) -> Tally:
        """Sum up."""

    def accounts(self) -> list[Account]:
        """Give each member's books, in the order of their numbers; together they make the tally."""


class AnyRoom(Protocol):
    """A group, in any dialect."""

    name: str

    @property
    def ledger(self) -> Ledger:
        """Its ledger."""


@dataclass(frozen=True)
class Dialect:
    """How to make groups and their clients.

    Attributes:
        room: makes a group from its name.
        client: makes a client from what it shares, its group and its source address.
        looping: the same for a client that publishes again as soon as it has received, see `Looping`.
        acks: whether the server says of each message that it has it.
    """

    room: Callable[[str], AnyRoom]
    client: Callable[[Shared, Any, str | None], Connection]
    looping: Callable[[Shared, Any, str | None], Connection]
    acks: bool


class Looping(Connection):
    """A closed loop, mixed into a dialect's client: each message that comes in is answered with the next one.

    For an echo, where the question is how many turns a second a server makes. What it finds is no latency under a
    given load.
    """

    __slots__ = ()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame; publish the next message where it was one."""
        before = self.shared.delivered
        super().on_ws_frame(transport, frame)
        if self.shared.delivered != before and self.shared.looping:
            self.publish(monotonic_ns())


class _LoopingClient(Looping, Client):
    __slots__ = ()


class _LoopingPlain(Looping, PlainClient):
    __slots__ = ()


class _LoopingSocketIo(Looping, SocketIoClient):
    __slots__ = ()


DIALECTS = {
    "shards": Dialect(Room, Client, _LoopingClient, acks=True),
    "half": Dialect(half.room, half.client, half.client, acks=True),
    "plain": Dialect(PlainRoom, PlainClient, _LoopingPlain, acks=False),
    "socketio": Dialect(PlainRoom, SocketIoClient, _LoopingSocketIo, acks=False),
}

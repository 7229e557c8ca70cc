"""A client of our own protocol: its place in its group, and the manners of a client that resumes.

It subscribes its group by connecting to ``/ws/<group>/``, checks every frame against the ledger, and comes back with
its session, epoch and offset when the server asks it to or cuts it off, sending again what was not acked.
"""

from __future__ import annotations

import asyncio
import random
from time import monotonic_ns

from picows import WSFrame, WSMsgType, WSTransport

from shards.load import frames
from shards.load.connection import Connection, Shared
from shards.load.ledger import GroupLedger, Member

_TEXT = WSMsgType.TEXT


class Room:
    """A group as its clients see it."""

    __slots__ = ("ledger", "name", "template")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ledger = GroupLedger()
        self.template = frames.publish_template(name, monotonic_ns())


class Client(Connection):
    """One client, over all its sockets, one after the other.

    Args:
        shared: what it has in common with others.
        room: the group it is in.
        source: the address to connect from; None: the system's choice.
    """

    __slots__ = ("_session", "_unacked", "member", "room")

    def __init__(self, shared: Shared, room: Room, source: str | None = None) -> None:
        super().__init__(shared, source)
        self.room = room
        self.member = Member(room.ledger)
        self._session: str | None = None
        self._unacked: dict[int, int] = {}

    def url(self) -> str:
        """Give the address of its group, resuming where there is a place to resume from."""
        return self.shared.group_url(self.room.name, self._place())

    def _place(self) -> dict[str, str | int]:
        if self._session is None:
            return {}
        if self.member.epoch is None:
            return {"session": self._session}
        return {"session": self._session, "epoch": self.member.epoch, "offset": self.member.position}

    def placed(self) -> bool:
        """Tell whether it has ever been in its group."""
        return self.member.epoch is not None

    async def connect(self) -> None:
        """Open a socket, wait until it is subscribed, and send again what was not acked.

        Raises:
            OSError, TimeoutError, WSError: it did not work; see `reason`.
        """
        await super().connect()
        for number, due_ns in self._unacked.items():
            self._send(number, due_ns)

    def publish(self, due_ns: int) -> None:
        """Publish the group's next message; without a socket it is sent as soon as there is one again."""
        number = self.room.ledger.publish(self.member.number)
        self._unacked[number] = due_ns
        if self.subscribed:
            self._send(number, due_ns)

    def _send(self, number: int, due_ns: int) -> None:
        assert self._transport is not None
        self._transport.send(_TEXT, self.room.template % (number, due_ns))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame. This is the hot path: all that is usual is done right here."""
        now = monotonic_ns()
        if transport is not self._transport:
            return
        if frame.msg_type is not _TEXT:
            self.control(transport, frame)
            return
        try:
            message = frames.decode(frame.get_payload_as_bytes())
            if type(message) is frames.Message:
                if message.group != self.room.name:
                    raise ValueError("a message of another group")
                if self.member.message(message.offset, int(message.id)):
                    self.shared.delivered += 1
                    self.shared.latencies.append(now - message.data.t)
            else:
                self._other(message)
        except ValueError as error:
            self.shared.wrong("protocol", str(error))

    def _other(self, message: frames.Frame) -> None:
        match message:
            case frames.Ack():
                self.room.ledger.acked(int(message.id), message.offset, self.member.log)
                self._unacked.pop(int(message.id), None)
            case frames.Welcome():
                self._session = message.session
            case frames.Subscribed():
                self.member.subscribed(message.epoch, message.offset, message.recovered)
                self.entered()
            case frames.Gap():
                self.member.gap(message.epoch, message.offset)
            case frames.Reconnect():
                self.come_back(random.uniform(0, message.within_ms / 1000))
            case frames.Error():
                self._refused(message)

    def _refused(self, error: frames.Error) -> None:
        """Count a refusal; a refused publish is sent again a little later."""
        self.shared.wrong(f"error frame {error.code}", error.message)
        if error.id is not None and error.id.isdecimal():
            asyncio.get_running_loop().call_later(random.uniform(0.5, 1.5), self._send_again, int(error.id))

    def _send_again(self, number: int) -> None:
        if number in self._unacked and self.subscribed:
            self._send(number, self._unacked[number])

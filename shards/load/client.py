"""A client of our own protocol: its place in its group, and the manners of a client that resumes.

It subscribes its group by connecting to ``/ws/<group>/``, checks every frame against the ledger, and comes back with
its session, epoch and offset when the server asks it to or cuts it off, sending again what was not acked.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from time import monotonic_ns

from picows import WSFrame, WSMsgType, WSTransport

from shards.load import frames
from shards.load.connection import ERROR_FRAME, PROTOCOL, PUBLISH_REFUSED, Connection, Shared
from shards.load.ledger import GroupLedger, Member

_TEXT = WSMsgType.TEXT

_AT_ONCE, _A_SECOND = 100, 80
"""What one that comes back sends again, in messages: less than the service's rate limit, which would refuse some of
them and take those behind."""


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

    __slots__ = ("_behind", "_session", "_unacked", "member", "room")

    def __init__(self, shared: Shared, room: Room, source: str | None = None) -> None:
        super().__init__(shared, source)
        self.room = room
        self.member = Member(room.ledger)
        self._session: str | None = None
        self._unacked: dict[int, int] = {}
        # Of one that has come back: what is still to be sent.
        self._behind: deque[int] | None = None

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
        self._behind = deque(self._unacked)
        self._catch_up(self._behind, _AT_ONCE)

    def publish(self, due_ns: int) -> None:
        """Publish the group's next message; without a socket it is sent as soon as there is one again."""
        number = self.room.ledger.publish(self.member.number)
        self._unacked[number] = due_ns
        if self.subscribed:
            self.asks(number)
            if self._behind is None:
                self._send(number, due_ns)
            else:
                self._behind.append(number)

    def _catch_up(self, behind: deque[int], most: int) -> None:
        """Send again what was not acked, so many messages now and the others little by little, in their order."""
        if behind is not self._behind or not self.subscribed:
            return
        for number in [behind.popleft() for _ in range(min(most, len(behind)))]:
            if number in self._unacked:
                self._send(number, self._unacked[number])
        if behind:
            asyncio.get_running_loop().call_later(1.0, self._catch_up, behind, _A_SECOND)
        else:
            self._behind = None

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
                number = int(message.id)
                if self.member.message(message.offset, number):
                    self._delivered(number, now, now - message.data.t)
            else:
                self._other(message)
        except ValueError as error:
            self.shared.wrong(PROTOCOL, str(error))

    def _delivered(self, number: int, now: int, latency: int) -> None:
        self.shared.delivered += 1
        self.shared.latencies.append(latency)
        if number == self.asked:
            self.answered(now)
        if latency > self.shared.late_ns:
            self.member.late()

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
        """Note a refusal, by what is refused: a publish is sent again a little later, a subscription tried again.

        Whether that came to a good end is told by the acks, and by who has a socket. Nothing else may be refused.
        """
        number = int(error.id) if error.id is not None and error.id.isdecimal() else None
        if number in self._unacked:
            self.shared.wrong(f"{PUBLISH_REFUSED}{error.code}", error.message)
            asyncio.get_running_loop().call_later(random.uniform(0.5, 1.5), self._send_again, number)
        elif error.id is None and self.connecting:
            self.refuse(f"not subscribed: {error.code}")
        else:
            self.shared.wrong(f"{ERROR_FRAME}{error.code}", error.message)

    def _send_again(self, number: int) -> None:
        if number in self._unacked and self.subscribed:
            self._send(number, self._unacked[number])

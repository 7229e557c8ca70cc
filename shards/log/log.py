"""The groups' logs, spread over the shards: publish and read, whichever shard a group is on."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import msgspec

from shards.errors import ShardUnavailable
from shards.log.copied import connection_to
from shards.log.link import Answered, LinkLost, Reply
from shards.log.shard import ANNOUNCEMENTS, FENCE, PUBLISH, READ, ShardConnection
from shards.ring import slot_of
from shards.router.table import SlotTable
from shards.settings import Settings

MOST_WAITING_BYTES = 64 << 20
"""Bodies that may wait for their shards in one process; more are refused at once."""

_RETRY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a group's log someone is: after the message `offset` of the log `epoch`."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in a log.

    Attributes:
        offset: its number.
        at_ms: when it was published, by its shard's clock, milliseconds since 1970.
        body: what follows the offset in its frame, see `body_of`.
    """

    offset: int
    at_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """A range read from a log: its entries, oldest first, and the log's last offset at that moment."""

    epoch: str
    head: int
    entries: list[Entry]


@dataclass(slots=True)
class _Publish:
    slot: int
    group: str
    mark: str
    body: bytes
    deadline: float
    done: asyncio.Future[Place]


class LogListener(Protocol):
    """Hears what happens to the logs that one has subscribed."""

    def log_pushed(self, group: str, epoch: str, entry: Entry) -> None:
        """Hear a message, right after it was published."""

    def shard_up(self, shard: str) -> None:
        """Hear that a shard can be used again: subscriptions on it are gone, messages may have been missed."""

    def shard_down(self, shard: str) -> None:
        """Hear that a shard can't be used: nothing is pushed until it is up."""

    def owners_changed(self) -> None:
        """Hear that slots have other owners than before."""


def body_of(id: str, data: bytes, backend: bool = False) -> bytes:
    """Give what follows the offset in a message's frame.

    Args:
        id: the message's id.
        data: any JSON, encoded.
        backend: whether it comes from the server's own code; clients can't forge this mark, since their
            data ends before it.
    """
    return b',"id":%b,"data":%b%b}' % (msgspec.json.encode(id), data, BACKEND_MARK if backend else b"")


BACKEND_MARK = b',"via":"backend"'


@lru_cache(maxsize=65536)
def _slot(group: str) -> int:
    return slot_of(group)


class GroupLog:
    """Publishes to and reads from the logs.

    Args:
        settings: how much history is kept, and deadlines.
        password: of the shards.
        listener: hears messages and what happens to shards.
        refresh: called where the slot table in use turns out to be old; should lead to a call of `use`.
    """

    def __init__(
        self, settings: Settings, password: str | None, listener: LogListener, refresh: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._password = password
        self._listener = listener
        self._refresh = refresh
        self._connections: dict[str, ShardConnection] = {}
        self._leaving: list[asyncio.Future[None]] = []
        self._held: dict[int, deque[_Publish]] = {}
        self._retry: asyncio.TimerHandle | None = None
        self.table: SlotTable | None = None
        self._waiting_bytes = 0

    @property
    def ready(self) -> bool:
        """Whether every shard that owns slots can be used."""
        return self.table is not None and all(connection.up for connection in self._connections.values())

    def down(self) -> list[str]:
        """Give the names of the shards that can't be used now."""
        return [name for name, connection in self._connections.items() if not connection.up]

    def losses(self) -> int:
        """Count the connections to shards that were lost."""
        return sum(connection.losses for connection in self._connections.values())

    def use(self, table: SlotTable) -> None:
        """Work by `table` from now on: connect to new shards, leave those gone, and send what waited for it."""
        if self.table is not None and table.version <= self.table.version:
            return
        self.table = table
        known = {shard.name: shard for shard in table.shards}
        for name, connection in list(self._connections.items()):
            if known.get(name) != connection.shard:
                self._leaving.append(asyncio.ensure_future(self._connections.pop(name).stop()))
                self._listener.shard_down(name)
        for name, shard in known.items():
            if name not in self._connections:
                self._connections[name] = connection_to(shard, self._password, self)
                self._connections[name].start()
        self._listener.owners_changed()
        self._send_held()

    async def stop(self) -> None:
        """Disconnect from all shards; publishes that wait are refused."""
        if self._retry is not None:
            self._retry.cancel()
        for connection in self._connections.values():
            await connection.stop()
        await asyncio.gather(*self._leaving)
        for held in self._held.values():
            for publish in held:
                _refuse(publish, ShardUnavailable("all", "this process is stopping"))
        self._held.clear()

    # Publishing

    def publish(self, group: str, session: str, id: str, body: bytes) -> asyncio.Future[Place]:
        """Append a message to its group's log, trying until its shard has it.

        Publishes of one group are sent in the order of these calls. Where some are sent back, by a closed fence or a
        lost connection, later ones may overtake them; offsets say in which order they came to lie.

        Args:
            group: a valid name.
            session: whose ids these are.
            id: the message's id; repeated within the dedupe window it gives the first one's place.
            body: from `body_of`.

        Returns:
            A future of the message's place; `ShardUnavailable` after `publish_seconds`.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Place] = loop.create_future()
        deadline = loop.time() + self._settings.publish_seconds
        publish = _Publish(_slot(group), group, f"{session} {id}", body, deadline, done)
        if self._waiting_bytes + len(body) > MOST_WAITING_BYTES:
            _refuse(publish, ShardUnavailable("all", f"{MOST_WAITING_BYTES} bytes wait already"))
            return done
        self._waiting_bytes += len(body)
        if publish.slot in self._held:
            self._held[publish.slot].append(publish)
        else:
            self._send(publish)
        return done

    def _send(self, publish: _Publish) -> None:
        if self.table is None:
            self._hold(publish)
            return
        settings, slot, group = self._settings, publish.slot, publish.group
        self._connections[self.table.owner(slot).name].run(
            PUBLISH,
            lambda reply: self._published(publish, reply),
            (
                "fence",
                f"meta:{slot}:{group}",
                f"log:{slot}:{group}",
                f"seen:{slot}:{group}:",
                f"index:{slot}",
            ),
            (
                slot,
                self.table.since[slot],
                publish.mark,
                publish.body,
                _new_epoch(),
                group,
                settings.history_messages,
                int(settings.history_seconds * 1000),
                int(settings.idle_seconds * 1000),
                int(settings.dedupe_seconds * 1000),
            ),
        )

    def _published(self, publish: _Publish, reply: Reply) -> None:
        if isinstance(reply, Exception):
            self._hold(publish, reply)
        elif reply[0] < 0:
            self._fenced(publish.slot, reply[1])
            self._hold(publish, reply)
        else:
            self._waiting_bytes -= len(publish.body)
            if not publish.done.done():
                publish.done.set_result(Place(reply[1].decode(), reply[0]))

    def _fenced(self, slot: int, found: int) -> None:
        """Find out who owns a slot now; where a shard knows nothing of its slots, it has lost its data: tell it."""
        self._refresh()
        if found == 0 and self.table is not None:
            self._open_fences(self._connections[self.table.owner(slot).name])

    def _hold(self, publish: _Publish, reply: Reply = None) -> None:
        if asyncio.get_running_loop().time() > publish.deadline:
            self._waiting_bytes -= len(publish.body)
            shard = self.table.owner(publish.slot).name if self.table else "unknown"
            _refuse(publish, ShardUnavailable(shard, str(reply)))
            return
        self._held.setdefault(publish.slot, deque()).append(publish)
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._send_held)

    def _send_held(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        held, self._held = self._held, {}
        for publishes in held.values():
            for publish in publishes:
                self._send(publish)

    # Reading and subscribing

    def read(self, group: str, after: int, most: int, answered: Callable[[Page | None], None]) -> None:
        """Read a range of a group's log.

        Args:
            group: a valid name.
            after: the offset after which to read; below 0: so many messages before the head.
            most: how many messages to give at most.
            answered: gets the page, or None where the shard can't be asked now: try again once it is up, or when
                the owners have changed.
        """
        if self.table is None:
            answered(None)
            return

        def page(reply: Reply) -> None:
            if isinstance(reply, Exception):
                answered(None)
            elif reply[0] < 0:
                self._fenced(slot, reply[1])
                answered(None)
            else:
                answered(Page(reply[1].decode(), reply[0], [Entry(*entry) for entry in reply[2]]))

        slot = _slot(group)
        self._connection_of(slot, self.table).run(
            READ,
            page,
            ("fence", f"meta:{slot}:{group}", f"log:{slot}:{group}", f"index:{slot}"),
            (
                slot,
                self.table.since[slot],
                _new_epoch(),
                group,
                after,
                most,
                int(self._settings.idle_seconds * 1000),
            ),
        )

    def owner(self, group: str) -> str | None:
        """Give the name of the shard that owns the group; None before the first table is known."""
        return self.table.owner(_slot(group)).name if self.table else None

    def command(self, group: str, answered: Answered, name: str, kind: str, *args: str | bytes | int) -> None:
        """Send a Redis command on one of the group's keys to the shard that owns it.

        Args:
            group: a valid name.
            answered: gets the reply, or an exception.
            name: the command.
            kind: which of the group's keys, for instance ``presence``.
            args: what follows the key.
        """
        slot = _slot(group)
        if self.table is None:
            answered(LinkLost("the slot table is not known yet"))
        else:
            self._connection_of(slot, self.table).command(answered, name, f"{kind}:{slot}:{group}", *args)

    def subscribe(self, shard: str, groups: list[str]) -> None:
        """Have the groups' messages pushed by `shard`, from the next command on."""
        for some in _batches(groups):
            self._connections[shard].subscribe(some)

    def unsubscribe(self, shard: str, groups: list[str]) -> None:
        """Have the groups' messages pushed no more."""
        if shard in self._connections:
            for some in _batches(groups):
                self._connections[shard].unsubscribe(some)

    def _connection_of(self, slot: int, table: SlotTable) -> ShardConnection:
        return self._connections[table.owner(slot).name]

    # What the connections call

    def shard_up(self, connection: ShardConnection) -> None:
        """See `shards.log.shard.Listener`."""
        if self._connections.get(connection.shard.name) is not connection:
            return
        self._open_fences(connection)
        self._listener.shard_up(connection.shard.name)
        self._send_held()

    def shard_down(self, connection: ShardConnection) -> None:
        """See `shards.log.shard.Listener`."""
        if self._connections.get(connection.shard.name) is not connection:
            return
        self._listener.shard_down(connection.shard.name)

    def pushed(self, connection: ShardConnection, channel: bytes, payload: bytes) -> None:
        """See `shards.log.shard.Listener`."""
        group = channel.decode()
        if group == ANNOUNCEMENTS:
            self._refresh()
        elif connection.shard.name == self.owner(group):
            place, comma, rest = payload.partition(b",")
            epoch, offset, at_ms = place.split(b":")
            self._listener.log_pushed(group, epoch.decode(), Entry(int(offset), int(at_ms), comma + rest))

    def _open_fences(self, connection: ShardConnection) -> None:
        """Have a shard take publishes for its slots, if it is new or has lost its data; moves keep theirs closed."""
        if self.table is None:
            return
        pairs = [
            number for slot in self.table.slots_of(connection.shard.name) for number in (slot, self.table.since[slot])
        ]
        if pairs:
            connection.run(FENCE, lambda _: None, ("fence",), pairs)


def _refuse(publish: _Publish, error: ShardUnavailable) -> None:
    if not publish.done.done():
        publish.done.set_exception(error)


def _new_epoch() -> str:
    return f"{random.getrandbits(48):012x}"


def _batches(names: list[str], size: int = 500) -> list[list[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]

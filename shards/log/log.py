"""The groups' logs, spread over the shards: publish and read, whichever shard a group is on."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from operator import attrgetter
from typing import Protocol

import msgspec

from shards.errors import ShardUnavailable
from shards.log.copied import connection_to
from shards.log.link import Answered, LinkLost, Nonsense, Reply
from shards.log.shard import ANNOUNCEMENTS, FENCE, NO_GROUP, PUBLISH, READ, ShardConnection
from shards.ring import SLOTS, slot_of
from shards.router.table import SlotTable
from shards.settings import Settings

logger = logging.getLogger(__name__)

MOST_WAITING_BYTES = 64 << 20
"""What publishes that wait for their shards may take in one process. Each shard has its share, and takes a single one
in any case: one that is down refuses what is over that at once, and takes no other's."""

_BESIDE_BODY_BYTES = 512
"""What a publish that waits takes beside its body: its mark, its place in the queue, who is to be answered."""

PAGE_BYTES = 256 << 10
"""Bodies that a read gives at most where it does not say."""

_RETRY_SECONDS = 0.1


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where in a group's log someone is: after the message `offset` of the log `epoch`."""

    epoch: str
    offset: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A message in a log.

    Attributes:
        offset: its number.
        at_ms: when it was published, by its shard's clock, milliseconds since 1970.
        body: what follows the offset in its frame, see `body_of`.
    """

    offset: int
    at_ms: int
    body: bytes


class Page(msgspec.Struct, frozen=True):
    """A range read from a log: its entries, oldest first, and the log's last offset at that moment."""

    epoch: str
    head: int
    entries: list[Entry]


class _Waiting:
    """What waits for a shard.

    Attributes:
        bytes: what that takes.
        most: what it may take.
    """

    __slots__ = ("bytes", "most")

    def __init__(self) -> None:
        self.bytes = 0
        self.most = MOST_WAITING_BYTES


class _Publish(msgspec.Struct, eq=False):
    number: int
    group: str
    slot: int
    mark: str
    body: bytes
    deadline: float
    answered: Appended
    waiting: _Waiting
    reply: Reply = None


Appended = Callable[[Place | ShardUnavailable], None]
"""Takes what came of a message: its place, or an exception, given, not raised."""


class LogListener(Protocol):
    """Hears what happens to the logs that one has subscribed."""

    def log_pushed(self, shard: str, group: str, epoch: str, entry: Entry) -> None:
        """Hear a message from `shard`, right after it was published there; the group may belong to another by now."""

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


@lru_cache(maxsize=65536)
def _publish_keys(group: str) -> tuple[str, ...]:
    name = f"{_slot(group)}:{group}"
    return ("fence", f"meta:{name}", f"log:{name}", f"seen:{name}:", f"index:{_slot(group)}")


class GroupLog:
    """Publishes to and reads from the logs.

    Args:
        settings: how much history is kept, and deadlines.
        listener: hears messages and what happens to shards.
        refresh: called where the slot table in use turns out to be old; should lead to a call of `use`.
    """

    def __init__(self, settings: Settings, listener: LogListener, refresh: Callable[[], None]) -> None:
        self._settings = settings
        self._listener = listener
        self._refresh = refresh
        self._limits = (
            settings.history_messages,
            int(settings.history_seconds * 1000),
            int(settings.idle_seconds * 1000),
            int(settings.dedupe_seconds * 1000),
        )
        self._connections: dict[str, ShardConnection] = {}
        self._owners: list[ShardConnection] = []
        self._leaving: list[asyncio.Future[None]] = []
        # A group in which a publish was sent back has a queue here; `_tried` is its first one where that is under way.
        self._held: dict[str, list[_Publish]] = {}
        self._tried: dict[str, _Publish] = {}
        # Slots that have another owner than the one that publishes of theirs are still under way to.
        self._changing: set[int] = set()
        self._under_way = [0] * SLOTS
        self._numbers = itertools.count()
        self._retry: asyncio.TimerHandle | None = None
        self._channels: dict[str, Callable[[bytes], None]] = {}
        self.table: SlotTable | None = None
        self.no_table = "nobody has looked for it yet"
        self.losses = 0
        self._waiting_for_table = _Waiting()
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_of: list[_Waiting] = [self._waiting_for_table] * SLOTS

    @property
    def ready(self) -> bool:
        """Whether every shard that owns slots can be used."""
        return self.table is not None and all(connection.up for connection in self._connections.values())

    def down(self) -> list[str]:
        """Give the names of the shards that can't be used now."""
        return [name for name, connection in self._connections.items() if not connection.up]

    @property
    def waiting_bytes(self) -> int:
        """What publishes that wait for their shards take."""
        return self._waiting_for_table.bytes + sum(waiting.bytes for waiting in self._waiting.values())

    def use(self, table: SlotTable) -> None:
        """Work by `table` from now on: connect to new shards, leave those gone, and send what waited for it."""
        if self.table is not None and table.version <= self.table.version:
            return
        self.table = table
        known = {shard.name: shard for shard in table.shards}
        for name, connection in list(self._connections.items()):
            if name not in known or known[name].url != connection.shard.url:
                self._leaving.append(asyncio.ensure_future(self._connections.pop(name).stop()))
                self._listener.shard_down(name)
        for name, shard in known.items():
            if name not in self._connections:
                self._connections[name] = connection_to(shard, self._settings.credentials, self)
                self._connections[name].start()
        before, self._owners = self._owners, [self._connections[name] for name in table.owner_names()]
        self._waiting = {name: self._waiting.get(name) or _Waiting() for name in known}
        for waiting in self._waiting.values():
            waiting.most = MOST_WAITING_BYTES // len(known)
        self._waiting_of = [self._waiting[name] for name in table.owner_names()]
        owners = zip(before, self._owners, strict=False)
        self._changing |= {slot for slot, (old, new) in enumerate(owners) if old is not new and self._under_way[slot]}
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
                publish.answered(ShardUnavailable("all", "this process is stopping"))
        self._held.clear()

    # Publishing

    def publish(self, group: str, session: str, id: str, body: bytes) -> asyncio.Future[Place]:
        """Append a message to its group's log, trying until its shard has it; see `append`.

        Returns:
            A future of the message's place; `ShardUnavailable` after `publish_seconds`.
        """
        done: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self.append(group, session, id, body, lambda answer: _settle(done, answer))
        return done

    def append(self, group: str, session: str, id: str, body: bytes, answered: Appended) -> None:
        """Append a message to its group's log, trying until its shard has it.

        Messages of one group are sent in the order of these calls. Where one is sent back, by a closed fence or a
        lost connection, later ones wait behind it, and so they do until its slot's last owner has answered, where it
        has a new one. Only a server that refuses one, being out of memory for one, and takes the next, which is under
        way already, may turn them round. Offsets say in which order they came to lie.

        Args:
            group: a valid name.
            session: whose ids these are.
            id: the message's id; repeated within the dedupe window it gives the first one's place.
            body: from `body_of`.
            answered: gets the message's place, or `ShardUnavailable` after `publish_seconds`, given, not raised.
        """
        size = len(body) + _BESIDE_BODY_BYTES
        slot = _slot(group)
        waiting = self._waiting_of[slot]
        if waiting.bytes and waiting.bytes + size > waiting.most:
            answered(ShardUnavailable(self.owner(group) or "all", f"{waiting.bytes} bytes wait already"))
            return
        deadline = time.monotonic() + self._settings.publish_seconds
        publish = _Publish(next(self._numbers), group, slot, f"{session} {id}", body, deadline, answered, waiting)
        waiting.bytes += size
        if group in self._held or slot in self._changing:
            self._held.setdefault(group, []).append(publish)
        else:
            self._send(publish)

    def _send(self, publish: _Publish) -> None:
        if self.table is None:
            self._hold(publish)
            return
        group, slot = publish.group, publish.slot
        owner = self._owners[slot]
        self._under_way[slot] += 1
        owner.run(
            PUBLISH,
            partial(self._published, publish, owner),
            _publish_keys(group),
            (slot, self.table.since[slot], publish.mark, publish.body, _new_epoch(), group, *self._limits),
        )

    def _published(self, publish: _Publish, owner: ShardConnection, reply: Reply) -> None:
        slot = publish.slot
        self._under_way[slot] -= 1
        self._take_answer(publish, owner, reply)
        if slot in self._changing and not self._under_way[slot]:
            self._changing.discard(slot)
            self._send_held()

    def _take_answer(self, publish: _Publish, owner: ShardConnection, reply: Reply) -> None:
        slot = publish.slot
        found = reply if isinstance(reply, Exception) else _place_in(reply)
        if isinstance(found, Exception):
            owner.refused(found)
            self._hold(publish, found)
        elif found is None:
            self._fenced(slot, reply[1])
            self._hold(publish, reply)
            if self._has_moved(slot, reply[1]):
                self._send_held()
        else:
            publish.waiting.bytes -= len(publish.body) + _BESIDE_BODY_BYTES
            publish.answered(found)
            if self._tried and self._tried.get(publish.group) is publish:
                self._release(publish.group)

    def _has_moved(self, slot: int, found: int) -> bool:
        """Tell whether a slot that was met closed has an owner by now, who was learned of before the answer came."""
        return self.table is not None and found < 0 and -found <= self.table.since[slot]

    def _fenced(self, slot: int, found: int) -> None:
        """Find out who owns a slot now; where a shard knows nothing of its slots, it has lost its data: tell it."""
        self._refresh()
        if found == 0 and self.table is not None:
            self._open_fences(self._owners[slot])

    def _hold(self, publish: _Publish, reply: Reply = None) -> None:
        """Keep a publish that was sent back, in its place before all later ones of its group."""
        if self._tried.get(publish.group) is publish:
            del self._tried[publish.group]
        publish.reply = reply
        insort(self._held.setdefault(publish.group, []), publish, key=attrgetter("number"))
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._send_held)

    def _send_held(self) -> None:
        """Try the first publish that waits in each group; those behind it follow once that one is acked.

        Not where others are still under way to the slot's last owner: they come before.
        """
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for group in self._held.keys() - self._tried.keys():
            if _slot(group) in self._changing:
                continue
            held = self._held[group]
            self._drop_overdue(held)
            if held:
                self._tried[group] = held.pop(0)
                self._send(self._tried[group])
            else:
                del self._held[group]

    def _drop_overdue(self, held: list[_Publish]) -> None:
        overdue = bisect_left(held, time.monotonic(), key=attrgetter("deadline"))
        for publish in held[:overdue]:
            publish.waiting.bytes -= len(publish.body) + _BESIDE_BODY_BYTES
            why = publish.reply or f"no slot table is known: {self.no_table}"
            publish.answered(ShardUnavailable(self.owner(publish.group) or "unknown", str(why)))
        del held[:overdue]

    def _release(self, group: str) -> None:
        """Send all that waits in a group, in order: its shard takes publishes again."""
        del self._tried[group]
        for publish in self._held.pop(group):
            self._send(publish)

    # Reading and subscribing

    def read(
        self,
        group: str,
        after: int,
        most: int,
        answered: Callable[[Page | None], None],
        most_bytes: int = PAGE_BYTES,
    ) -> None:
        """Read a range of a group's log.

        Args:
            group: a valid name.
            after: the offset after which to read; below 0: the last messages, so many.
            most: how many messages to give at most.
            answered: gets the page, or None where the shard can't be asked now: try again once it is up, or when
                the owners have changed. Where one more message would be too many, or too much, it ends before the
                head; one of the last messages begins later.
            most_bytes: what their bodies may take; one message is always given.
        """
        if self.table is None:
            answered(None)
            return

        def page(reply: Reply) -> None:
            found = reply if isinstance(reply, Exception) else _page_in(reply)
            if isinstance(found, Exception):
                owner.refused(found)
                answered(None)
            elif found is None:
                self._fenced(slot, reply[1])
                answered(None)
            else:
                answered(found)

        slot = _slot(group)
        owner = self._owners[slot]
        owner.run(
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
                most_bytes,
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
            self._owners[slot].command(answered, name, f"{kind}:{slot}:{group}", *args)

    def subscribe(self, shard: str, groups: list[str]) -> None:
        """Have the groups' messages pushed by `shard`, from the next command on."""
        for some in _batches(groups):
            self._connections[shard].subscribe(some)

    def unsubscribe(self, shard: str, groups: list[str]) -> None:
        """Have the groups' messages pushed no more."""
        if shard in self._connections:
            for some in _batches(groups):
                self._connections[shard].unsubscribe(some)

    def announce(self, channel: str, groups: Collection[str]) -> None:
        """Say something of groups to whoever listens to `channel` on their shards: a message a shard, not a group."""
        shards: dict[str, list[str]] = {}
        for group in groups:
            shards.setdefault(self.owner(group) or "", []).append(group)
        for shard, named in shards.items():
            if shard in self._connections:
                for some in _batches(named):
                    self._connections[shard].command(_ignore, "PUBLISH", channel, " ".join(some))

    def listen(self, channel: str, heard: Callable[[bytes], None]) -> None:
        """Have `heard` called with what is announced on `channel`, whose name starts with ``!``, on any shard."""
        self._channels[channel] = heard
        for connection in self._connections.values():
            connection.subscribe([channel])

    # What the connections call

    def shard_up(self, connection: ShardConnection) -> None:
        """See `shards.log.shard.Listener`."""
        if self._connections.get(connection.shard.name) is not connection:
            return
        self._open_fences(connection)
        connection.subscribe(list(self._channels))
        self._listener.shard_up(connection.shard.name)
        self._send_held()

    def shard_down(self, connection: ShardConnection) -> None:
        """See `shards.log.shard.Listener`."""
        if self._connections.get(connection.shard.name) is not connection:
            return
        self.losses += 1
        self._listener.shard_down(connection.shard.name)

    def pushed(self, connection: ShardConnection, channel: bytes, payload: bytes) -> None:
        """See `shards.log.shard.Listener`."""
        try:
            if channel[0] == NO_GROUP:
                self._announced(channel.decode(), payload)
                return
            comma = payload.index(b",")
            epoch, offset, at_ms = payload[:comma].split(b":")
            entry = Entry(int(offset), int(at_ms), payload[comma:])
            group, said = channel.decode(), epoch.decode()
        except (LookupError, ValueError, msgspec.MsgspecError) as error:
            # Whoever may publish on that server may say anything. Of what was ours, the next message shows the hole.
            logger.warning("shard %s: what was published on %r is not ours: %s", connection.shard.name, channel, error)
            return
        self._listener.log_pushed(connection.shard.name, group, said, entry)

    def _announced(self, channel: str, payload: bytes) -> None:
        if channel == ANNOUNCEMENTS:
            self._use_announced(payload)
        elif channel in self._channels:
            self._channels[channel](payload)

    def _use_announced(self, payload: bytes) -> None:
        """Take a slot table up that every shard tells of, before it is found in the control Redis.

        Another fleet's is left alone: what is announced in one database of a server is heard in all of them.
        """
        version, _, data = payload.partition(b" ")
        if self.table is None or int(version) <= self.table.version:
            return
        table = SlotTable.decode(data)
        if table.fleet == self.table.fleet:
            self.use(table)

    def _open_fences(self, connection: ShardConnection) -> None:
        """Have a shard take publishes for its slots, if it is new or has lost its data; moves keep theirs closed."""
        if self.table is None:
            return
        pairs = [
            number for slot in self.table.slots_of(connection.shard.name) for number in (slot, self.table.since[slot])
        ]
        if pairs:
            connection.run(FENCE, lambda _: None, ("fence",), pairs)


def _place_in(reply: Reply) -> Place | Nonsense | None:
    """Read the answer to a publish; None: a closed fence, which the second item tells of."""
    match reply:
        case [int(offset), bytes(epoch)] if offset > 0 and epoch.isascii():
            return Place(epoch.decode(), offset)
        case [-1, int()]:
            return None
    return Nonsense(f"no answer to a publish: {reply!r:.100}")


def _page_in(reply: Reply) -> Page | Nonsense | None:
    """Read the answer to a read; None: a closed fence, which the second item tells of."""
    match reply:
        case [int(head), bytes(epoch), list(entries)] if head >= 0:
            try:
                return Page(epoch.decode(), head, [Entry(*entry) for entry in entries])
            except (TypeError, ValueError):
                pass
        case [-1, int()]:
            return None
    return Nonsense(f"no answer to a read: {reply!r:.100}")


def _settle(done: asyncio.Future[Place], answer: Place | ShardUnavailable) -> None:
    if done.done():
        return
    if isinstance(answer, Place):
        done.set_result(answer)
    else:
        done.set_exception(answer)


def _ignore(_reply: Reply) -> None:
    """Nobody waits for this reply."""


def _new_epoch() -> str:
    return f"{random.getrandbits(48):012x}"


def _batches(names: list[str], size: int = 500) -> list[list[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]

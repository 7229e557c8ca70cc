"""One process's members: one subscription a group, one frame a message, many writes.

A topic follows one group's log for all of its local members. It is *live* while its place is that of the last
message pushed; whatever may break that (a hole in the offsets, a lost connection, a new owner) makes it read
the log from its place on, and what is pushed meanwhile is left alone: the read's answer and the pushes come on one
ordered stream, so after the answer that reaches the head, the next push is the next message. Subscribing and
resuming are the same read. Nothing is lost between them and nothing comes twice.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from shards.aio import Patience
from shards.log.log import PAGE_BYTES, Entry, GroupLog, Page, Place
from shards.reads import Answered, Reads

logger = logging.getLogger(__name__)

PAGE = 200
"""Messages read from a log at a time, as far as `PAGE_BYTES` go."""

PATIENCE_SECONDS = 5.0
"""How long a member that is `in_time` waits for its group's log to answer."""

REWIND = 1000
"""How far back the hub looks for where a log parts from what was heard of it."""

_TRY_AGAIN_SECONDS = 0.1
_DRAIN_SECONDS = 0.05
_HEAD_BYTES = 64 << 10
"""What the answer to a read of the last message alone takes, by default at most."""

_NOWHERE = Place("", 0)
"""The place of one who has lost it: no log has this epoch."""


class Message:
    """A message on its way to many members.

    Attributes:
        group: where it was published.
        entry: its offset, time and body.
        frame: the message as a WebSocket frame, made once, however many members get it.
    """

    __slots__ = ("entry", "frame", "group")

    def __init__(self, group: str, entry: Entry) -> None:
        self.group = group
        self.entry = entry
        self.frame = text_frame(
            b'{"type":"message","group":"%b","offset":%d%b' % (group.encode(), entry.offset, entry.body)
        )


def text_frame(payload: bytes) -> bytes:
    """Frame `payload` as a server sends text: one unmasked frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + bytes((size,)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


class Member(Protocol):
    """Someone who is in groups. None of these calls may block, raise, join or leave."""

    @property
    def public_id(self) -> str | None:
        """What others may know it by; None: it does not count as present."""

    def has_room(self, size: int) -> bool:
        """Tell whether it can take `size` bytes more of what it missed; who has taken all so far can always."""

    def on_subscribed(self, group: str, place: Place, recovered: bool) -> None:
        """Hear that messages after `place` follow."""

    def on_message(self, message: Message) -> None:
        """Hear a message: the next one after the last, or after the last gap."""

    def on_gap(self, group: str, place: Place) -> None:
        """Hear that messages up to `place` are gone."""

    def on_unavailable(self, group: str) -> None:
        """Hear, where it joined `in_time`, that it is no member after all: the group's log did not answer."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Joining:
    """A member that is not live yet: it wants what came after `since`, or what comes from now on.

    Attributes:
        welcomed: it was told that it is subscribed.
        reading: a read for it is under way, or waits.
        over: it is live, or has left.
    """

    group: str
    member: Member
    since: Place | None
    welcomed: bool = False
    reading: bool = False
    over: bool = False


@dataclass(slots=True, eq=False)
class _Topic:
    """A group here.

    Attributes:
        group: its name.
        shard: who owns it.
        place: that of the last message heard; None: nothing is known yet.
        last_ms: when that message was published; None: unknown.
        unsure: the shard was away since. It may have come back without the end of the log: what it had sent out
            but, being killed, not written (docs/decisions/0005-written-before-acked.md).
        live: what is pushed next is the next message.
        reading: an answer is on its way.
        turn: how often it began to follow a shard: answers to earlier turns' reads are void.
        members: those who hear every message.
        joining: those who don't yet.
    """

    group: str
    shard: str
    place: Place | None = None
    last_ms: int | None = None
    unsure: bool = False
    live: bool = False
    reading: bool = False
    turn: int = 0
    members: dict[Member, None] = field(default_factory=dict)
    joining: deque[_Joining] = field(default_factory=deque)


class Hub:
    """The groups that this process has members of.

    Args:
        observe_delivery: told of each message: how many members it went to, and its shard's time, in ms; None where it
            is an old one that a member had missed.
        observe_gap: told of each gap that members had to be told.
    """

    log: GroupLog

    def __init__(
        self,
        observe_delivery: Callable[[int, int | None], None] = lambda _members, _at_ms: None,
        observe_gap: Callable[[int], None] = lambda _members: None,
    ) -> None:
        self._observe_delivery = observe_delivery
        self._observe_gap = observe_gap
        self._topics: dict[str, _Topic] = {}
        self._fresh: list[_Topic] = []
        self._left: list[tuple[str, str]] = []
        self._flush_scheduled = False
        self._retries: set[_Topic] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._ups: set[str] = set()
        self._reads: defaultdict[str, Reads] = defaultdict(Reads)
        self._patience = Patience(PATIENCE_SECONDS, self._give_up)
        self._changed: set[str] = set()

    def present(self, group: str) -> list[str]:
        """Give the public ids of the members of a group that are here."""
        topic = self._topics.get(group)
        if topic is None:
            return []
        members = [*topic.members, *(joining.member for joining in topic.joining)]
        return [member.public_id for member in members if member.public_id is not None]

    def follows(self, group: str) -> bool:
        """Tell whether a group has members here, those who don't count as present among them."""
        return group in self._topics

    def take_changed(self, everything: bool = False) -> set[str]:
        """Give the groups whose members, or whose owner's memory of them, changed since the last call.

        Args:
            everything: give all groups that have members here, too.
        """
        changed, self._changed = self._changed, set()
        return changed | set(self._topics) if everything else changed

    def join(
        self, group: str, member: Member, since: Place | None = None, told: bool = False, in_time: bool = False
    ) -> None:
        """Make `member` a member of `group`; its `on_subscribed` is called before its first message.

        Args:
            group: a valid name.
            member: not in the group yet.
            since: where it was before, to go on from there.
            told: its `on_subscribed` was called already, where it was before; it goes on in silence.
            in_time: take it out again, and call its `on_unavailable`, where the group's log has not answered after
                `PATIENCE_SECONDS`; else it waits for as long as it takes.
        """
        self._changed.add(group)
        topic = self._topics.get(group)
        if topic is None:
            topic = self._topics[group] = _Topic(group, self.log.owner(group) or "")
            self._fresh.append(topic)
            self._schedule_flush()
        joining = _Joining(group, member, since, told)
        if topic.live and self._admit_at_once(topic, joining):
            return
        topic.joining.append(joining)
        if in_time:
            # Who leaves meanwhile is forgotten at once.
            self._patience.wait_for(weakref.ref(joining))
        if topic.live:
            self._read_for(topic, joining)

    def leave(self, group: str, member: Member) -> None:
        """Take `member` out of `group`; it hears of it no more. Nothing happens where it was not in it."""
        topic = self._topics.get(group)
        if topic is None:
            return
        self._changed.add(group)
        topic.members.pop(member, None)
        for joining in [j for j in topic.joining if j.member is member]:
            joining.over = True
            topic.joining.remove(joining)
        self._drop_if_empty(topic)

    def _give_up(self, waiting: weakref.ref[_Joining]) -> None:
        """Take out who was not told anything yet, since its log does not answer; in a live topic its turn comes."""
        joining = waiting()
        topic = self._topics.get(joining.group) if joining else None
        if joining is None or joining.over or joining.welcomed or topic is None:
            return
        if topic.live:
            self._patience.wait_for(waiting)
            return
        joining.over = True
        topic.joining.remove(joining)
        self._changed.add(topic.group)
        self._drop_if_empty(topic)
        tell(joining.member.on_unavailable, topic.group)

    def _drop_if_empty(self, topic: _Topic) -> None:
        if not topic.members and not topic.joining:
            del self._topics[topic.group]
            self._left.append((topic.shard, topic.group))
            self._schedule_flush()

    def knows_place(self, group: str) -> bool:
        """Tell whether what was heard of a group is known to be in its log: not while its shard is away."""
        topic = self._topics.get(group)
        return topic is None or not topic.unsure

    def part(self, group: str, member: Member) -> tuple[Place | None, bool]:
        """Take `member` out of `group`, to join elsewhere from where it was.

        Returns:
            What to give to the other hub's `join`: `since` and `told`.
        """
        topic = self._topics.get(group)
        since, told = None, False
        if topic is not None and member in topic.members:
            since, told = topic.place, True
        elif topic is not None:
            since, told = next(((j.since, j.welcomed) for j in topic.joining if j.member is member), (None, False))
        self.leave(group, member)
        return since, told

    # Subscribing, in batches: one turn of the event loop, one command a shard

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        left, self._left = self._left, []
        fresh, self._fresh = self._fresh, []
        gone = [(s, g) for s, g in left if g not in self._topics or self._topics[g].shard != s]
        for shard, groups in _by_shard(gone).items():
            self.log.unsubscribe(shard, groups)
        self._follow([topic for topic in fresh if self._topics.get(topic.group) is topic])

    def _follow(self, topics: list[_Topic]) -> None:
        """Subscribe the topics whose shard is up, and read what they have missed."""
        ready = [topic for topic in topics if topic.shard in self._ups]
        for shard, groups in _by_shard([(topic.shard, topic.group) for topic in ready]).items():
            self.log.subscribe(shard, groups)
        for topic in ready:
            self._changed.add(topic.group)
            topic.turn += 1
            topic.reading = False
            for joining in topic.joining:
                joining.reading = False
            self._catch_up(topic)

    # Following a log

    def _catch_up(self, topic: _Topic) -> None:
        """Read the log from the topic's place on, until its head is reached."""
        topic.live = False
        if topic.reading:
            return
        if topic.place is None:
            self._read_topic(topic, -1, 1, self._caught_up)
        else:
            # To make sure, the message at its own place is asked for again.
            self._read_topic(topic, max(0, topic.place.offset - topic.unsure), PAGE, self._caught_up)

    def _read_topic(
        self, topic: _Topic, after: int, most: int, answered: Callable[[_Topic, Page | None], None]
    ) -> None:
        """Read a range of the topic's log, in its turn; `answered` is called unless the topic begins anew meanwhile."""
        topic.reading = True
        turn = topic.turn

        def wanted() -> bool:
            return self._topics.get(topic.group) is topic and turn == topic.turn

        def answer(page: Page | None) -> None:
            if wanted():
                topic.reading = False
                answered(topic, page)

        self._line_up_read(topic, after, most, wanted, answer, for_all=True)

    def _line_up_read(
        self,
        topic: _Topic,
        after: int,
        most: int,
        wanted: Callable[[], bool],
        answered: Callable[[Page | None], None],
        for_all: bool = False,
    ) -> None:
        def send(here: Answered) -> None:
            def answer(page: Page | None) -> None:
                here()
                answered(page)

            self.log.read(topic.group, after, most, answer)

        size = PAGE_BYTES if most > 1 else _HEAD_BYTES
        self._reads[topic.shard].line_up(size, wanted, send, for_all)

    def _caught_up(self, topic: _Topic, page: Page | None) -> None:
        if page is None:
            self._try_again(topic)
            return
        if topic.place is None:
            topic.place = Place(page.epoch, page.head)
            topic.last_ms = page.entries[-1].at_ms if page.entries else None
        elif _has_parted(topic, page):
            self._find_fork(topic, max(0, topic.place.offset - REWIND))
            return
        else:
            self._take(topic, topic.place, page)
        if topic.place != Place(page.epoch, page.head):
            self._catch_up(topic)
        else:
            self._go_live(topic)

    def _take(self, topic: _Topic, place: Place, page: Page) -> None:
        """Deliver what a page has after the topic's place."""
        topic.unsure = False
        if page.epoch != place.epoch:
            # All of a new log is news; but what this page holds was asked for by the old one's offset.
            self._skip(topic, Place(page.epoch, 0))
            return
        new = [entry for entry in page.entries if entry.offset > place.offset]
        for entry in new:
            self._advance(topic, page.epoch, entry)
        if page.head < place.offset or (not page.entries and place.offset < page.head):
            self._skip(topic, Place(page.epoch, page.head))

    def _go_live(self, topic: _Topic) -> None:
        topic.live = True
        for joining in list(topic.joining):
            if self._admit_at_once(topic, joining):
                topic.joining.remove(joining)
            else:
                self._read_for(topic, joining)

    def _advance(self, topic: _Topic, epoch: str, entry: Entry) -> None:
        """Deliver the entry to every member, after a gap if there is one before it."""
        assert topic.place is not None
        if entry.offset > topic.place.offset + 1:
            self._skip(topic, Place(epoch, entry.offset - 1))
        self._deliver(topic, epoch, entry)

    def _deliver(self, topic: _Topic, epoch: str, entry: Entry) -> None:
        topic.place = Place(epoch, entry.offset)
        topic.last_ms = entry.at_ms
        message = Message(topic.group, entry)
        for member in topic.members:
            try:
                member.on_message(message)
            except Exception:
                self._missed(member, topic.group, topic.place)
        self._observe_delivery(len(topic.members), entry.at_ms)

    def _missed(self, member: Member, group: str, place: Place) -> None:
        """Tell a member of a gap that has failed to take a message, up to `place`; the others have it."""
        logger.exception("a member of group %s has failed to take a message", group)
        self._observe_gap(1)
        tell(member.on_gap, group, place)

    def _skip(self, topic: _Topic, place: Place) -> None:
        topic.place, topic.last_ms, topic.unsure = place, None, False
        self._observe_gap(len(topic.members))
        for member in list(topic.members):
            tell(member.on_gap, topic.group, place)

    def _find_fork(self, topic: _Topic, after: int) -> None:
        """Look for the last message that the log and this topic have in common, and go on from there, after a gap."""
        self._read_topic(topic, after, PAGE, partial(self._found_fork, after))

    def _found_fork(self, after: int, topic: _Topic, page: Page | None) -> None:
        assert topic.place is not None
        if page is None:
            self._try_again(topic)
            return
        # What the log has taken in since the shard came back is younger than all that was heard before.
        heard = [e.offset for e in page.entries if e.offset <= topic.place.offset and e.at_ms <= (topic.last_ms or 0)]
        fork = heard[-1] if heard else min(after, page.head)
        if heard and fork == page.entries[-1].offset < min(topic.place.offset, page.head):
            self._find_fork(topic, fork)
            return
        self._skip(topic, Place(page.epoch, fork))
        self._catch_up(topic)

    def _try_again(self, topic: _Topic) -> None:
        """Read again a little later; a shard that is down calls for it itself when it is up."""
        self._retries.add(topic)
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(_TRY_AGAIN_SECONDS, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        retries, self._retries = self._retries, set()
        for topic in retries:
            if self._topics.get(topic.group) is topic and topic.shard in self._ups and not topic.live:
                self._catch_up(topic)

    # Members that come

    def _admit_at_once(self, topic: _Topic, joining: _Joining) -> bool:
        """Let a member in, if it needs nothing from the log; the topic is live."""
        assert topic.place is not None
        since, place = joining.since, topic.place
        lost = since is not None and since.epoch != place.epoch
        if since is not None and not lost and since.offset != place.offset:
            # Or it is ahead: another worker has heard what is still on its way here. The log tells.
            return False
        if not joining.welcomed:
            tell(joining.member.on_subscribed, topic.group, place, since is not None and not lost)
        if lost:
            self._observe_gap(1)
            tell(joining.member.on_gap, topic.group, place)
        topic.members[joining.member] = None
        joining.over = True
        return True

    def _read_for(self, topic: _Topic, joining: _Joining) -> None:
        """Read what a member has missed; it becomes live with the page that reaches the head."""
        if not joining.reading:
            joining.reading = True
            self._line_up(topic, topic.turn, joining)

    def _line_up(self, topic: _Topic, turn: int, joining: _Joining) -> None:
        """Have a member's next page read once it has room for it."""
        if not self._resumes(topic, turn, joining):
            return
        if not joining.member.has_room(PAGE_BYTES):
            asyncio.get_running_loop().call_later(_DRAIN_SECONDS, self._line_up, topic, turn, joining)
            return
        since = joining.since
        assert since is not None
        self._line_up_read(
            topic,
            since.offset,
            PAGE,
            lambda: self._resumes(topic, turn, joining),
            lambda page: self._read(topic, turn, joining, since, page),
        )

    def _resumes(self, topic: _Topic, turn: int, joining: _Joining) -> bool:
        """Tell whether a member still wants to be read for; where its topic is behind, that will ask again."""
        if joining.over or self._topics.get(topic.group) is not topic or turn != topic.turn:
            return False
        joining.reading = topic.live
        return topic.live

    def _read(self, topic: _Topic, turn: int, joining: _Joining, since: Place, page: Page | None) -> None:
        if joining.over or self._topics.get(topic.group) is not topic or turn != topic.turn:
            return
        joining.reading = False
        if page is None or (topic.place is not None and page.epoch != topic.place.epoch):
            # The shard is gone, another owns the group, or the log is a new one and the topic has not heard of it
            # yet: all start over from their places.
            self._catch_up(topic)
            return
        self._deliver_missed(joining, since, page)
        if topic.live and self._admit_at_once(topic, joining):
            topic.joining.remove(joining)
        elif topic.live and _is_ahead(topic, joining):
            self._catch_up(topic)
        elif topic.live:
            self._read_for(topic, joining)

    def _deliver_missed(self, joining: _Joining, since: Place, page: Page) -> None:
        """Give a member of a page of what it missed as much as it has room for; the rest is read again.

        Where the page does not go on from its place, there is a gap. One that was not told `recovered` yet then has
        lost its place and begins at the head, as the protocol has it, though later messages may be there still.
        """
        if page.epoch == since.epoch and page.head == since.offset:
            return
        follows_on = page.entries and page.entries[0].offset == since.offset + 1
        if page.epoch != since.epoch or not page.entries or not (follows_on or joining.welcomed):
            joining.since = _NOWHERE
            return
        if not joining.welcomed:
            joining.welcomed = True
            tell(joining.member.on_subscribed, joining.group, since, True)
        if not follows_on:
            joining.since = Place(page.epoch, page.entries[0].offset - 1)
            self._observe_gap(1)
            tell(joining.member.on_gap, joining.group, joining.since)
        for entry in page.entries:
            if not joining.member.has_room(len(entry.body)):
                break
            joining.since = Place(page.epoch, entry.offset)
            try:
                joining.member.on_message(Message(joining.group, entry))
            except Exception:
                self._missed(joining.member, joining.group, joining.since)
            self._observe_delivery(1, None)

    # What the log calls

    def log_pushed(self, shard: str, group: str, epoch: str, entry: Entry) -> None:
        """See `shards.log.log.LogListener`."""
        topic = self._topics.get(group)
        if topic is None or not topic.live or topic.shard != shard or (place := topic.place) is None:
            return
        if epoch == place.epoch and entry.offset == place.offset + 1:
            self._deliver(topic, epoch, entry)
        elif epoch != place.epoch or entry.offset > place.offset:
            self._catch_up(topic)

    def shard_up(self, shard: str) -> None:
        """See `shards.log.log.LogListener`."""
        self._ups.add(shard)
        self._follow([topic for topic in self._topics.values() if topic.shard == shard])

    def shard_down(self, shard: str) -> None:
        """See `shards.log.log.LogListener`."""
        self._ups.discard(shard)
        for topic in self._topics.values():
            if topic.shard == shard:
                topic.live = False
                topic.unsure = topic.last_ms is not None

    def owners_changed(self) -> None:
        """See `shards.log.log.LogListener`."""
        moved: list[tuple[_Topic, str]] = []
        for topic in self._topics.values():
            owner = self.log.owner(topic.group) or ""
            if owner != topic.shard:
                moved.append((topic, topic.shard))
                topic.shard, topic.live = owner, False
        for shard, groups in _by_shard([(old, topic.group) for topic, old in moved if old]).items():
            self.log.unsubscribe(shard, groups)
        self._follow([topic for topic, _ in moved])


def _has_parted(topic: _Topic, page: Page) -> bool:
    """Tell whether the log has, or may have had, another message at the topic's place than the one that was heard."""
    if not topic.unsure or topic.place is None or page.epoch != topic.place.epoch:
        return False
    if page.head < topic.place.offset:
        return True
    if not page.entries:
        return False
    first = page.entries[0]
    # Where it is not there to be compared any more, it may have been another one.
    return first.offset > topic.place.offset or (first.offset == topic.place.offset and first.at_ms != topic.last_ms)


def _is_ahead(topic: _Topic, joining: _Joining) -> bool:
    """Tell whether a member has heard more of the same log than its topic here."""
    since, place = joining.since, topic.place
    return since is not None and place is not None and since.epoch == place.epoch and since.offset > place.offset


def _by_shard(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    shards: dict[str, list[str]] = {}
    for shard, group in pairs:
        shards.setdefault(shard, []).append(group)
    return shards


def tell(told: Callable[..., None], *what: object) -> None:
    """Tell a member something; one that fails is nobody else's trouble."""
    try:
        told(*what)
    except Exception:
        logger.exception("a member of a group has failed")

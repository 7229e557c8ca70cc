"""The hub against a log whose every answer, push and fault comes when the test says so.

The log here keeps what the real one promises: everything said to and heard from a shard is in one order. Simulated is
only when things happen, since that is where the faults would be; `test_hub.py` has the same over real servers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from shards import hub as hub_module
from shards.hub import Hub, Message
from shards.log.log import Entry, Page, Place
from shards.reads import MOST_BYTES

GROUP = "room"
SHARDS = ("a", "b")


class SimulatedLog:
    """A group's log, and the ordered streams between its shards and one hub."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.hub.log = self  # type: ignore[assignment]
        self.epochs = 1
        self.entries: list[Entry] = []
        self.trimmed_to = 0
        self.cuts: list[int] = []
        self.fit = 9
        self.clock = 0
        self.owned_by = "a"
        self.written = 0
        self.believed = "a"
        self.up = dict.fromkeys(SHARDS, False)
        self.subscribed: dict[str, set[str]] = {name: set() for name in SHARDS}
        self.commands: dict[str, deque[Callable[[], None]]] = {name: deque() for name in SHARDS}
        self.heard: dict[str, deque[Callable[[], None]]] = {name: deque() for name in SHARDS}
        self.waiting: dict[str, list[Callable[[Page | None], None]]] = {name: [] for name in SHARDS}

    @property
    def epoch(self) -> str:
        return f"e{self.epochs}"

    # What the hub calls

    def owner(self, group: str) -> str:
        return self.believed

    def subscribe(self, shard: str, groups: list[str]) -> None:
        self.commands[shard].append(lambda: self.subscribed[shard].update(groups))

    def unsubscribe(self, shard: str, groups: list[str]) -> None:
        self.commands[shard].append(lambda: self.subscribed[shard].difference_update(groups))

    def read(self, group: str, after: int, most: int, answered: Callable[[Page | None], None]) -> None:
        assert most <= hub_module.PAGE
        shard = self.believed
        if not self.up[shard]:
            answered(None)
            return
        self.waiting[shard].append(answered)
        self.commands[shard].append(lambda: self._carry_out(shard, after, most, answered))

    def _carry_out(self, shard: str, after: int, most: int, answered: Callable[[Page | None], None]) -> None:
        page = None
        if shard == self.owned_by:
            head = len(self.entries)
            after = max(0, head + after) if after < 0 else after
            page = Page(self.epoch, head, self.entries[max(after, self.trimmed_to) :][: min(most, self.fit)])
        self.heard[shard].append(lambda: self._answer(shard, answered, page))

    def _answer(self, shard: str, answered: Callable[[Page | None], None], page: Page | None) -> None:
        self.waiting[shard].remove(answered)
        answered(page)

    # What happens

    def publish(self) -> None:
        self.clock += 1
        entry = Entry(len(self.entries) + 1, self.clock, b"%d" % self.clock)
        self.entries.append(entry)
        if GROUP in self.subscribed[self.owned_by]:
            shard, epoch = self.owned_by, self.epoch
            self.heard[shard].append(lambda: self.hub.log_pushed(shard, GROUP, epoch, entry))

    def go_down(self, shard: str) -> None:
        """The connection is lost, with all that was on its way."""
        self.up[shard] = False
        self.commands[shard].clear()
        self.heard[shard].clear()
        self.subscribed[shard].clear()
        waiting, self.waiting[shard] = self.waiting[shard], []
        self.hub.shard_down(shard)
        for answered in waiting:
            answered(None)

    def come_up(self, shard: str) -> None:
        self.up[shard] = True
        self.hub.shard_up(shard)


class Watcher:
    """A member that checks what it hears against the log."""

    public_id = "watcher"

    def __init__(self, log: SimulatedLog, since: Place | None) -> None:
        self.log = log
        self.since = since
        self.unrecovered: Place | None = None
        self.cuts = len(log.cuts)
        if since and since.offset > len(log.entries):
            # It comes from a future of which this log knows nothing.
            log.cuts.append(len(log.entries))
        self.place: Place | None = None
        self.recovered = False
        self.left = False
        self.room = True
        self.heard: dict[int, Entry] = {}

    def has_room(self, size: int) -> bool:
        return self.room

    def on_subscribed(self, group: str, place: Place, recovered: bool) -> None:
        assert not self.left
        assert self.place is None, "told once"
        assert not recovered or place == self.since
        self.place, self.recovered = place, recovered
        self.unrecovered = None if recovered else self.since

    def on_message(self, message: Message) -> None:
        assert not self.left, "who left hears no more"
        assert self.place is not None, "subscribed comes first"
        assert message.entry.offset == self.place.offset + 1, f"{message.entry.offset} after {self.place}"
        self.place = Place(self.place.epoch, message.entry.offset)
        self.heard[message.entry.offset] = message.entry

    def on_gap(self, group: str, place: Place) -> None:
        assert not self.left
        assert self.place is not None, "subscribed comes first"
        assert self._is_due(place), f"a gap from {self.place} to {place}, and the log has all of it"
        same = place.epoch == self.place.epoch
        self.heard = {offset: entry for offset, entry in self.heard.items() if same and offset <= place.offset}
        self.place = place

    def _is_due(self, place: Place) -> bool:
        """Tell whether something can't be had, or may be another message than the one that was heard."""
        assert self.place is not None
        cuts, self.cuts = self.log.cuts[self.cuts :], len(self.log.cuts)
        if self.unrecovered is None and not cuts and place.epoch == self.place.epoch:
            assert place.offset <= self.log.trimmed_to, f"a gap to {place}, and the log has what is after it"
        # One that was not recovered is at the head at once; the gap is from where it came back to.
        before, self.unrecovered = self.unrecovered or self.place, None
        return (
            place.epoch != before.epoch
            # Where the last message it heard is not there to be compared, it may have been another one.
            or self.log.trimmed_to >= before.offset
            or any(keep < before.offset for keep in cuts)
        )

    def check(self, head: Place) -> None:
        """At rest: it is at the head, and what it believes to have heard of the log is what the log has."""
        assert self.place == head
        for offset, entry in self.heard.items():
            assert entry == self.log.entries[offset - 1], "another message has this offset: a gap was due"


class HubMachine(RuleBasedStateMachine):
    """Any order of what members, publishers, shards and moves do."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.log = self.inside(self.make)
        self.members: list[Watcher] = []
        self.join(None, False)
        self.settle()

    @staticmethod
    def make() -> SimulatedLog:
        log = SimulatedLog()
        for shard in SHARDS:
            log.come_up(shard)
        return log

    def inside(self, work: Callable[..., object], *args: object) -> object:
        """Do work in the event loop, and all that it has the loop do at once."""

        async def turn() -> object:
            result = work(*args)
            for _ in range(3):
                await asyncio.sleep(0)
            return result

        return self.loop.run_until_complete(turn())

    @rule(back=st.none() | st.integers(-3, 12), other_epoch=st.booleans())
    def join(self, back: int | None, other_epoch: bool) -> None:
        since = None
        if back is not None:
            epoch = "e0" if other_epoch and back > 8 else self.log.epoch
            since = Place(epoch, max(0, len(self.log.entries) - back))
        self.members.append(Watcher(self.log, since))
        self.inside(self.log.hub.join, GROUP, self.members[-1], since)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = self.members.pop(data.draw(st.integers(0, len(self.members) - 1)))
        self.inside(self.log.hub.leave, GROUP, member)
        member.left = True

    @precondition(lambda self: self.members)
    @rule(data=st.data(), room=st.booleans())
    def a_member_reads(self, data: st.DataObject, room: bool) -> None:
        """Or it does not, for now."""
        self.members[data.draw(st.integers(0, len(self.members) - 1))].room = room

    @rule(fit=st.integers(1, 9))
    def messages_have_another_size(self, fit: int) -> None:
        """So that fewer of them fit into a page."""
        self.log.fit = fit

    @rule(count=st.integers(1, 9))
    def publish(self, count: int) -> None:
        for _ in range(count):
            self.inside(self.log.publish)

    @rule(shard=st.sampled_from(SHARDS), count=st.integers(1, 4))
    def a_shard_carries_out(self, shard: str, count: int) -> None:
        for _ in range(min(count, len(self.log.commands[shard]))):
            self.inside(self.log.commands[shard].popleft())

    @rule(shard=st.sampled_from(SHARDS), count=st.integers(1, 4))
    def the_process_hears(self, shard: str, count: int) -> None:
        for _ in range(count):
            if self.log.heard[shard]:
                self.inside(self.log.heard[shard].popleft())

    @rule(steps=st.integers(1, 12))
    def time_goes_by(self, steps: int) -> None:
        """The shard that the process talks to carries out, and the process hears, one by one."""
        for _ in range(steps):
            self.a_shard_carries_out(self.log.believed, 1)
            self.the_process_hears(self.log.believed, 1)

    @rule(shard=st.sampled_from(SHARDS))
    def a_connection_is_lost(self, shard: str) -> None:
        if self.log.up[shard]:
            self.inside(self.log.go_down, shard)

    @rule(shard=st.sampled_from(SHARDS))
    def a_connection_is_made(self, shard: str) -> None:
        if not self.log.up[shard]:
            self.inside(self.log.come_up, shard)

    @rule()
    def the_slot_moves(self) -> None:
        self.log.owned_by = "b" if self.log.owned_by == "a" else "a"
        # A move is through when the new owner has written all of it.
        self.log.written = len(self.log.entries)

    @rule()
    def the_process_learns_of_the_move(self) -> None:
        if self.log.believed != self.log.owned_by:
            self.log.believed = self.log.owned_by
            self.inside(self.log.hub.owners_changed)

    @rule()
    def history_runs_out(self) -> None:
        self.log.trimmed_to = max(0, len(self.log.entries) - 2)

    @rule()
    def the_log_is_lost(self) -> None:
        """And every connection to its shard with it."""
        if self.log.up[self.log.owned_by]:
            self.inside(self.log.go_down, self.log.owned_by)
        self.log.epochs += 1
        self.log.entries, self.log.trimmed_to, self.log.written = [], 0, 0

    @precondition(lambda self: len(self.log.entries) > self.log.trimmed_to)
    @rule(count=st.integers(1, 3), then=st.integers(0, 5))
    def the_log_comes_back_without_its_end(self, count: int, then: int) -> None:
        """A shard killed after it sent messages out and before it wrote them; others may publish before we are back."""
        if self.log.up[self.log.owned_by]:
            self.inside(self.log.go_down, self.log.owned_by)
        keep = max(self.log.trimmed_to, self.log.written, len(self.log.entries) - count)
        self.log.entries = self.log.entries[:keep]
        self.log.cuts.append(keep)
        for _ in range(then):
            self.inside(self.log.publish)

    def settle(self) -> None:
        """Let everything come that is on its way."""
        for shard in SHARDS:
            self.a_connection_is_made(shard)
        self.the_process_learns_of_the_move()
        for member in self.members:
            member.room = True
        for _ in range(2000):
            if not any(self.log.commands[shard] or self.log.heard[shard] for shard in SHARDS):
                self.inside(self.log.hub._retry_now)
                if not any(self.log.commands[shard] for shard in SHARDS):
                    return
            for shard in SHARDS:
                self.a_shard_carries_out(shard, 99)
                self.the_process_hears(shard, 1)
        raise AssertionError("it never comes to rest")

    def teardown(self) -> None:
        try:
            self.settle()
            self.publish(3)
            self.settle()
            head = Place(self.log.epoch, len(self.log.entries))
            for member in self.members:
                member.check(head)
        finally:
            for member in self.members:
                self.inside(self.log.hub.leave, GROUP, member)
            if self.log.hub._retry is not None:
                self.log.hub._retry.cancel()
            self.loop.close()


class Aloud:
    """In the place of the hub's log: what a member finds wrong is an error here."""

    @staticmethod
    def exception(*_: object) -> None:
        raise  # noqa: PLE0704 (it is called where one is handled)


SMALL = {"logger": Aloud, "PAGE": 3, "REWIND": 5, "PAGE_BYTES": MOST_BYTES // 2, "_DRAIN_SECONDS": 0}
usual: dict[str, object] = {}


def setup_module() -> None:
    """Pages of three messages, so that their edges lie everywhere, two at a time, and no wait for who has no room."""
    for name, value in SMALL.items():
        usual[name] = getattr(hub_module, name)
        setattr(hub_module, name, value)


def teardown_module() -> None:
    for name, value in usual.items():
        setattr(hub_module, name, value)


HubMachine.TestCase.settings = settings(
    max_examples=400, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHub = HubMachine.TestCase


def test_a_log_that_is_new_where_only_its_joining_member_sees_it_is_one_gap_for_all() -> None:
    """The slot was away, its log was lost there, and it came back: nothing of it was seen but the new log."""
    machine = HubMachine()
    machine.publish(1)
    machine.join(0, False)
    machine.the_slot_moves()
    machine.the_log_is_lost()
    machine.the_slot_moves()
    machine.time_goes_by(2)
    machine.teardown()

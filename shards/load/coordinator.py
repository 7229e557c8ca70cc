"""Runs a load: starts the generator processes, leads them through it, and gathers what they report.

Phases: *connect* (paced), *load* (open-loop publishing, while events happen to the fleet), *settle* (what is under way
arrives). Every wait has a deadline, and Ctrl-C ends the phase, not the gathering: what was seen is still reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic_ns, time
from typing import Any, Literal, Protocol

import msgspec

from shards.aio import sleep_until
from shards.errors import ShardsError
from shards.load import wire
from shards.load.children import Child, OwnProcesses, Team
from shards.load.connection import CONNECT_SECONDS, ERROR_FRAME, PROTOCOL, RECONNECT_FAILED
from shards.load.faults import Faults
from shards.load.histogram import Histogram
from shards.load.ledger import ACCOUNTS, Account, Tally, worst
from shards.load.limits import check_part, check_ports
from shards.load.probe import HttpProbe
from shards.load.resources import Resources
from shards.load.scenarios import Event
from shards.load.schedule import Group, Shape, connects, even_groups, mixed_groups, shares
from shards.load.tls import Tls

LOAD_BEGINS = "load"
"""The event that is the first moment at which something is due to be published."""

_SECOND_NS = 1_000_000_000
_START_SECONDS = 30.0
_CONNECT_SLACK_SECONDS = 60.0
_GIVE_UP_SECONDS = 10.0
_STOP_AHEAD_NS = _SECOND_NS // 5
_AFTER_EVENTS_SECONDS = 3.0
_SILENT_SECONDS = 30.0
"""A process reports each second; one that says nothing for so long is given up."""


@dataclass(frozen=True)
class Load:
    """What to run.

    Attributes:
        url: the WebSocket base.
        connections: clients in all.
        duration_s: of the load phase; longer where `events` take longer.
        rate: messages delivered a second, to all clients together.
        group_size: members a group; ``mixed``: 1 to 1,000.
        connect_rate: connections a second.
        processes: generator processes.
        sockets_per_address: connections from one loopback source address; 0: always the system's choice.
        events: what happens to the fleet meanwhile.
        project: the fleet's name, for `inv`; None: the one that it takes for granted.
        seed: decides what is left to chance: mixed groups, and who is killed.
        lag_ms: how late the generator may be, in 99 of 100 cases, and still be trusted.
        probe_url: what to GET 20 times a second; None: nothing.
        dialect: what the server speaks, one of `dialects.DIALECTS`.
        looping: publish in a closed loop, whatever `rate` says: each group's one message goes round and round.
        settle_s: how long at most what is under way at the end may take to arrive.
        linger_s: how long to listen once all is there, for what comes a second time.
        shape: the course of the rate, stretched over `duration_s`; `rate` is then its mean. None: even.
        connect_shape: the course of connecting, in place of `connect_rate`.
        late_ms: a delivery is late when it comes more than this after it was due.
        tls: how to check a ``wss://`` server.
        connect_timeout_s: how long a connection may take to come about.
    """

    url: str
    connections: int
    duration_s: float
    rate: float
    group_size: int | Literal["mixed"] = 10
    connect_rate: float = 1000
    processes: int = 2
    sockets_per_address: int = 0
    events: tuple[Event, ...] = ()
    project: str | None = None
    seed: int = 0
    lag_ms: float = 10
    probe_url: str | None = None
    dialect: str = "shards"
    looping: bool = False
    settle_s: float = 15.0
    linger_s: float = 1.0
    shape: Shape | None = None
    connect_shape: Shape | None = None
    late_ms: float = 1000
    tls: Tls | None = None
    connect_timeout_s: float = CONNECT_SECONDS

    def groups(self) -> list[Group]:
        """Give the groups of its clients."""
        if self.group_size == "mixed":
            return mixed_groups(self.connections, self.rate, self.seed)
        return even_groups(self.connections, self.group_size, self.rate)

    def connects(self) -> Shape:
        """Give the course of connecting."""
        return connects(self.connections, self.connect_rate, self.connect_shape)

    @property
    def connect_s(self) -> float:
        """Seconds that connecting shall take."""
        return self.connections / (self.connect_shape.mean if self.connect_shape else self.connect_rate)


@dataclass
class Second:
    """One second of the timeline, of all processes.

    Attributes:
        back: clients that were subscribed again in it.
    """

    open: int = 0
    published: int = 0
    delivered: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    back: int = 0


@dataclass
class Outcome:
    """What was seen.

    Attributes:
        started: seconds since 1970.
        duration_s: from the first connect to the end of settling.
        load_s: how long was published.
        opened: connections that came about at the first try.
        open: clients with a socket at the end.
        connect_s: from the first connect to the last that opened.
        connecting: how long they took, each from when it was due.
        failures: first tries that failed, by reason.
        tally: the ledger's sums.
        publishers: clients that published something.
        amiss: clients with whom something went wrong.
        accounts: the books of the worst of them.
        latency: from due to received, all deliveries.
        naive: what a tool would have found that sends, waits for its own message and sends the next; see `Shared`.
        away: from losing a socket to being subscribed again, of all who came back.
        lost_in: the same by the tenth of a second of the timeline in which they lost it, as `histogram.steps` counts.
        lag: of the generator processes, in the load phase.
        cpu_percent: the highest of a generator process, mean over the load phase, of one core.
        connect_cpu_percent: the same of the time in which all should have been connected.
        processes: generator processes that took part.
        descriptors: files that one of them had open, at most, and how many it might.
        hosts: other hosts that took part: their processes, and how far their clock was ahead.
        during_exit: where there are events, 0 if all went well; -1: they were not over.
        problems: what went wrong with the run itself, for people.
        aborted: someone stopped it.
    """

    started: float = field(default_factory=time)
    duration_s: float = 0.0
    load_s: float = 0.0
    opened: int = 0
    open: int = 0
    connect_s: float = 0.0
    connecting: Histogram = field(default_factory=Histogram)
    failures: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    publishers: int = 0
    amiss: int = 0
    accounts: list[Account] = field(default_factory=list)
    latency: Histogram = field(default_factory=Histogram)
    naive: Histogram = field(default_factory=Histogram)
    away: Histogram = field(default_factory=Histogram)
    lost_in: dict[int, Counter[int]] = field(default_factory=dict)
    lag: Histogram = field(default_factory=Histogram)
    cpu_percent: float = 0.0
    connect_cpu_percent: float = 0.0
    processes: int = 0
    descriptors: tuple[int, int] = (0, 0)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    reconnects: int = 0
    closed_by_server: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    timeline: dict[int, Second] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    probe: HttpProbe | None = None
    during_exit: int | None = None
    problems: list[str] = field(default_factory=list)
    aborted: bool = False

    @property
    def protocol_errors(self) -> int:
        """Frames that the protocol does not know, and error frames; what was refused and tried again is none."""
        return sum(n for kind, n in self.errors.items() if kind == PROTOCOL or kind.startswith(ERROR_FRAME))

    @property
    def out_of_descriptors(self) -> bool:
        """Whether a generator process had no file left to open: what failed then says nothing of the server."""
        full = [os.strerror(number) for number in (errno.EMFILE, errno.ENFILE)]
        return any(self.failures[why] or self.errors[f"{RECONNECT_FAILED}{why}"] for why in full)


class Watch(Protocol):
    """Someone who looks on."""

    def phase(self, name: str) -> None:
        """A phase begins."""

    def second(self, number: int, second: Second) -> None:
        """A second is complete."""

    def event(self, text: str) -> None:
        """Something happened."""


async def _nothing() -> None:
    pass


class Coordinator:
    """One run.

    Args:
        load: what to run.
        resources: samples processes; the generator's own are added to it.
        watch: who looks on.
        look: called when the fleet may have changed, and before the sockets are closed, for whoever wants to see it.
        team: the generator processes; None: `load.processes` of its own.

    Attributes:
        outcome: what was seen so far.
        through: all is in the outcome: there is nothing left to stop.
    """

    def __init__(
        self,
        load: Load,
        resources: Resources,
        watch: Watch,
        look: Callable[[], Awaitable[None]] = _nothing,
        team: Team | None = None,
    ) -> None:
        self.load = load
        self.outcome = Outcome()
        self.through = False
        self._resources = resources
        self._watch = watch
        self._look = look
        self._team = team or OwnProcesses(len(shares(load.groups(), load.processes)))
        self._children: list[Child] = []
        self._pending: dict[int, dict[int, wire.Tick]] = {}
        self._first_ns = self._last_ns = 0
        self._start_ns = self._go_ns = self._stop_ns = 0

    async def run(self) -> Outcome:
        """Carry the load out; ends early, and says so in the outcome, when the task is cancelled.

        Cancelled while it settles, it still waits for what the processes report; cancelled again, for nothing more.

        Raises:
            ShardsError: the generator processes did not start.
        """
        async with self._processes(), self._background():
            try:
                await self._connect()
                if self.outcome.opened:
                    await self._publish()
            except asyncio.CancelledError:
                self._abort()
            await self._finish()
        return self.outcome

    def _abort(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        self.outcome.aborted = True
        self.event("aborted")

    def event(self, name: str, at_ns: int | None = None, **more: Any) -> None:
        """Note that something happened, at `at_ns` by the monotonic clock; None: now."""
        t = round(((at_ns or monotonic_ns()) - self._start_ns) / _SECOND_NS, 3)
        self.outcome.events.append({"t": t, "name": name, **more})
        self._watch.event(name)

    def _seconds(self) -> float:
        return (monotonic_ns() - self._start_ns) / _SECOND_NS

    @contextlib.asynccontextmanager
    async def _processes(self) -> AsyncIterator[None]:
        """Have the generator processes; at the end none is left."""
        readers = []
        async with self._team.assembled() as children:
            try:
                for child in children:
                    self._children.append(child)
                    if child.pid:
                        self._resources.add(f"generator-{child.number}", child.pid)
                    readers.append(asyncio.create_task(self._read(child)))
                await self._wait("hello", _START_SECONDS)
                self._dismiss_the_spare()
                await self._compare_clocks()
                yield
            finally:
                for reader in readers:
                    reader.cancel()
                await asyncio.gather(*readers, return_exceptions=True)

    def _dismiss_the_spare(self) -> None:
        """Send home who would have nothing to carry: no group is divided, and other hosts bring what they will."""
        needed = len(shares(self.load.groups(), len(self._children)))
        for child in self._children[needed:]:
            child.tell(wire.Bye())
            child.gone()
        self._children = self._children[:needed]

    async def _compare_clocks(self) -> None:
        try:
            for child in self._children:
                await child.compare_clocks()
        except TimeoutError:
            raise ShardsError(f"{child} does not answer: is its host reached, and idle?") from None
        self.outcome.processes = len(self._children)
        self.outcome.hosts = [
            {"process": child.number, "host": child.where}
            | {"clock_ahead_ms": child.clock.ahead_ns / 1e6, "clock_error_ms": (child.clock.error_ns or 0) / 1e6}
            for child in self._children
            if child.host
        ]

    @contextlib.asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        """Sample resources, and probe over HTTP, meanwhile."""
        self._start_ns = monotonic_ns() + _SECOND_NS // 5
        tasks = [asyncio.create_task(self._resources.sample_forever(self._seconds))]
        if self.load.probe_url:
            self.outcome.probe = HttpProbe(self.load.probe_url, self.load.tls)
            tasks.append(asyncio.create_task(self.outcome.probe.run_forever()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self) -> None:
        load = self.load
        self._watch.phase("connect")
        run = secrets.token_hex(4)
        for child, groups in zip(self._children, self._parts(), strict=True):
            child.tell(
                wire.Plan(
                    run=run,
                    url=load.url,
                    groups=groups,
                    connects=load.connects(),
                    sockets_per_address=load.sockets_per_address,
                    start_ns=self._start_ns,
                    dialect=load.dialect,
                    looping=load.looping,
                    rate=load.rate,
                    shape=load.shape.over(load.duration_s) if load.shape else None,
                    late_ns=int(load.late_ms * 1e6),
                    tls=load.tls,
                    connect_timeout_s=load.connect_timeout_s,
                )
            )
        if not await self._wait("connected", 2 * load.connect_s + _CONNECT_SLACK_SECONDS):
            await self._give_up()
        self.event("connected")
        await self._look()

    async def _give_up(self) -> None:
        """Go on with those that are connected: who is stuck shall not keep them from their load."""
        for child in self._children:
            child.tell(wire.GiveUp())
        await asyncio.wait([child.connected for child in self._children], timeout=_GIVE_UP_SECONDS)

    def _parts(self) -> list[list[Group]]:
        """Share the groups out.

        Raises:
            UsageError: a process may not open as many files as its part takes, or another host has not as many ports;
                says how many.
        """
        parts = shares(self.load.groups(), len(self._children))
        if not self.load.sockets_per_address:
            check_ports([(child.where, child.ports) for child in self._children], parts)
        for child, part in zip(self._children, parts, strict=True):
            if not child.left:
                check_part(sum(group.size for group in part), child.limit, str(child))
        return parts

    async def _publish(self) -> None:
        self._watch.phase("load")
        self._go_ns = self._whole_second(monotonic_ns() + _SECOND_NS // 2)
        begins = (self._go_ns - self._start_ns) / _SECOND_NS
        self.outcome.events.append({"t": round(begins, 3), "name": LOAD_BEGINS})
        for child in self._children:
            child.tell(wire.Go(self._go_ns))
        end_ns = self._go_ns + int(self.load.duration_s * _SECOND_NS)
        if self.load.events:
            await self._perform_events()
            end_ns = max(end_ns, monotonic_ns() + int(_AFTER_EVENTS_SECONDS * _SECOND_NS))
        await sleep_until(end_ns - _STOP_AHEAD_NS)
        self._stop_ns = end_ns

    def _whole_second(self, at_ns: int) -> int:
        """Give when the timeline's next second begins: a load's first second is then one of it, not parts of two."""
        return at_ns + (self._start_ns - at_ns) % _SECOND_NS

    async def _perform_events(self) -> None:
        load = self.load
        self.outcome.during_exit = -1
        faults = Faults(load.events, load.url, load.project, load.connections, load.seed, self.event)
        self.outcome.during_exit = await faults.perform(self._go_ns)
        await self._look()

    async def _finish(self) -> None:
        """Stop publishing, let the rest arrive, gather the sums."""
        self._watch.phase("settle")
        settle = 2.0 if self.outcome.aborted else self.load.settle_s
        self._stop_ns = self._stop_ns or monotonic_ns()
        for child in self._children:
            child.tell(wire.Stop(self._stop_ns, settle, self.load.linger_s))
        await self._despite_a_stop(self._wait("done", settle + 30))
        for second in sorted(self._pending):
            self._complete(second)
        if self._go_ns:
            self.outcome.load_s = (self._stop_ns - self._go_ns) / _SECOND_NS
        self.outcome.cpu_percent = _busiest([child.cpu for child in self._children])
        self.outcome.connect_cpu_percent = _busiest([child.connect_cpu for child in self._children])
        self.outcome.duration_s = self._seconds()
        if not self.outcome.aborted:
            # What the fleet holds with all sockets open is seen before they are closed.
            try:
                await self._look()
            except asyncio.CancelledError:
                self._abort()
        for child in self._children:
            child.tell(wire.Bye())
        self.through = True

    async def _despite_a_stop(self, gathering: Coroutine[Any, Any, object]) -> None:
        """Gather to the end, however often the task is cancelled; but not where it was stopped before."""
        task = asyncio.create_task(gathering)
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                if self.outcome.aborted:
                    task.cancel()
                self._abort()
        if task.cancelled():
            late = sum(1 for child in self._children if not child.done.done())
            self.outcome.problems.append(
                f"stopped before {late} of {len(self._children)} generator processes were through: "
                "what their clients saw is not in all of these figures"
            )
        else:
            task.result()

    async def _wait(self, what: str, seconds: float) -> bool:
        """Wait until each process has said `what`, or is gone; False where one has not after `seconds`."""
        waiting = [getattr(child, what) for child in self._children]
        _, late = await asyncio.wait(waiting, timeout=seconds)
        if not late:
            return True
        problem = f"{len(late)} of {len(waiting)} generator processes were not {what} after {seconds:.0f} s"
        if what == "hello":
            raise ShardsError(problem)
        self.outcome.problems.append(problem)
        return False

    async def _read(self, child: Child) -> None:
        """Take what a process reports until it ends."""
        why = "ended before it was through"
        try:
            while True:
                report = await self._next(child)
                if report is None:
                    break
                self._take(child, report)
        except TimeoutError:
            why = f"has said nothing for {_SILENT_SECONDS:.0f} s"
        except (ValueError, msgspec.DecodeError) as error:
            why = f"said what is no report ({error})"
        if child.gone():
            self.outcome.problems.append(f"{child} {why}: what its clients saw is not in these figures")
            self.event(f"{child} {why}")

    async def _next(self, child: Child) -> wire.Report | None:
        """Give its next report; one that has no plan yet, or is through, may be as silent as it likes."""
        while True:
            try:
                async with asyncio.timeout(_SILENT_SECONDS):
                    return await child.next()
            except TimeoutError:
                if child.planned and not child.done.done():
                    raise

    def _take(self, child: Child, report: wire.Report) -> None:
        match report:
            case wire.Hello():
                child.limit, child.ports = report.descriptors, report.sockets_per_address
                child.hello.set_result(None)
            case wire.Connected():
                self._take_connected(report)
                child.connected.set_result(None)
            case wire.Tick():
                self._take_tick(child, report)
            case wire.Done():
                self._take_done(child, report)
                child.done.set_result(None)

    def _take_connected(self, report: wire.Connected) -> None:
        self.outcome.opened += report.opened
        self.outcome.failures.update(report.failures)
        self.outcome.connecting.record(report.took)
        self._first_ns = min(self._first_ns or report.first_ns, report.first_ns)
        self._last_ns = max(self._last_ns, report.last_ns)
        self.outcome.connect_s = max(0, self._last_ns - self._first_ns) / _SECOND_NS

    def _take_tick(self, child: Child, tick: wire.Tick) -> None:
        begin_ns = self._start_ns + tick.second * _SECOND_NS
        if self._go_ns and begin_ns >= self._go_ns:
            # Only publishing has a lag, and that of its last second is reported when it is over.
            self.outcome.lag.record(tick.lag)
            if not self._stop_ns:
                child.cpu.append(tick.cpu_percent)
        elif 0 <= tick.second < self.load.connect_s:
            # Who is stuck at the end leaves it idle; that it was at its end shows in the time that was planned.
            child.connect_cpu.append(tick.cpu_percent)
        self._pending.setdefault(tick.second, {})[child.number] = tick
        ticking = {child.number for child in self._children if not child.left and not child.done.done()}
        if ticking <= self._pending[tick.second].keys():
            self._complete(tick.second)

    def _complete(self, number: int) -> None:
        """Sum up a second of all processes."""
        by_child = self._pending.pop(number)
        ticks = by_child.values()
        histogram = Histogram()
        for tick in ticks:
            histogram.record(tick.latency)
            self.outcome.naive.record(tick.naive)
        self.outcome.latency.add(histogram)
        second = self.outcome.timeline.setdefault(number, Second())
        for tick in ticks:
            for tenth, counts in tick.away.items():
                self.outcome.away.record(counts)
                self.outcome.lost_in.setdefault(tenth, Counter()).update(counts)
                second.back += sum(counts.values())
        # Who is through says nothing more, and keeps its sockets open until all are.
        through = [one for one in self._children if one.through and one.number not in by_child]
        second.open = sum(tick.open for tick in ticks) + sum(child.open for child in through)
        second.published += sum(tick.published for tick in ticks)
        second.delivered += sum(tick.delivered for tick in ticks)
        second.p50_ms, second.p99_ms = histogram.percentiles_ms([50, 99])
        self._watch.second(number, second)

    def _take_done(self, child: Child, report: wire.Done) -> None:
        outcome = self.outcome
        outcome.descriptors = max(outcome.descriptors, (report.descriptors, child.limit))
        outcome.amiss += report.amiss
        outcome.accounts = worst([*outcome.accounts, *report.accounts], ACCOUNTS)
        outcome.tally += report.tally
        outcome.publishers += report.publishers
        child.open = report.open
        outcome.open += report.open
        outcome.reconnects += report.reconnects
        outcome.closed_by_server += report.closed_by_server
        outcome.errors.update(report.errors)
        outcome.examples = report.examples | outcome.examples


def _busiest(percents: Iterable[Sequence[float]]) -> float:
    return max((sum(one) / len(one) for one in percents if one), default=0.0)

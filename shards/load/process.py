"""One generator process: its share of the clients and of the publishes, on one event loop.

Run by the coordinator as ``python -m shards.load.process``: orders come on stdin, reports go to stdout (see `wire`).
It ends when stdin does, so no process outlives its coordinator.

It watches itself: *lag* is how much later than due it sent a publish, or woke at all. A late publish is not hidden: its
latency counts from when it was due. But a lag says that the generator, or the host it shares, is at its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import sys
from collections import Counter
from time import monotonic_ns, process_time_ns

import uvloop

from shards.aio import sleep_until
from shards.descriptors import raise_descriptor_limit
from shards.load import wire
from shards.load.connection import CONNECT_ERRORS, Connection, Shared, reason
from shards.load.dialects import DIALECTS
from shards.load.histogram import steps
from shards.load.ledger import ACCOUNTS, Account, Tally, worst
from shards.load.limits import Limits, open_descriptors, source_address
from shards.load.schedule import bent, publishes

_HANDSHAKES_AT_ONCE = 250
_SHORTEST_SLEEP = 0.001
_LONGEST_SLEEP = 0.02
_LONGEST_TURN_NS = 5_000_000
"""For how long publishes that are late follow each other before the loop sees to something else."""

_BACKLOG_SECONDS = 2.0
_SETTLE_STEP_SECONDS = 0.1
_FOLD_SECONDS = 0.1
_SECOND_NS = 1_000_000_000
_TENTH_NS = _SECOND_NS // 10
_NEVER = sys.maxsize
_HOPELESS_AFTER = 500
"""Failures after which nobody tries any more, if not a single connection came about."""

_NOT_IN_TIME = "not connected when the time for it was over"


class Generator:
    """A generator process's state and its work.

    Args:
        plan: what to do.
        report: where to say how it goes.
    """

    def __init__(self, plan: wire.Plan, report: asyncio.StreamWriter) -> None:
        self.plan = plan
        tls = plan.tls.context() if plan.tls else None
        self.shared = Shared(plan.url, plan.late_ns, tls, plan.connect_timeout_s)
        # First connects only, which have a rate of their own.
        self._gate = asyncio.Semaphore(_HANDSHAKES_AT_ONCE)
        self._report = report
        self._dialect = DIALECTS[plan.dialect]
        self._groups = [self._dialect.room(f"load-{plan.run}-{group.number}") for group in plan.groups]
        self._members: list[list[Connection]] = []
        self._clients: list[tuple[int, Connection]] = []
        self._stop_ns = _NEVER
        self._yielded_ns = 0
        self._published = 0
        self._latency: Counter[int] = Counter()
        self._naive: Counter[int] = Counter()
        self._lag: Counter[int] = Counter()
        self._lags: list[int] = []
        self._failures: Counter[str] = Counter()
        self._took: list[int] = []
        self._opened = self._last_open_ns = self._descriptors = 0

    def say(self, report: wire.Report) -> None:
        """Send a report to the coordinator, if it is still there."""
        if not self._report.is_closing():
            self._report.write(wire.encode(report) + b"\n")

    async def connect(self) -> None:
        """Open all connections, each when it is due, and say how it went."""
        make = self._dialect.looping if self.plan.looping else self._dialect.client
        for room, group in zip(self._groups, self.plan.groups, strict=True):
            clients = [make(self.shared, room, self._source(number)) for number in group.members]
            self._clients += zip(group.members, clients, strict=True)
            self._members.append(clients)
        try:
            async with asyncio.TaskGroup() as handshakes:
                for number, client in self._clients:
                    await sleep_until(self._connect_ns(number))
                    if self._hopeless():
                        self._failures["not tried: none of those before it came about"] += 1
                        continue
                    handshakes.create_task(self._open(client, self._connect_ns(number)))
        finally:
            if left := len(self._clients) - self._opened - self._failures.total():
                self._failures[_NOT_IN_TIME] += left
            self._count_descriptors()
            self._say_connected()
            gc.collect()
            gc.freeze()

    def _hopeless(self) -> bool:
        return not self._opened and self._failures.total() >= _HOPELESS_AFTER

    def _count_descriptors(self) -> None:
        self._descriptors = max(self._descriptors, open_descriptors())

    def _say_connected(self) -> None:
        self.say(
            wire.Connected(
                opened=self._opened,
                first_ns=self._connect_ns(self._clients[0][0]),
                last_ns=self._last_open_ns,
                took=steps(self._took),
                failures=dict(self._failures),
            )
        )

    def _source(self, client: int) -> str | None:
        each = self.plan.sockets_per_address
        return source_address(client, each) if each else None

    def _connect_ns(self, client: int) -> int:
        return self.plan.start_ns + int(self.plan.connects.when(client) * _SECOND_NS)

    async def _open(self, client: Connection, due_ns: int) -> None:
        try:
            async with self._gate:
                await client.connect()
        except CONNECT_ERRORS as error:
            self._failures[reason(error)] += 1
        else:
            self._opened += 1
            self._last_open_ns = monotonic_ns()
            self._took.append(self._last_open_ns - due_ns)

    async def publish(self, start_ns: int) -> None:
        """Send what is due when it is due, from `start_ns` until `stop` says otherwise.

        What is due faster than it can be sent piles up, and `_BACKLOG_SECONDS` after the end the rest is left: how
        late all before it was has told by then that this generator was at its end.
        """
        publishers = self._publishers()
        for seconds, position, turn in publishes(self.plan.groups):
            moment = bent(seconds, self.plan.rate, self.plan.shape)
            due_ns = start_ns + int(moment * _SECOND_NS) if moment < math.inf else _NEVER
            await self._wait_until(due_ns)
            if due_ns >= self._stop_ns:
                return
            if members := publishers[position]:
                members[turn % len(members)].publish(due_ns)
                self._lags.append(monotonic_ns() - due_ns)
                self._published += 1

    def _publishers(self) -> list[list[Connection]]:
        """Give each group's clients that got a place in it."""
        return [[client for client in clients if client.placed()] for clients in self._members]

    async def loop(self, start_ns: int) -> None:
        """Let each group send one message around, its first member, from `start_ns` until `stop` says otherwise."""
        await self._wait_until(start_ns)
        self.shared.looping = True
        for members in filter(None, self._publishers()):
            members[0].publish(monotonic_ns())
        await self._wait_until(_NEVER)
        self.shared.looping = False

    async def _wait_until(self, due_ns: int) -> None:
        """Sleep until `due_ns` or `stop`, in short turns, noting how late each one ends.

        Never less than a millisecond: the loop's timers are no finer, and would spin instead. Who is behind does not
        sleep, but lets the loop go round now and then: frames are to be read, and orders.
        """
        while (now := monotonic_ns()) < min(due_ns, self._stop_ns):
            sleep = min(max((due_ns - now) / _SECOND_NS, _SHORTEST_SLEEP), _LONGEST_SLEEP)
            await asyncio.sleep(sleep)
            self._yielded_ns = monotonic_ns()
            if sleep == _LONGEST_SLEEP:
                self._lags.append(self._yielded_ns - now - int(sleep * _SECOND_NS))
        if now - self._yielded_ns > _LONGEST_TURN_NS:
            await asyncio.sleep(0)
            self._yielded_ns = monotonic_ns()

    def stop(self, at_ns: int) -> None:
        """Publish nothing that is due from `at_ns` on, and a little later nothing at all."""
        self._stop_ns = at_ns
        ahead = max(0, at_ns - monotonic_ns()) / _SECOND_NS
        asyncio.get_running_loop().call_later(ahead + _BACKLOG_SECONDS, self._leave_the_rest)

    def _leave_the_rest(self) -> None:
        self._stop_ns = 0

    async def settle(self, seconds: float, linger: float) -> None:
        """Wait until all is acked and delivered and all are back, `seconds` at most; then listen for `linger` seconds.

        Only who still listens hears what comes a second time.
        """
        deadline_ns = monotonic_ns() + int(seconds * _SECOND_NS)
        quiet_ns = int(linger * _SECOND_NS)
        settled_ns: int | None = None
        while True:
            now = monotonic_ns()
            if self._unsettled():
                settled_ns = None
                if now >= deadline_ns:
                    return
            else:
                settled_ns = settled_ns or now
                if now - settled_ns >= quiet_ns:
                    return
            await asyncio.sleep(_SETTLE_STEP_SECONDS)

    def _unsettled(self) -> bool:
        """Tell whether an ack, a delivery or a client is still to come."""
        return any(room.ledger.unsettled() for room in self._groups) or any(
            client.returning for _, client in self._clients
        )

    async def tick(self) -> None:
        """Report each second, forever."""
        second = (monotonic_ns() - self.plan.start_ns) // _SECOND_NS
        cpu_ns, wall_ns = process_time_ns(), monotonic_ns()
        while True:
            end_ns = self.plan.start_ns + (second + 1) * _SECOND_NS
            while monotonic_ns() < end_ns:
                await asyncio.sleep(min(_FOLD_SECONDS, max(0.001, (end_ns - monotonic_ns()) / _SECOND_NS)))
                self._fold()
            cpu, wall = process_time_ns() - cpu_ns, monotonic_ns() - wall_ns
            cpu_ns, wall_ns = cpu_ns + cpu, wall_ns + wall
            self.say_tick(second, 100 * cpu / wall)
            second += 1

    def _fold(self) -> None:
        """Count the newest latencies and lags: little and often, since it holds up the loop."""
        latencies, self.shared.latencies = self.shared.latencies, []
        naive, self.shared.naive = self.shared.naive, []
        lags, self._lags = self._lags, []
        self._latency.update(steps(latencies))
        self._naive.update(steps(naive))
        self._lag.update(steps(lags))

    def say_tick(self, second: int, cpu_percent: float) -> None:
        """Report what came since the last report."""
        self._fold()
        self.say(
            wire.Tick(
                second=second,
                open=self.shared.open,
                published=self._published,
                delivered=self.shared.delivered,
                latency=self._latency,
                naive=self._naive,
                lag=self._lag,
                away=self._away(),
                cpu_percent=cpu_percent,
            )
        )
        self._published = self.shared.delivered = 0
        self.shared.away = []
        self._latency, self._naive, self._lag = Counter(), Counter(), Counter()

    def _away(self) -> dict[int, dict[int, int]]:
        """Count how long those were without a socket who are back, by the tenth of a second in which they lost it."""
        found: dict[int, Counter[int]] = {}
        for gone_ns, away_ns in self.shared.away:
            found.setdefault((gone_ns - self.plan.start_ns) // _TENTH_NS, Counter()).update(steps([away_ns]))
        return {tenth: dict(counts) for tenth, counts in found.items()}

    def say_done(self) -> None:
        """Report the sums."""
        self._count_descriptors()
        accounts = self._accounts()
        self.say(
            wire.Done(
                tally=sum((account.tally for account in accounts), start=Tally()),
                amiss=sum(1 for account in accounts if account.amiss),
                accounts=worst([account for account in accounts if account.amiss], ACCOUNTS),
                publishers=sum(room.ledger.publishers() for room in self._groups),
                open=self.shared.open,
                descriptors=self._descriptors,
                reconnects=self.shared.reconnects,
                closed_by_server=self.shared.closed_by_server,
                errors=dict(self.shared.errors),
                examples=self.shared.examples,
            )
        )

    def _accounts(self) -> list[Account]:
        """Give the books of all clients, by their numbers in the whole load."""
        accounts = []
        for room, group in zip(self._groups, self.plan.groups, strict=True):
            for account in room.ledger.accounts():
                account.client, account.group = group.first + account.client, room.name
                accounts.append(account)
        return accounts

    async def close(self) -> None:
        """Close all sockets, a hundred at a time."""
        self.shared.stopping = True
        for index, (_, client) in enumerate(self._clients):
            client.close()
            if index % 100 == 0:
                await asyncio.sleep(0.001)


async def _stdio() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb"))
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(1, "wb"))
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)


async def _work(generator: Generator, orders: asyncio.StreamReader) -> None:
    """Follow the orders to their end; a `Stop` may come at any time, and so may the end of the coordinator."""
    connecting = asyncio.create_task(generator.connect())
    publishing: asyncio.Task[None] | None = None
    while line := await orders.readline():
        match wire.decode_order(line):
            case wire.GiveUp():
                connecting.cancel()
            case wire.Go(at_ns):
                publishing = asyncio.create_task(_load(generator, connecting, at_ns))
            case wire.Stop(at_ns, settle_s, linger_s):
                generator.stop(at_ns)
                connecting.cancel()
                await asyncio.wait([connecting])
                if publishing:
                    await publishing
                await generator.settle(settle_s, linger_s)
                return
    connecting.cancel()


async def _load(generator: Generator, connecting: asyncio.Task[None], at_ns: int) -> None:
    """Publish once all are connected or given up; orders are followed meanwhile."""
    await asyncio.wait([connecting])
    if not connecting.cancelled():
        connecting.result()
    await (generator.loop if generator.plan.looping else generator.publish)(at_ns)


async def _plan(orders: asyncio.StreamReader, report: asyncio.StreamWriter) -> wire.Plan | None:
    """Wait for the plan, and say what time it is until then; None: there will be none."""
    while line := await orders.readline():
        match wire.decode_order(line):
            case wire.Ask(asked_ns):
                report.write(wire.encode(wire.Time(asked_ns, monotonic_ns())) + b"\n")
            case wire.Plan() as plan:
                return plan
            case wire.Bye():
                return None
    return None


async def _dismissed(orders: asyncio.StreamReader) -> None:
    """Wait for the last order, or the end of the coordinator."""
    while (line := await orders.readline()) and not isinstance(wire.decode_order(line), wire.Bye):
        pass


async def main() -> None:
    """Read the plan and carry it out."""
    orders, report = await _stdio()
    limits = Limits.of_this_host()
    report.write(wire.encode(wire.Hello(limits.descriptors, limits.sockets_per_address)) + b"\n")
    plan = await _plan(orders, report)
    if plan is None:
        return
    generator = Generator(plan, report)
    ticking = asyncio.create_task(generator.tick())
    await _work(generator, orders)
    ticking.cancel()
    generator.say_tick((monotonic_ns() - plan.start_ns) // _SECOND_NS, 0.0)
    generator.say_done()
    with contextlib.suppress(ConnectionResetError):
        await report.drain()
    await _dismissed(orders)
    await generator.close()


if __name__ == "__main__":
    logging.getLogger("picows").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    raise_descriptor_limit()
    uvloop.run(main())

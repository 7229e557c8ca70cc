"""Hosts whose monotonic clocks are an hour apart: whoever reads a time reads one of its own clock."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic_ns
from typing import TypeVar

import pytest

from shards.load import wire
from shards.load.children import LINE_BYTES, Child
from shards.load.coordinator import Coordinator, Load
from shards.load.resources import Resources
from shards.load.schedule import Shape
from tests.load.elsewhere import Elsewhere
from tests.load.plain_server import running
from tests.load.server import until
from tests.load.test_coordinator import Nobody

HOUR_NS = 3_600_000_000_000
SECOND_NS = 1_000_000_000

pytestmark = pytest.mark.parametrize("ahead_ns", [HOUR_NS, -HOUR_NS], ids=["ahead", "behind"])

Kind = TypeVar("Kind")


class Both:
    """A child, and what is at its other end.

    Attributes:
        heard: what the child gave.
    """

    def __init__(self, child: Child, there: Elsewhere) -> None:
        self.child, self.there = child, there
        self.heard: list[wire.Report] = []

    async def read(self) -> None:
        while report := await self.child.next():
            self.heard.append(report)

    async def order(self, kind: type[Kind]) -> Kind:
        """Give the order of a kind that came there."""
        await until(lambda: any(isinstance(order, kind) for order in self.there.told))
        return next(order for order in self.there.told if isinstance(order, kind))

    async def connected(self, report: wire.Connected) -> wire.Connected:
        """Give what is heard here of a report from there."""
        self.there.say(report)
        await until(lambda: any(isinstance(heard, wire.Connected) for heard in self.heard))
        return next(heard for heard in self.heard if isinstance(heard, wire.Connected))

    def same(self, one_ns: int, other_ns: int) -> bool:
        """Tell whether two times are one, as well as clocks can be compared."""
        assert self.child.clock.error_ns is not None
        # One more, since half of an odd time is rounded.
        return abs(one_ns - other_ns) <= self.child.clock.error_ns + 1 < 60 * SECOND_NS


@asynccontextmanager
async def far_apart(ahead_ns: int) -> AsyncIterator[Both]:
    """Give two ends whose clocks have been compared."""
    here, there = socket.socketpair()
    ours, theirs = await asyncio.open_connection(sock=here), await asyncio.open_connection(sock=there)
    both = Both(Child(0, *ours, host="elsewhere"), Elsewhere(*theirs, ahead_ns))
    tasks = [asyncio.create_task(both.there.listen()), asyncio.create_task(both.read())]
    try:
        await both.child.compare_clocks()
        yield both
    finally:
        ours[1].close()
        both.there.hang_up()
        await asyncio.gather(*tasks)


async def test_orders_arrive_in_the_time_of_there(ahead_ns: int) -> None:
    at_ns = monotonic_ns() + SECOND_NS
    async with far_apart(ahead_ns) as both:
        both.child.tell(wire.Plan("r", "ws://a/", [], Shape.constant(1), 0, at_ns))
        both.child.tell(wire.Go(at_ns))
        both.child.tell(wire.Stop(at_ns, 1.0, 1.0))
        told = [(await both.order(wire.Plan)).start_ns]
        told += [(await both.order(wire.Go)).at_ns, (await both.order(wire.Stop)).at_ns]
        assert all(both.same(time_ns, at_ns + ahead_ns) for time_ns in told), told


async def test_reports_arrive_in_the_time_of_here(ahead_ns: int) -> None:
    begun_ns = monotonic_ns()
    async with far_apart(ahead_ns) as both:
        there_ns = begun_ns + ahead_ns
        heard = await both.connected(wire.Connected(5, there_ns, there_ns + SECOND_NS, {}, {}))
        assert both.same(heard.first_ns, begun_ns)
        assert both.same(heard.last_ns, begun_ns + SECOND_NS)


async def test_where_nothing_opened_it_began_in_the_time_of_here_all_the_same(ahead_ns: int) -> None:
    begun_ns = monotonic_ns()
    async with far_apart(ahead_ns) as both:
        heard = await both.connected(wire.Connected(0, begun_ns + ahead_ns, 0, {}, {"HTTP 503": 5}))
        assert both.same(heard.first_ns, begun_ns)
        assert heard.last_ns == 0


PROCESS = """
import time
here_ns = time.monotonic_ns
time.monotonic_ns = lambda: here_ns() + {ahead_ns}
import runpy
runpy.run_module("shards.load.process", run_name="__main__")
"""
"""A generator process that reads another clock than its event loop has."""


class FarAway:
    """A `Team` of one process, the clock of which is somewhere else."""

    def __init__(self, ahead_ns: int) -> None:
        self.ahead_ns = ahead_ns

    @asynccontextmanager
    async def assembled(self) -> AsyncIterator[list[Child]]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROCESS.format(ahead_ns=self.ahead_ns)), stdin=pipe, stdout=pipe, limit=LINE_BYTES
        )
        assert process.stdout
        assert process.stdin
        try:
            yield [Child(0, process.stdout, process.stdin, host="elsewhere")]
        finally:
            process.kill()
            # To the end of what it said, so that nothing of it is open when the test is over.
            await process.communicate()


async def test_a_run_is_what_it_would_be_with_one_clock(ahead_ns: int) -> None:
    async with running() as server:
        load = Load(server.url, connections=20, duration_s=2, rate=400, dialect="plain", connect_rate=20)
        async with asyncio.timeout(60):
            found = await Coordinator(load, Resources(), Nobody(), team=FarAway(ahead_ns)).run()
    assert (found.problems, found.opened) == ([], 20)
    assert 0.9 < found.connect_s < 60, "the last of them was due after 0.95 s"
    assert found.tally.expected == found.tally.delivered == 10 * found.tally.published >= 800
    assert set(found.timeline) <= set(range(-1, 60))
    assert sum(second.delivered for second in found.timeline.values()) == found.tally.delivered
    [host] = found.hosts
    assert host["clock_ahead_ms"] == pytest.approx(ahead_ns / 1e6, abs=host["clock_error_ms"] + 0.001)

"""What a coordinator sees to itself: when it looks at the fleet, and whom it waits for."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from typing import Any, cast

import pytest
from websockets.protocol import State

from shards.load import coordinator, wire
from shards.load.children import Child
from shards.load.coordinator import Coordinator, Load, Outcome, Second
from shards.load.ledger import Tally
from shards.load.resources import Resources
from tests.load.plain_server import PlainServer, running


class Nobody:
    """A `Watch` that does not."""

    def phase(self, name: str) -> None:
        pass

    def second(self, number: int, second: Second) -> None:
        pass

    def event(self, text: str) -> None:
        pass


def load(url: str, duration_s: float) -> Load:
    return Load(url, connections=20, duration_s=duration_s, rate=400, dialect="plain", connect_rate=200)


async def outcome(run: Coordinator) -> Outcome:
    async with asyncio.timeout(120):
        return await run.run()


async def test_it_looks_at_the_fleet_before_the_load_and_after_it_and_all_sockets_are_open_both_times() -> None:
    open_sockets: list[tuple[int, bool]] = []

    def seen(server: PlainServer) -> tuple[int, bool]:
        return sum(socket.state is State.OPEN for socket in server.sockets), bool(server.texts)

    async with running() as server:

        async def look() -> None:
            # As long as a command takes that asks a fleet.
            await asyncio.sleep(1)
            open_sockets.append(seen(server))

        found = await outcome(Coordinator(load(server.url, 1), Resources(), Nobody(), look))
    assert open_sockets == [(20, False), (20, True)]
    assert (found.open, found.problems) == (20, [])
    assert {socket.close_code for socket in server.sockets} == {1000}, "each was closed in good order"


async def test_sockets_of_a_process_that_is_through_are_open_while_another_one_is_not() -> None:
    run = Coordinator(load("ws://127.0.0.1:1/", 1), Resources(), Nobody())
    children = [Child(number, asyncio.StreamReader(), cast(Any, None)) for number in range(2)]
    run._children = children
    done = wire.Done(Tally(), 0, [], 10, 0, 10, 0, 0, {}, {})
    run._take(children[1], done)
    run._take(children[0], wire.Tick(7, 10, 0, 0, {}, {}, {}, {}, 1.0))
    assert run.outcome.timeline[7].open == 20


@pytest.mark.parametrize(("connect_rate", "percent"), [(200, 99.0), (5, 59.5)], ids=["in a second", "in four"])
async def test_what_connecting_took_of_a_core_is_of_the_time_that_was_planned(
    connect_rate: float, percent: float
) -> None:
    """Not of what came before, nor of what a client that is stuck makes it wait for."""
    run = Coordinator(replace(load("ws://127.0.0.1:1/", 1), connect_rate=connect_rate), Resources(), Nobody())
    child = Child(0, asyncio.StreamReader(), cast(Any, None))
    for second, cpu in ((-1, 0.3), (0, 99.0), (1, 99.0), (2, 30.0), (3, 10.0), (4, 1.0), (5, 1.0)):
        run._take_tick(child, wire.Tick(second, 0, 0, 0, {}, {}, {}, {}, cpu))
    assert coordinator._busiest([child.connect_cpu]) == pytest.approx(percent)


async def test_a_process_that_says_nothing_any_more_is_named_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coordinator, "_SILENT_SECONDS", 3.0)
    async with running() as server:
        run = Coordinator(load(server.url, 6), Resources(), Nobody(), look=lambda: stop(run))
        found = await outcome(run)
    assert found.problems == [
        "generator process 0 has said nothing for 3 s: what its clients saw is not in these figures"
    ]
    assert (found.opened, found.open) == (20, 10)
    assert found.tally.expected == found.tally.delivered > 0, "the other process's clients are in the figures"


async def stop(run: Coordinator) -> None:
    """Keep one of its processes from going on."""
    pid = run._children[0].pid
    assert pid
    os.kill(pid, signal.SIGSTOP)

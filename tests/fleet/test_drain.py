"""A drain is over when nobody has a socket any more, and not when nobody is heard of."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from shards.fleet import drain as drains
from shards.fleet.drain import TakerDied, drain, draining
from shards.fleet.engines.base import Running
from shards.router.control import Control, Orders, WorkerRecord, WorkerState
from tests.redis_server import RedisServer

LONG_S = 60.0
_WITHIN_S = 10


class Fleet:
    def say(self, text: str) -> None:
        pass


class Engine:
    """Knows one replica that drains and one that takes its sockets; each runs until it is told otherwise."""

    def __init__(self) -> None:
        self.up = self.taker_up = True
        self.looks = 0

    async def running(self) -> dict[str, Running]:
        self.looks += 1
        return {"blue-0": Running(self.up, os.getpid()), "green-0": Running(self.taker_up, os.getpid())}


def worker(state: WorkerState, connections: int) -> WorkerRecord:
    return WorkerRecord("blue-0/1", "blue", "blue-0", "1", os.getpid(), state, connections, "r", 1, 0.0)


@pytest.fixture
async def control(start_redis: Callable[..., RedisServer]) -> AsyncIterator[Control]:
    async with Redis.from_url(start_redis().url) as redis:
        yield Control(redis)


def begin(control: Control, engine: Engine, seconds: float = LONG_S) -> asyncio.Task[drains.Drained]:
    orders = {"blue-0": draining(seconds, ["green-0"])}
    back = {"blue-0": Orders("active")}
    return asyncio.create_task(drain(cast(Any, Fleet()), cast(Any, engine), control, orders, ["blue-0"], seconds, back))


async def looked(engine: Engine) -> None:
    """Wait until the drain has looked twice since: at what was said before."""
    before = engine.looks
    async with asyncio.timeout(_WITHIN_S):
        while engine.looks < before + 2:
            await asyncio.sleep(0.05)


async def begun_with_five(control: Control, engine: Engine) -> asyncio.Task[drains.Drained]:
    """Begin a drain of a worker that has five sockets, and wait until it has been looked at."""
    await control.heartbeat(worker("draining", 5), b"[]")
    drained = begin(control, engine)
    await looked(engine)
    return drained


async def ends_with_no_socket(control: Control, drained: asyncio.Task[drains.Drained]) -> None:
    """Have the worker say that it has none any more, and see that the drain is over and nothing was cut."""
    await control.heartbeat(worker("draining", 0), b"[]")
    assert await asyncio.wait_for(drained, _WITHIN_S) == drains.Drained()


async def test_it_is_over_once_the_last_worker_has_no_socket(control: Control) -> None:
    engine = Engine()
    drained = await begun_with_five(control, engine)
    assert not drained.done()
    await ends_with_no_socket(control, drained)


async def test_a_worker_that_the_registry_has_forgotten_still_has_its_sockets(control: Control) -> None:
    """It stands still, or the control Redis was away for longer than a worker may be silent."""
    engine = Engine()
    drained = await begun_with_five(control, engine)
    await control.forget("blue-0/1")
    await looked(engine)
    assert not drained.done(), "its process lives"
    await ends_with_no_socket(control, drained)


async def test_a_worker_that_has_died_has_none_and_what_it_had_is_told(control: Control) -> None:
    engine = Engine()
    drained = await begun_with_five(control, engine)
    await control.forget("blue-0/1")
    engine.up = False
    found = await asyncio.wait_for(drained, _WITHIN_S)
    assert found == drains.Drained(cut=5)
    assert found.told("blue") == "blue: a worker died meanwhile, and up to 5 sockets with it: their clients come back"


def taker(pid: int, name: str = "green-0/1", started: float = 0.0) -> WorkerRecord:
    return WorkerRecord(name, "green", "green-0", "1", pid, "active", 3, "r", 1, started)


async def test_it_stops_where_one_dies_that_takes_the_sockets_though_the_registry_still_names_it(
    control: Control,
) -> None:
    engine = Engine()
    process = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        await control.heartbeat(taker(process.pid), b"[]")
        drained = await begun_with_five(control, engine)
        assert not drained.done()
    finally:
        process.kill()
        await process.wait()
    with pytest.raises(TakerDied, match=r"green-0 died .* up to 3 of them .*; 5 stay where they are"):
        await asyncio.wait_for(drained, _WITHIN_S)
    _, orders = await control.heartbeat(worker("draining", 5), b"[]")
    assert orders == Orders("active")


async def test_one_that_takes_sockets_on_a_host_that_cannot_be_seen_has_died_once_it_says_nothing(
    control: Control,
) -> None:
    engine = Engine()
    await control.heartbeat(taker(os.getpid()), b"[]")
    drained = await begun_with_five(control, engine)
    engine.taker_up = False
    await looked(engine)
    assert not drained.done(), "it says that it lives"
    await control.forget("green-0/1")
    with pytest.raises(TakerDied):
        await asyncio.wait_for(drained, _WITHIN_S)


async def test_one_that_had_died_before_and_was_started_again_is_no_reason_to_stop(control: Control) -> None:
    """As in a container, where it has the same number; the registry knows both for a while."""
    engine = Engine()
    await control.heartbeat(taker(os.getpid()), b"[]")
    await control.heartbeat(taker(os.getpid(), name="green-0/1-b", started=1.0), b"[]")
    drained = await begun_with_five(control, engine)
    await ends_with_no_socket(control, drained)


async def test_where_there_is_nothing_to_move_nobody_who_takes_it_matters(control: Control) -> None:
    engine = Engine()
    await control.heartbeat(taker(os.getpid()), b"[]")
    await control.heartbeat(worker("active", 0), b"[]")
    drained = begin(control, engine)
    await looked(engine)
    await control.heartbeat(taker(os.getpid(), name="green-0/1-b", started=1.0), b"[]")
    await looked(engine)
    assert not drained.done()
    await ends_with_no_socket(control, drained)


async def test_a_worker_that_another_one_follows_with_the_same_pid_has_died(control: Control) -> None:
    """As in a container, into which nobody looks from here."""
    engine = Engine()
    drained = await begun_with_five(control, engine)
    await control.forget("blue-0/1")
    await control.heartbeat(replace(worker("draining", 0), name="blue-0/1-b", started=1.0), b"[]")
    assert await asyncio.wait_for(drained, _WITHIN_S) == drains.Drained(cut=5)


async def test_a_registry_that_knows_nobody_yet_is_given_the_time_to_hear_of_them(control: Control) -> None:
    engine = Engine()
    drained = begin(control, engine)
    await looked(engine)
    assert not drained.done()
    await control.heartbeat(worker("draining", 3), b"[]")
    await looked(engine)
    assert not drained.done()
    await ends_with_no_socket(control, drained)


async def test_a_replica_that_never_says_anything_holds_nobody_up_for_long(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drains, "SPEAKS_S", 0.3)
    assert await asyncio.wait_for(begin(control, Engine()), _WITHIN_S) == drains.Drained()


async def test_what_a_silent_worker_had_is_counted_as_left(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "MARGIN_S", 0.5)
    await control.heartbeat(worker("draining", 5), b"[]")
    engine = Engine()
    drained = begin(control, engine, seconds=1.0)
    await looked(engine)
    await control.forget("blue-0/1")
    left = await asyncio.wait_for(drained, _WITHIN_S)
    assert left.left == 5
    assert "5 did not leave" in (left.told("blue") or "")

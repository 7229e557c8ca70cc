"""Events come when they are due, to whom chance says, and a failure is not forgotten."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic_ns
from typing import Any

import psutil
import pytest

from shards.load import target
from shards.load.containers import found
from shards.load.faults import Faults, victim, worker_of
from shards.load.scenarios import Event
from tests.load.server import until
from tests.process import words_of

FLEET: dict[str, Any] = {
    "edges": [{"name": "edge-0", "pid": 11}, {"name": "edge-1", "pid": 12}],
    "replicas": [{"name": "blue-0", "pid": 21}],
    "shards": [{"name": "shared-0", "pid": None}],
}


def test_the_victim_is_a_running_part_of_its_kind() -> None:
    assert victim(FLEET, "worker", random.Random(1)) == victim(FLEET, "replica", random.Random(1)) == ("blue-0", 21)
    assert victim(FLEET, "shard", random.Random(1)) is None
    assert victim({}, "edge", random.Random(1)) is None


def test_the_redis_that_is_killed_is_the_one_that_was_meant() -> None:
    names = ("redis_blue", "redis_green", "redis_shared")
    fleet = {"active_color": "green", "redis": [{"name": name, "pid": 10 + i} for i, name in enumerate(names)]}
    for seed in range(5):
        assert victim(found(fleet), "redis", random.Random(seed)) == ("redis_green", 11)
        assert victim(fleet, "control", random.Random(seed)) == ("redis_shared", 12)


def test_chance_chooses_and_a_seed_makes_it_choose_again() -> None:
    chosen = [[victim(FLEET, "edge", chance) for _ in range(20)] for chance in (random.Random(1), random.Random(1))]
    assert chosen[0] == chosen[1]
    assert len(set(chosen[0])) == 2


@asynccontextmanager
async def sleeper(code: str = "import time; time.sleep(60)") -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        yield process
    finally:
        for child in psutil.Process(process.pid).children() if process.returncode is None else ():
            child.kill()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


WORKERS = """
import multiprocessing, time
context = multiprocessing.get_context("spawn")
if __name__ == "__main__":
    [context.Process(target=time.sleep, args=(60,)).start() for _ in range(2)]
    time.sleep(60)
"""


async def test_a_worker_is_a_process_that_the_replica_started_or_the_replica_itself() -> None:
    async with sleeper() as alone:
        assert worker_of(alone.pid, random.Random(1)) == alone.pid
    async with sleeper(WORKERS) as parent:
        chance = random.Random(1)
        await until(lambda: len({worker_of(parent.pid, chance) for _ in range(50)} - {parent.pid}) == 2)
        assert worker_of(2**22 + 1, chance) == 2**22 + 1


class Notes(list[tuple[str, dict[str, Any]]]):
    def __call__(self, name: str, **more: Any) -> None:
        self.append((name, more))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self]


async def perform(*events: Event, note: Notes) -> int:
    return await Faults(events, "ws://127.0.0.1:1/ws/", None, 10, 1, note).perform(monotonic_ns())


async def test_a_kill_is_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    async with sleeper() as process:

        async def status(url: str, project: str | None) -> dict[str, Any]:
            return {"shards": [{"name": "shared-1", "pid": process.pid}]}

        monkeypatch.setattr(target, "status", status)
        begun = monotonic_ns()
        assert await perform(Event(0, kill="shard"), note=notes) == 0
        assert await process.wait() == -signal.SIGKILL
        [(name, told)] = notes
        assert (name, told["pid"]) == ("kill shard: shared-1", process.pid)
        assert begun <= told["at_ns"] <= monotonic_ns()


async def test_nobody_to_kill_is_a_failure() -> None:
    notes = Notes()
    assert await perform(Event(0, kill="edge"), note=notes) == 1
    assert notes.names == ["kill edge: none is running"]


async def test_commands_wait_for_one_another_and_the_first_failure_counts() -> None:
    notes = Notes()
    slow, fast = Event(0, command="sleep 0.3; echo a; exit 3"), Event(0.1, command="echo b")
    assert await perform(slow, fast, note=notes) == 3
    assert notes.names == [f"{event.command}: {end}" for event in (slow, fast) for end in ("start", "end")]
    assert [more["output"] for _, more in notes if more] == [["a"], ["b"]]


async def test_what_comes_after_waits_for_what_was_before_however_long_that_takes() -> None:
    notes = Notes()
    events = [Event(after=0, command="sleep 0.3; exit 2"), Event(after=0.1, command="true")]
    begin = monotonic_ns()
    assert await perform(*events, note=notes) == 2
    assert notes.names == [f"{event.command}: {end}" for event in events for end in ("start", "end")]
    assert monotonic_ns() - begin > 0.4e9


async def test_a_task_that_does_not_exist_is_a_failure() -> None:
    notes = Notes()
    assert await perform(Event(0, run="nonsense"), note=notes) != 0


def command_lines() -> list[str]:
    """Give those of this process's descendants that live."""
    return [" ".join(words_of(child)) for child in psutil.Process().children(recursive=True)]


async def test_cancelled_it_leaves_no_command_behind() -> None:
    notes = Notes()
    task = asyncio.create_task(perform(Event(0, command="sleep 61.25"), note=notes))
    await until(lambda: any("61.25" in line for line in command_lines()))
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await until(lambda: not any("61.25" in line for line in command_lines()))

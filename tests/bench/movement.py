"""What a reshard costs: slots that move, and how long a slot's publishes wait while it does.

Not a test: ``python -m tests.bench.movement`` prints tables of both.

Movement and balance of our ring are set beside plain consistent hashing (100 points a shard on a ring) and
channels_redis (a hash's first 12 bits, shared out evenly). The pause is measured on real Redis servers, from the side
of the publishers: from the moment at which a slot's old owner has closed it until its new owner has taken a publish.
"""

from __future__ import annotations

import asyncio
import bisect
import hashlib
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from binascii import crc32
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop
from redis.asyncio import Redis

from shards import ring
from shards.aio import end
from shards.fleet import reshard
from shards.hub import Message
from shards.log import move
from shards.log.log import Place, body_of
from shards.plane import Plane
from shards.router.control import Control, WorkerRecord
from shards.router.table import Shard, SlotTable
from shards.settings import Credentials, Settings
from tests.redis_server import RedisServer

COUNTS = (2, 3, 4, 5)
KEYS = [f"room:{number}" for number in range(100_000)]
POINTS = 100

Owners = Sequence[str]


def of_ours(previous: Owners | None, count: int) -> Owners:
    """Place every group as our ring does: slots first, then groups by their slots."""
    return ring.assign({f"shared-{i}": 1.0 for i in range(count)}, previous)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[:8], "big")


def of_consistent_hashing(_: Owners | None, count: int) -> Owners:
    """Place every group at the next point on a ring."""
    points = sorted((_digest(f"shared-{i}:{point}"), f"shared-{i}") for i in range(count) for point in range(POINTS))
    places = [place for place, _ in points]
    return [points[bisect.bisect(places, _digest(key)) % len(points)][1] for key in KEYS]


def of_channels_redis(_: Owners | None, count: int) -> Owners:
    """Place every group as channels_redis 4 does."""
    return [f"shared-{int((crc32(key.encode()) & 0xFFF) / (4096 / count))}" for key in KEYS]


WAYS: dict[str, Callable[[Owners | None, int], Owners]] = {
    "shards": of_ours,
    "consistent hashing": of_consistent_hashing,
    "channels_redis": of_channels_redis,
}


def movement() -> None:
    """Print what moves, and the balance, for 2, 3, 4 and 5 shards in turn."""
    print(f"{'':20}" + "".join(f"{f'{a} -> {b}':>22}" for a, b in itertools.pairwise(COUNTS)))
    print(f"{'least possible':20}" + "".join(f"{f'{100 / count:.1f} %':>22}" for count in COUNTS[1:]))
    for name, place in WAYS.items():
        before, cells = place(None, COUNTS[0]), []
        for count in COUNTS[1:]:
            after = place(before, count)
            part = sum(old != new for old, new in zip(before, after, strict=True)) / len(after)
            balance = max(Counter(after).values()) / (len(after) / count)
            cells.append(f"{100 * part:.1f} %, max/avg {balance:.2f}")
            before = after
        print(f"{name:20}" + "".join(f"{cell:>22}" for cell in cells))


# -- the pause

GROUPS = [f"room-{number}" for number in range(1000)]
PROBES = {ring.slot_of(name): name for name in (f"probe-{number}" for number in range(12_000))}
PUBLISHERS, RATE = 200, 2000
FILL = """
for i = 2, #ARGV, 2 do
  local name = ARGV[i] .. ':' .. ARGV[i + 1]
  local meta = redis.call('HMGET', 'meta:' .. name, 'offset', 'seen')
  for offset = meta[1] + 1, meta[1] + 1000 do
    redis.call('XADD', 'log:' .. name, offset .. '-0', 't', '9000000000000', 'm', ARGV[1])
    if offset % 8 == 0 then
      redis.call('HSET', 'seen:' .. name .. ':' .. meta[2], 'session-of-the-past ' .. offset, offset)
    end
  end
  redis.call('HSET', 'meta:' .. name, 'offset', meta[1] + 1000)
end
"""


class Member:
    """Someone who listens, to all groups, and counts what it hears and the gaps: nothing may be lost.

    The hub calls from the event loop, which would only log an exception.
    """

    public_id = None

    def __init__(self) -> None:
        self.gaps = 0
        self.subscribed = 0
        self.heard: set[tuple[str, int]] = set()
        self.wrong = 0
        self._last: dict[str, int] = {}

    def has_room(self, _: int) -> bool:
        """It takes all."""
        return True

    def on_subscribed(self, *_: object) -> None:
        """Count the groups that it follows."""
        self.subscribed += 1

    def on_message(self, message: Message) -> None:
        """Keep its place; one that is not after the last one comes twice, or out of order."""
        group, offset = message.group, message.entry.offset
        self.wrong += offset <= self._last.get(group, 0)
        self._last[group] = offset
        self.heard.add((group, offset))

    def on_gap(self, *_: object) -> None:
        """Count it."""
        self.gaps += 1

    def on_unavailable(self, *_: object) -> None: ...


class Load:
    """Publishers at a steady pace, to groups at random; none waits for another."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.latencies: list[float] = []
        self.refused = 0
        self.acked: set[tuple[str, int]] = set()
        self._tasks = [asyncio.create_task(self._publish(number)) for number in range(PUBLISHERS)]

    async def _publish(self, number: int) -> None:
        loop, choose = asyncio.get_running_loop(), random.Random(number)
        due, sent = loop.time() + choose.random(), 0
        while True:
            await asyncio.sleep(max(0, due - loop.time()))
            due, sent = due + PUBLISHERS / RATE, sent + 1
            body = body_of(str(sent), b'"%064d"' % sent)
            group = choose.choice(GROUPS)
            done = self.plane.log.publish(group, f"session-of-client-{number}", str(sent), body)
            done.add_done_callback(self._note(group, time.perf_counter()))

    def _note(self, group: str, at: float) -> Callable[[asyncio.Future[Place]], None]:
        def acked(done: asyncio.Future[Place]) -> None:
            if done.exception() is None:
                self.acked.add((group, done.result().offset))
                self.latencies.append(1000 * (time.perf_counter() - at))
            else:
                self.refused += 1

        return acked

    async def stop(self) -> None:
        """Publish no more; returns once what is under way is acked."""
        await end(self._tasks)
        await asyncio.sleep(1)


async def pause_of(plane: Plane, slot: int, version: int, closed: float) -> float:
    """Publish to a slot until its owner by the table of `version` takes it; gives how long after `closed`, in ms."""
    group = PROBES[slot]
    for number in itertools.count():
        await plane.log.publish(group, f"probe-{closed}", str(number), body_of("p", b"0"))
        if plane.log.table is not None and plane.log.table.since[slot] >= version:
            break
    return 1000 * (time.perf_counter() - closed)


async def reshard_from_here(control: str, urls: Sequence[str]) -> None:
    """Run a reshard, in a process of its own, as the command does; tell of each step as it closes its slots."""
    real = move.close

    async def close(shard: Redis, slots: Sequence[int], version: int) -> dict[move.Group, move.Head]:
        print(time.perf_counter(), version, *slots, flush=True)
        return await real(shard, slots, version)

    move.close = close
    shards = [Shard(f"shared-{i}", url) for i, url in enumerate(urls)]
    async with Redis.from_url(control) as redis:
        await reshard.reshard(Control(redis), shards, reshard.Access(lambda _: Credentials()), lambda *_: None)


async def pauses(plane: Plane, control: RedisServer, shards: Sequence[RedisServer]) -> list[float]:
    """Reshard; gives the pause of each slot that moves, in ms."""
    command = [sys.executable, "-m", "tests.bench.movement", control.url, *(shard.url for shard in shards)]
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    probes: list[asyncio.Task[float]] = []
    async for line in child.stdout:
        at, version, *slots = line.split()
        for slot in map(int, slots):
            probes.append(asyncio.create_task(pause_of(plane, slot, int(version), float(at))))
    assert await child.wait() == 0
    return await asyncio.gather(*probes)


async def be_registered(plane: Plane) -> None:
    """Say, as workers do each second, by which slot table this process works: a reshard looks."""
    while True:
        version = plane.log.table.version if plane.log.table else 0
        record = WorkerRecord("blue-0/0", "blue", "blue-0", "0", os.getpid(), "active", 0, "r", version, 0.0)
        await plane.control.heartbeat(record, b"[]")
        await asyncio.sleep(1)


async def fill(plane: Plane, shards: Sequence[RedisServer]) -> None:
    """Give every group a full history."""
    table = plane.log.table
    assert table is not None
    for number, server in enumerate(shards):
        async with Redis.from_url(server.url, socket_timeout=30) as redis:
            mine = [group for group in GROUPS if plane.log.owner(group) == f"shared-{number}"]
            for start in range(0, len(mine), 5):
                arguments = [field for group in mine[start : start + 5] for field in (ring.slot_of(group), group)]
                await redis.eval(FILL, 0, "x" * 90, *arguments)  # type: ignore[misc]


async def measure(directory: Path, full: bool) -> int:
    """Print the pauses of a reshard from two to four shards under load; give how many publishes failed, and losses."""
    control, *shards = [RedisServer(directory / f"{full}-{number}").start() for number in range(5)]
    async with Redis.from_url(control.url) as redis:
        first = SlotTable.first([Shard(f"shared-{i}", shard.url) for i, shard in enumerate(shards[:2])])
        await Control(redis).swap_table(first, 0)
    plane, other = [Plane(Settings(message_redis_url=control.url)) for _ in range(2)]
    for one in (plane, other):
        await one.start()
        await one.until_ready()
    for group in GROUPS:
        await plane.log.publish(group, "first", "1", body_of("1", b"1"))
    if full:
        await fill(plane, shards)
    member = Member()
    for group in GROUPS:
        other.hub.join(group, member)
    async with asyncio.timeout(60):
        while member.subscribed < len(GROUPS):
            await asyncio.sleep(0.1)
    load, heart = Load(plane), asyncio.create_task(be_registered(plane))
    await asyncio.sleep(3)
    calm, load.latencies = load.latencies, []
    began = time.perf_counter()
    waited = await pauses(plane, control, shards)
    seconds = time.perf_counter() - began
    await load.stop()
    await end([heart])
    for one in (plane, other):
        await one.stop()
    for server in (control, *shards):
        server.kill()
    print(f"{'full' if full else 'short'} histories: {len(waited)} slots in {seconds:.1f} s")
    print(f"  pause of a slot, ms        {percentiles(waited)}")
    print(f"  publishes meanwhile, ms    {percentiles(load.latencies)}")
    print(f"  publishes before it, ms    {percentiles(calm)}")
    wrong = len(load.acked ^ member.heard) + member.wrong
    print(f"  acked and delivered        {len(load.acked):,}, lost, doubled or out of order {wrong}")
    print(f"  refused publishes          {load.refused}, gaps {member.gaps}")
    return load.refused + member.gaps + wrong + (not load.acked)


def percentiles(values: Sequence[float]) -> str:
    """Sum up what was measured."""
    found = sorted(values)
    p50, p99 = (found[int(len(found) * part)] for part in (0.5, 0.99))
    return f"p50 {p50:.1f}, p99 {p99:.1f}, max {found[-1]:.1f}"


def main() -> None:
    """Print both; with arguments, be the process that reshards."""
    if len(sys.argv) > 1:
        asyncio.run(reshard_from_here(sys.argv[1], sys.argv[2:]))
        return
    movement()
    with tempfile.TemporaryDirectory() as directory:
        failures = sum(uvloop.run(measure(Path(directory), full)) for full in (False, True))
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    main()

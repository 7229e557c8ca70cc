"""A group's log against a model of it: any interleaving of what may be done to it, on real Redis servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from shards.log import move
from shards.log.shard import FENCE, PUBLISH, READ, Script
from tests.redis_server import RedisServer

SLOT, GROUP = 7, "room"
HISTORY, NODE = 5, 100
"""Messages to keep, and by how many Redis may keep more: it trims whole nodes."""

NEWER_COPY = Script("copy")
NEWER_COPY.source = NEWER_COPY.source.replace(
    "'RESTORE', key, math.max(0, ttl), dump",
    r"'RESTORE', key, math.max(0, ttl), string.sub(dump, 1, -11) .. '\255\255' .. string.sub(dump, -8)",
)
"""As of a Redis whose dumps have a version that the servers here don't know."""

_servers: list[RedisServer] = []


def setup_module() -> None:
    directory = TemporaryDirectory()
    stack.enter_context(directory)
    for name in ("a", "b"):
        _servers.append(RedisServer(Path(directory.name) / name).start())
        stack.callback(_servers[-1].kill)


def teardown_module() -> None:
    stack.close()
    _servers.clear()


stack = ExitStack()


class Log(RuleBasedStateMachine):
    """Two shards, one group; the model is the list of what was acked."""

    def __init__(self) -> None:
        super().__init__()
        self.shards = [Redis.from_url(server.url) for server in _servers]
        for shard in self.shards:
            shard.flushall()
            shard.config_set("stream-node-max-entries", NODE)
        self.owner, self.version = 0, 1
        self.closed_for: int | None = None
        self.epochs = 0
        self.epoch: bytes | None = None
        self.acked: list[bytes] = []
        self.marks: dict[str, int] = {}
        self.age_ms, self.idle_ms = 60_000, 600_000
        self.trimmed_to = 0
        self.copied: dict[move.Group, move.Head] | None = None

    @initialize()
    def begin(self) -> None:
        self.shards[0].eval(FENCE.source, 1, "fence", SLOT, 1)

    def publish(self, shard: int, version: int, mark: str, body: bytes) -> Any:
        self.epochs += 1
        name = f"{SLOT}:{GROUP}"
        keys = ["fence", f"meta:{name}", f"log:{name}", f"seen:{name}:", f"index:{SLOT}"]
        args = [SLOT, version, mark, body, f"e{self.epochs}", GROUP, HISTORY, self.age_ms, self.idle_ms, 120_000]
        return self.shards[shard].eval(PUBLISH.source, len(keys), *keys, *args)

    def read(self, shard: int, version: int, after: int, most: int) -> Any:
        self.epochs += 1
        name = f"{SLOT}:{GROUP}"
        keys = ["fence", f"meta:{name}", f"log:{name}", f"index:{SLOT}"]
        return self.shards[shard].eval(
            READ.source, len(keys), *keys, SLOT, version, f"e{self.epochs}", GROUP, after, most, self.idle_ms, 1 << 20
        )

    def acks(self, reply: Any, mark: str, body: bytes) -> None:
        """Check an ack against the model, and note it there."""
        offset, epoch = reply
        if self.epoch is None:
            self.epoch = epoch
        assert epoch == self.epoch, "the epoch changes only where history was lost"
        if mark in self.marks:
            assert offset == self.marks[mark], "a repeat has the first one's offset"
            return
        assert offset == len(self.acked) + 1, "offsets are contiguous"
        self.acked.append(body)
        self.marks[mark] = offset

    @property
    def open(self) -> bool:
        return self.closed_for is None

    @rule(id=st.integers(0, 4))
    def publish_or_repeat(self, id: int) -> None:
        """Under the version that the owner has; the same id may come again, with another body."""
        mark, body = f"s {id}", b',"n":%d}' % self.epochs
        reply = self.publish(self.owner, self.version, mark, body)
        if self.open:
            self.acks(reply, mark, body)
        else:
            assert reply[0] == -1
            assert reply[1] == -(self.closed_for or 0), "a closed fence says which version it waits for"

    @precondition(lambda self: self.open and self.marks)
    @rule(data=st.data())
    def publish_again(self, data: st.DataObject) -> None:
        """As a worker or a client does that had no answer: wherever the log has gone meanwhile."""
        mark = data.draw(st.sampled_from(sorted(self.marks)))
        self.acks(self.publish(self.owner, self.version, mark, b"again"), mark, b"again")

    @rule(count=st.integers(1, 150))
    def publish_many(self, count: int) -> None:
        """Enough for nodes to be trimmed."""
        if self.open:
            for _ in range(count):
                mark, body = f"m {len(self.acked)}", b',"m":%d}' % len(self.acked)
                self.acks(self.publish(self.owner, self.version, mark, body), mark, body)

    @rule(version=st.integers(0, 12), shard=st.integers(0, 1), after=st.integers(0, 20))
    def speak_under_another_version(self, version: int, shard: int, after: int) -> None:
        """A worker with an old slot table, or one who believes the other shard has the slot."""
        if (shard, version) == (self.owner, self.version):
            return
        assert self.publish(shard, version, "stale", b"stale")[0] == -1
        assert self.read(shard, version, after, 10)[0] == -1, "what was moved away is not read here any more"

    @rule(back=st.integers(0, 250), most=st.integers(1, 300))
    def resume(self, back: int, most: int) -> None:
        """A read gives exactly the model's messages after a place, or visibly begins later than that."""
        after = max(0, len(self.acked) - back)
        reply = self.read(self.owner, self.version, after, most)
        if not self.open:
            assert reply[0] == -1
            return
        head, epoch, entries = reply
        if self.epoch is None:
            self.epoch = epoch
        assert (head, epoch) == (len(self.acked), self.epoch)
        offsets = [entry[0] for entry in entries]
        first = offsets[0] if offsets else head + 1
        assert offsets == list(range(first, first + len(offsets))), "no holes within a page"
        assert len(entries) == min(most, head - first + 1) or first == head + 1
        assert [entry[2] for entry in entries] == [self.acked[offset - 1] for offset in offsets]
        kept = max(self.trimmed_to, head - HISTORY)
        assert first <= max(after, kept) + 1, "what history must hold is there"

    @rule()
    def grow_old(self) -> None:
        """Everything becomes older than the history may be; the next publish sweeps."""
        if self.open and self.acked:
            time.sleep(0.003)
            name = f"{SLOT}:{GROUP}"
            self.shards[self.owner].hset(f"meta:{name}", "swept", 0)
            self.age_ms = 1
            mark, body = f"old {self.epochs}", b"old"
            self.acks(self.publish(self.owner, self.version, mark, body), mark, body)
            self.trimmed_to = len(self.acked)  # this one itself may expire with its log
            self.age_ms = 60_000
            # Settings don't change in a log's life but here: its short one must not outlast this step.
            self.shards[self.owner].persist(f"log:{name}")
            self.shards[self.owner].hset(f"meta:{name}", "swept", 0)
            assert self.shards[self.owner].xlen(f"log:{name}") <= 1

    @rule()
    def be_forgotten(self) -> None:
        """Nobody reads or writes for the idle time: Redis lets the place expire, and a new log begins."""
        if self.open and self.acked:
            for key in self.shards[self.owner].keys("*:room"):
                if key.startswith(b"meta"):
                    self.shards[self.owner].pexpire(key, 0)
            self.epoch, self.acked, self.marks, self.trimmed_to = None, [], {}, 0

    @rule()
    def close_for_a_move(self) -> None:
        """A move that is killed right after it closed the fence."""
        self.closed_for = self.version + 1
        self.shards[self.owner].eval(move.CLOSE.source, 1, "fence", self.closed_for, SLOT)

    @rule()
    def copy_ahead(self) -> None:
        """A move copies while the log is in use; much may happen until it closes the fence, or it is killed before."""
        self.copied = asyncio.run(self.with_both(lambda source, target: move.copy(source, target, [SLOT])))

    @rule(times=st.integers(1, 3), cut=st.booleans(), newer=st.booleans())
    def move(self, times: int, cut: bool, newer: bool) -> None:
        """To the other shard; done over, as after a kill; its cleaning up may come late, or twice.

        One that is of a newer Redis gives dumps that the other does not take.
        """
        with pytest.MonkeyPatch.context() as patch:
            if newer:
                patch.setattr(move, "COPY", NEWER_COPY)
            self.move_over(times, cut)

    def move_over(self, times: int, cut: bool) -> None:
        version = self.version + 1

        async def carry_out(source: AsyncRedis, target: AsyncRedis) -> None:
            copied = self.copied
            for _ in range(times):
                if copied is None:
                    copied = await move.copy(source, target, [SLOT])
                await move.hand_over(source, target, [SLOT], version, copied)
                copied = None
            for _ in range(0 if cut else times):
                await move.wipe(source, [SLOT])

        asyncio.run(self.with_both(carry_out))
        self.owner, self.version, self.closed_for, self.copied = 1 - self.owner, version, None, None

    async def with_both(self, work: Callable[[AsyncRedis, AsyncRedis], Awaitable[Any]]) -> Any:
        urls = _servers[self.owner].url, _servers[1 - self.owner].url
        async with AsyncRedis.from_url(urls[0]) as source, AsyncRedis.from_url(urls[1]) as target:
            return await work(source, target)

    @precondition(lambda self: self.closed_for is not None)
    @rule()
    def workers_open_fences_again(self) -> None:
        """A worker that reconnects opens the fences that it believes in; a move's stays closed."""
        self.shards[self.owner].eval(FENCE.source, 1, "fence", SLOT, self.version)

    @invariant()
    def the_log_is_bounded(self) -> None:
        length = cast(int, self.shards[self.owner].xlen(f"log:{SLOT}:{GROUP}"))
        assert length <= HISTORY + NODE

    @invariant()
    def nothing_stays_for_ever(self) -> None:
        """Or memory would grow with every group that ever was."""
        shard = self.shards[self.owner]
        for key in [key for kind in ("meta", "seen") for key in cast(list[bytes], shard.keys(f"{kind}:*"))]:
            assert shard.pttl(key) != -1, f"{key!r} never expires"

    @invariant()
    def the_index_knows_the_group(self) -> None:
        """Or a move would leave it behind."""
        if self.shards[self.owner].exists(f"meta:{SLOT}:{GROUP}"):
            assert self.shards[self.owner].sismember(f"index:{SLOT}", GROUP)

    def teardown(self) -> None:
        for shard in self.shards:
            shard.close()


Log.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLog = Log.TestCase


def test_a_mark_lives_for_the_window_and_not_for_ever() -> None:
    """Also in a bucket that begins long after its group's last sweep."""
    window = 300
    with Redis.from_url(_servers[0].url) as redis:
        redis.flushall()
        redis.eval(FENCE.source, 1, "fence", SLOT, 1)
        name = f"{SLOT}:{GROUP}"
        keys = ["fence", f"meta:{name}", f"log:{name}", f"seen:{name}:", f"index:{SLOT}"]
        seen: dict[bytes, int] = {}
        while len(seen) < 4:
            args = [SLOT, 1, f"s {len(seen)}", "x", "e", GROUP, HISTORY, 60_000, 600_000, window]
            redis.eval(PUBLISH.source, len(keys), *keys, *args)
            bucket = cast(bytes, redis.hget(f"meta:{name}", "seen"))
            if bucket not in seen:
                seen[bucket] = cast(int, redis.pttl(f"seen:{name}:{int(bucket)}"))
        assert all(window < life <= 2 * window for life in seen.values()), seen


def test_a_mark_counts_also_where_the_last_owners_clock_was_ahead() -> None:
    """It may be in a bucket that does not begin for a while, after a slot has moved to another host."""
    with Redis.from_url(_servers[0].url) as redis:
        redis.flushall()
        redis.eval(FENCE.source, 1, "fence", SLOT, 1)
        name = f"{SLOT}:{GROUP}"
        keys = ["fence", f"meta:{name}", f"log:{name}", f"seen:{name}:", f"index:{SLOT}"]

        def publish(id: int) -> int:
            args = [SLOT, 1, f"s {id}", "x", "e", GROUP, HISTORY, 60_000, 600_000, 120_000]
            return cast(list[int], redis.eval(PUBLISH.source, len(keys), *keys, *args))[0]

        assert publish(1) == 1
        bucket = int(cast(bytes, redis.hget(f"meta:{name}", "seen")))
        redis.rename(f"seen:{name}:{bucket}", f"seen:{name}:{bucket + 1}")
        redis.hset(f"meta:{name}", "seen", bucket + 1)
        assert (publish(1), publish(2), publish(1), publish(2)) == (1, 2, 1, 2)


@pytest.mark.parametrize("script", ["read", "publish"])
def test_an_index_forgets_groups_that_have_expired(script: str) -> None:
    """Or it would grow with every group that ever was, and a move with it; also where nobody listens."""
    with Redis.from_url(_servers[0].url) as redis:
        redis.flushall()
        redis.eval(FENCE.source, 1, "fence", SLOT, 1)
        for number in range(600):
            group, name = f"g{number}", f"{SLOT}:g{number}"
            if script == "read":
                keys = ["fence", f"meta:{name}", f"log:{name}", f"index:{SLOT}"]
                redis.eval(READ.source, len(keys), *keys, SLOT, 1, "e", group, -1, 1, 600_000)
            else:
                keys = ["fence", f"meta:{name}", f"log:{name}", f"seen:{name}:", f"index:{SLOT}"]
                args = [SLOT, 1, "s 1", "x", "e", group, HISTORY, 60_000, 600_000, 120_000]
                redis.eval(PUBLISH.source, len(keys), *keys, *args)
            if number >= 10:
                redis.delete(f"meta:{SLOT}:g{number - 10}")
        assert cast(int, redis.scard(f"index:{SLOT}")) < 60, "10 live"
        assert redis.sismember(f"index:{SLOT}", "g599")

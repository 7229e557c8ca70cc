"""Who is in a group, over all workers.

Each worker writes how many members it has, and some of their public ids, to the group's shard: twice a second, and
only for groups that changed; then it announces on that shard which these were, for `shards.attendance`. Cost grows with
workers and with coming and going, not with sockets. What a dead worker wrote is left out by whoever reads, since the
registry says who lives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from shards.errors import ShardUnavailable
from shards.hub import Hub
from shards.log.link import Reply
from shards.log.log import GroupLog

MEMBERS_NAMED = 100
"""Members that each worker gives by name; `count` counts all."""

REPORTED = "!presence"
"""Channel on which a worker announces the groups whose members it has reported; no group can have this name."""

READ_SECONDS = 5.0
"""What a shard has not answered by then is unavailable."""

_FLUSH_SECONDS = 0.5
_DEAD_SECONDS = 60.0
_AGAIN_EVERY = 4
_REFRESH_EVERY = 600
"""Turns after which all is reported again; sooner where it would be forgotten in less than three times as long."""


@dataclass(frozen=True)
class Present:
    """How many are in a group, and some of them by their public ids."""

    count: int
    members: list[str]


class Presence:
    """Reports this worker's members and reads everyone's.

    Args:
        worker: this worker's name in the registry.
        hub: has this worker's members.
        log: knows each group's shard.
        living: gives the names of the workers that live.
        idle_seconds: after which a group nobody reports is forgotten; not less than a log's place lives after a
            publish, since that is set anew here.
    """

    def __init__(
        self, worker: str, hub: Hub, log: GroupLog, living: Callable[[], Awaitable[set[str]]], idle_seconds: float
    ) -> None:
        self._worker = worker
        self._hub = hub
        self._log = log
        self.living = living
        self._idle_ms = int(idle_seconds * 1000)
        self._refresh_every = max(1, min(_REFRESH_EVERY, int(idle_seconds / 3 / _FLUSH_SECONDS)))
        self._failed: set[str] = set()
        self._dead_since: dict[str, float] = {}

    async def run(self) -> None:
        """Report what changed, twice a second, until cancelled."""
        turn = 0
        while True:
            turn += 1
            changed = self._hub.take_changed(everything=turn % self._refresh_every == 0)
            if turn % _AGAIN_EVERY == 0:
                changed |= self._take_failed()
            for group in changed:
                self._report(group)
            self._log.announce(REPORTED, changed)
            await asyncio.sleep(_FLUSH_SECONDS)

    def _take_failed(self) -> set[str]:
        """Give the groups whose last report was lost, and whose shard can be told again."""
        down = set(self._log.down())
        failed, self._failed = self._failed, {group for group in self._failed if self._log.owner(group) in down}
        return failed - self._failed

    def _report(self, group: str) -> None:
        if self._hub.follows(group):
            # A group that is listened to is not idle: its place must not be forgotten while nobody talks.
            self._log.command(group, _ignore, "PEXPIRE", "meta", self._idle_ms)
        members = self._hub.present(group)

        def told(reply: Reply) -> None:
            if isinstance(reply, Exception):
                self._failed.add(group)

        if members:
            mine = msgspec.json.encode(Present(len(members), members[:MEMBERS_NAMED]))
            self._log.command(group, told, "HSET", "presence", self._worker, mine)
            self._log.command(group, _ignore, "PEXPIRE", "presence", self._idle_ms)
        else:
            self._log.command(group, told, "HDEL", "presence", self._worker)

    async def of(self, group: str) -> Present:
        """Read who is in a group: of this worker now, of others at most two seconds ago.

        Raises:
            ShardUnavailable: the group's shard did not answer within `READ_SECONDS`.
        """
        said = await self.by_worker(group)
        return Present(
            sum(present.count for present in said), [member for present in said for member in present.members]
        )

    async def by_worker(self, group: str) -> list[Present]:
        """Read what each worker that lives says of a group, this one first.

        Raises:
            ShardUnavailable: the group's shard did not answer within `READ_SECONDS`.
        """
        # As of now: who joins while others are asked is seen at the next look, and told of then.
        here = self._hub.present(group)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._log.command(group, lambda r: None if reply.done() else reply.set_result(r), "HGETALL", "presence")
        try:
            async with asyncio.timeout(READ_SECONDS):
                living = await self.living() - {self._worker}
                said = await reply
        except TimeoutError:
            said = TimeoutError()
        if not isinstance(said, dict):
            raise ShardUnavailable(self._log.owner(group) or "?", f"no answer for group {group}")
        workers = {name.decode(): value for name, value in said.items()}
        self._forget_dead(group, workers.keys() - living - {self._worker}, living)
        others = [present for name, value in workers.items() if name in living and (present := _read(value))]
        return [Present(len(here), here[:MEMBERS_NAMED]), *others]

    def _forget_dead(self, group: str, dead: set[str], living: set[str]) -> None:
        """Delete what workers said that have been dead for long: a registry that was lost is soon filled again."""
        now = time.monotonic()
        for worker in living:
            self._dead_since.pop(worker, None)
        gone = [worker for worker in dead if now - self._dead_since.setdefault(worker, now) > _DEAD_SECONDS]
        if gone:
            self._log.command(group, _ignore, "HDEL", "presence", *gone)


def _ignore(_reply: Reply) -> None:
    """What is lost of this is done again sooner or later."""


def _read(said: bytes) -> Present | None:
    """Read what a worker says; None: it is of a release that says it in another way."""
    try:
        return msgspec.json.decode(said, type=Present)
    except msgspec.MsgspecError:
        return None

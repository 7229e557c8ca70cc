"""Who is in a group, over all workers.

Each worker writes how many members it has, and some of their public ids, to the group's shard: twice a second, and
only for groups that changed; then it announces on that shard which these were, for `shards.attendance`. Cost grows with
workers and with coming and going, not with sockets. What a dead worker wrote is left out by whoever reads, since the
registry says who lives.
"""

from __future__ import annotations

import asyncio
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
_REFRESH_EVERY = 600


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
        idle_seconds: after which a group nobody reports is forgotten.
    """

    def __init__(
        self, worker: str, hub: Hub, log: GroupLog, living: Callable[[], Awaitable[set[str]]], idle_seconds: float
    ) -> None:
        self._worker = worker
        self._hub = hub
        self._log = log
        self.living = living
        self._idle_ms = int(idle_seconds * 1000)

    async def run(self) -> None:
        """Report what changed, twice a second, until cancelled."""
        turn = 0
        while True:
            turn += 1
            changed = self._hub.take_changed(everything=turn % _REFRESH_EVERY == 0)
            for group in changed:
                self._report(group)
            self._log.announce(REPORTED, changed)
            await asyncio.sleep(_FLUSH_SECONDS)

    def _report(self, group: str) -> None:
        members = self._hub.present(group)
        if members:
            mine = msgspec.json.encode(Present(len(members), members[:MEMBERS_NAMED]))
            self._log.command(group, _ignore, "HSET", "presence", self._worker, mine)
            self._log.command(group, _ignore, "PEXPIRE", "presence", self._idle_ms)
            # A group that is listened to is not idle: its place must not be forgotten while nobody talks.
            self._log.command(group, _ignore, "PEXPIRE", "meta", self._idle_ms)
        else:
            self._log.command(group, _ignore, "HDEL", "presence", self._worker)

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
        if isinstance(said, Exception):
            raise ShardUnavailable(self._log.owner(group) or "?", f"no answer for group {group}")
        others = [msgspec.json.decode(value, type=Present) for name, value in said.items() if name.decode() in living]
        return [Present(len(here), here[:MEMBERS_NAMED]), *others]


def _ignore(_reply: Reply) -> None:
    """A report that is lost is made again: when the shard is up, all its groups count as changed."""

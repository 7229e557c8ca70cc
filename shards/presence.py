"""Who is in a group, over all workers.

Each worker writes how many members it has, and some of their public ids, to the group's shard: once a second, and
only for groups that changed. Cost grows with workers and with coming and going, not with sockets. What a dead worker
wrote is left out by whoever reads, since the registry says who lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from shards.hub import Hub
from shards.log.link import Reply
from shards.log.log import GroupLog

MEMBERS_NAMED = 100
"""Members that each worker gives by name; `count` counts all."""

_FLUSH_SECONDS = 1.0
_REFRESH_EVERY = 300


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
        self._living = living
        self._idle_ms = int(idle_seconds * 1000)

    async def run(self) -> None:
        """Report what changed, once a second, until cancelled."""
        turn = 0
        while True:
            turn += 1
            for group in self._hub.take_changed(everything=turn % _REFRESH_EVERY == 0):
                self._report(group)
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
            LinkLost: the group's shard is down.
            hiredis.ReplyError: it refused.
        """
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._log.command(group, lambda r: None if reply.done() else reply.set_result(r), "HGETALL", "presence")
        living = await self._living() - {self._worker}
        said = await reply
        if isinstance(said, Exception):
            raise said
        here = self._hub.present(group)
        others = [msgspec.json.decode(value, type=Present) for name, value in said.items() if name.decode() in living]
        return Present(
            len(here) + sum(other.count for other in others),
            here[:MEMBERS_NAMED] + [member for other in others for member in other.members],
        )


def _ignore(_reply: Reply) -> None:
    """A report that is lost is made again: when the shard is up, all its groups count as changed."""

"""One controller at a time: a lease in the control Redis, with a fence that keeps an overtaken one from writing.

A lease runs out where its holder does not renew it, and is taken over at once where the holder is known to be dead.
Each that takes it gets a number, one more each time. Whoever writes under a number that is not the latest is refused,
however long it was paused in between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import msgspec
from redis.asyncio import Redis

from shards.errors import LeaseHeld

LEASE_MS = 10_000
"""For how long a lease is good that is not renewed."""

FENCE = "shards:fence"
_LEASE = "shards:lease"


@dataclass(frozen=True)
class Holder:
    """Who holds the lease.

    Attributes:
        command: what it does.
        host: on which host it runs, since that was booted.
        pid: its process there.
        started: when that process started, seconds since 1970.
        since: when it took the lease, seconds since 1970.
    """

    command: str
    host: str
    pid: int
    started: float
    since: float


def _script(name: str) -> str:
    return (files("shards.router") / "lua" / f"{name}.lua").read_text()


class Lease:
    """The lease of a fleet.

    Args:
        redis: a client of the control Redis. The caller closes it.
        holder: who asks.

    Every method raises `redis.exceptions.RedisError` where the server does not answer.
    """

    def __init__(self, redis: Redis, holder: Holder) -> None:
        self.fence = 0
        self._redis = redis
        self._me = msgspec.json.encode(holder)
        self._take = redis.register_script(_script("take_lease"))
        self._renew = redis.register_script(_script("renew_lease"))

    async def take(self, dead: Callable[[Holder], bool]) -> None:
        """Take the lease; `fence` is its number then.

        Args:
            dead: tells of a holder that it is dead for certain.

        Raises:
            LeaseHeld: somebody else has it.
        """
        held = await self._redis.get(_LEASE)
        known_dead = held if held and dead(msgspec.json.decode(held, type=Holder)) else b""
        fence, other = await self._take(keys=[_LEASE, FENCE], args=[self._me, LEASE_MS, known_dead])
        if not fence:
            holder = msgspec.json.decode(other, type=Holder)
            raise LeaseHeld(holder.command, holder.pid, holder.since)
        self.fence = int(fence)

    async def renew(self) -> bool:
        """Hold it for another while; False: somebody else has taken it."""
        return bool(await self._renew(keys=[_LEASE, FENCE], args=[self._me, LEASE_MS, self.fence]))

    async def release(self) -> None:
        """Give it back, unless somebody else has taken it."""
        await self._renew(keys=[_LEASE, FENCE], args=["", 0, self.fence])

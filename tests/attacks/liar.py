"""A fleet one of whose shards lies: what clients of the other one notice, while it answers nonsense."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.attacks.attacker import Attacker, attack
from tests.redis_server import RedisServer
from tests.test_redis_garbage import GARBAGE, Garbling

_CHANGE_S = 0.5


class Liar(Garbling):
    """Stands before a shard; passes on what it says, until it is told to lie."""

    async def lie(self, seconds: float) -> Counter[str]:
        """Answer nonsense of every kind for so long; gives what it was asked meanwhile."""
        until, before = time.monotonic() + seconds, len(self.requests)
        count: Counter[str] = Counter()
        while (left := until - time.monotonic()) > 0:
            self.garbage = random.choice(GARBAGE) * random.choice((1, 1, 50))
            count["kinds of nonsense"] += 1
            await asyncio.sleep(min(left, _CHANGE_S))
        self.garbage = b""
        count["worker came back"] = len(self.requests) - before
        return count


@attack("kinds of nonsense", "worker came back", stage="liar", least_s=10)
async def lying_redis(attacker: Attacker) -> None:
    """One of two shards that run elsewhere answers nonsense of seven kinds; the ordinary clients are on the other."""
    raise NotImplementedError("the session itself does this: `Liar.lie`")


@asynccontextmanager
async def two_shards(directory: Path) -> AsyncIterator[tuple[RedisServer, Liar]]:
    """Two shards that run elsewhere; the second one behind a liar."""
    servers = [RedisServer(directory / name, with_app=False) for name in ("honest", "lied-about")]
    try:
        for server in servers:
            await asyncio.to_thread(server.start)
        async with Liar(servers[1].port) as liar:
            yield servers[0], liar
    finally:
        for server in servers:
            if server.process is not None:
                server.kill()

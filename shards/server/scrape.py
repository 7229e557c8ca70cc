"""What `/metrics` answers, made no more often than a worker can bear that does other things too.

Anybody may ask, any number at once, and each page is work: the whole fleet's is read from the control Redis, and grows
with the number of workers. So it is made once a second at most, by one at a time, and not on the event loop that
delivers messages. A worker's own is made anew each time, as tools and tests expect, up to a bound.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from redis.exceptions import RedisError

from shards.rate import TokenBucket
from shards.server.exposition import Family, render
from shards.server.worker import Worker

_FRESH_S = 1.0
"""Workers say how they do once a second: a page is not older than what is on it."""

_OWN_A_SECOND, _OWN_AT_ONCE = 100.0, 200.0


class Scrape:
    """The two pages of a worker."""

    def __init__(self) -> None:
        self._made_at = float("-inf")
        self._fleet: bytes | None = None
        self._making = asyncio.Lock()
        self._own = b""
        self._may_make_own = TokenBucket(_OWN_A_SECOND, _OWN_AT_ONCE)

    def own(self, worker: Worker) -> bytes:
        """Give the page of this worker alone; who asks too often gets the last one."""
        if self._may_make_own.take(time.monotonic()):
            self._own = render([worker.samples()])
        return self._own

    async def fleet(self, worker: Worker) -> bytes | None:
        """Give that of the whole fleet, at most a second old; None: the control Redis does not answer."""
        async with self._making:
            if time.monotonic() - self._made_at > _FRESH_S:
                self._fleet = await _page(worker)
                self._made_at = time.monotonic()
            return self._fleet


async def _page(worker: Worker) -> bytes | None:
    control, mine = worker.plane.control, worker.samples()
    try:
        records = {record.name for record in await control.workers()}
        workers = await control.metrics(records - {worker.plane.worker})
    except (RedisError, OSError):
        return None
    return await asyncio.to_thread(render, [mine, *workers], [_slots(worker), *await worker.servers.families()])


def _slots(worker: Worker) -> Family:
    table = worker.plane.log.table
    load = Counter(table.owner_names() if table else ())
    shards = [shard.name for shard in table.shards] if table else []
    samples = [("shards_slots", {"shard": name}, float(load[name])) for name in shards]
    return Family("shards_slots", "Slots a shard owns", "gauge", samples)

"""/metrics, which anybody may ask for as often as he likes: it costs a worker no more for that."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter

from shards.server.exposition import encode
from shards.server.scrape import Scrape
from tests.replica import Replica


class Worker:
    """A worker that counts how often it is asked how it does, and the registry as well."""

    def __init__(self) -> None:
        self.asked = self.read = self.at_once = 0
        self.fails = False
        self._registry = CollectorRegistry()
        self._counter = Counter("app_asked", "", registry=self._registry)
        self.plane = SimpleNamespace(worker="blue-0/1", log=SimpleNamespace(table=None), control=self)
        self.servers = self

    def samples(self) -> bytes:
        self.asked += 1
        self._counter.inc()
        return encode(self._registry, {"color": "blue", "replica": "blue-0", "worker": "1"})

    async def workers(self) -> list[Any]:
        self.read += 1
        self.at_once += 1
        await asyncio.sleep(0.05)
        assert self.at_once == 1, "one at a time"
        self.at_once -= 1
        if self.fails:
            raise ConnectionError
        return []

    async def metrics(self, _names: object) -> list[bytes]:
        return []

    async def families(self) -> list[Any]:
        return []


@pytest.fixture
def worker() -> Any:
    return Worker()


async def test_the_page_of_the_fleet_is_made_once_a_second_however_many_ask(worker: Worker) -> None:
    scrape = Scrape()
    pages = await asyncio.gather(*(scrape.fleet(cast(Any, worker)) for _ in range(1000)))
    assert worker.read == 1
    assert len(set(pages)) == 1
    await asyncio.sleep(1.1)
    assert await scrape.fleet(cast(Any, worker)) != pages[0], "it is not older than a second"


async def test_one_that_cannot_be_made_is_not_tried_for_each_who_asks_either(worker: Worker) -> None:
    scrape, worker.fails = Scrape(), True
    assert set(await asyncio.gather(*(scrape.fleet(cast(Any, worker)) for _ in range(1000)))) == {None}
    assert worker.read == 1
    worker.fails = False
    await asyncio.sleep(1.1)
    assert await scrape.fleet(cast(Any, worker)) is not None


async def test_a_workers_own_page_is_new_each_time_up_to_a_bound(worker: Worker) -> None:
    scrape, began = Scrape(), time.monotonic()
    first, second = scrape.own(cast(Any, worker)), scrape.own(cast(Any, worker))
    assert b"app_asked_total" in first
    assert first != second
    for _ in range(1000):
        scrape.own(cast(Any, worker))
    assert 200 <= worker.asked <= 201 + 100 * (time.monotonic() - began)


async def test_who_asks_again_and_again_is_little_work(service: list[Replica]) -> None:
    """Of a real worker: a page that is made anew takes it some milliseconds, one that is there a twentieth of that."""

    async def ask(count: int) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", service[0].port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()

    assert service[0].process is not None
    worker = psutil.Process(service[0].process.pid)
    before = worker.cpu_times()
    await asyncio.gather(*(ask(100) for _ in range(10)))
    after = worker.cpu_times()
    took = after.user + after.system - before.user - before.system
    assert took < 0.9, took

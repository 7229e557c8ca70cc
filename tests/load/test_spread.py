"""Where the sockets are is read from `/metrics`; what is no such page is no sample."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shards.load.spread import Spread, read, settled

PAGE = """# HELP app_active_connections WebSockets open
# TYPE app_active_connections gauge
app_active_connections{color="blue",replica="blue-0",worker="a"} 3.0
app_active_connections{color="blue",replica="blue-0",worker="b"} 4.0
app_active_connections{color="green",replica="green-1",worker="c"} 5.0
app_connections_total{color="blue",replica="blue-0",worker="a"} 99.0
shards_ring_version{color="blue",replica="blue-0",worker="a"} 7.0
shards_ring_version{color="green",replica="green-1",worker="c"} 8.0
shards_slots{shard="shared-0"} 512.0
shards_slots{shard="shared-1"} 512.0
"""


def test_workers_of_a_replica_are_one_and_the_newest_version_counts() -> None:
    assert read(PAGE) == {
        "replicas": {"blue-0": 7, "green-1": 5},
        "colors": {"blue": 7, "green": 5},
        "slots": {"shared-0": 512, "shared-1": 512},
        "version": 8,
    }


def test_what_is_no_metrics_page_is_no_sample() -> None:
    assert read("<html>not found</html>") is None
    assert read("app_active_connections{{{ 3") is None


@asynccontextmanager
async def serving(*pages: str) -> AsyncIterator[str]:
    """Serve each page once, the last one for ever."""
    left = list(pages)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = left.pop(0) if len(left) > 1 else left[0]
        writer.write(f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(page)}\r\n\r\n{page}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"


async def test_the_ring_before_and_after() -> None:
    async with serving(PAGE, PAGE.replace('"} 512.0', '"} 341.0').replace("} 8.0", "} 9.0")) as url:
        spread = Spread(url)
        await spread.sample(lambda: 1.0)
        await spread.sample(lambda: 2.0)
    ring = spread.ring()
    assert ring is not None
    assert (ring["before"]["version"], ring["after"]["version"]) == (8, 9)
    assert ring["after"]["slots"]["shared-1"] == 341


async def test_who_does_not_answer_is_not_sampled() -> None:
    spread = Spread("http://127.0.0.1:1/metrics")
    await spread.sample(lambda: 0.0)
    assert spread.samples == []
    assert spread.ring() is None


async def test_settled_once_no_socket_is_left() -> None:
    empty = PAGE.replace(" 3.0", " 0.0").replace(" 4.0", " 0.0").replace(" 5.0", " 0.0")
    async with serving(PAGE, empty) as url, asyncio.timeout(10):
        await settled(url)

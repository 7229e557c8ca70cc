"""What many tests need: Redis servers, and planes of a fleet made of them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from shards.plane import Plane
from shards.router.control import Control
from shards.router.table import Shard, SlotTable
from shards.settings import Settings
from tests.contract.engines import docker_environment
from tests.redis_server import AS_APP, RedisServer
from tests.swarm.lab import Lab, lab, missing

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis fails examples that take over 200 ms, and data that is slow to make: on a busy machine that is chance.
# A change is judged by the same examples each time, by new ones wherever else the tests run.
settings.register_profile(
    "shards", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("shards")


@dataclass
class Redises:
    """The Redis servers of a small fleet."""

    control: RedisServer
    shards: list[RedisServer]

    def settings(self) -> Settings:
        return Settings(message_redis_url=self.control.url, channel_redis_url=self.control.url, **AS_APP)

    def table(self) -> SlotTable:
        return SlotTable.first([Shard(f"shared-{i}", shard.url) for i, shard in enumerate(self.shards)])


@pytest.fixture(autouse=True)
def members_do_not_fail(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a member of a group finds wrong is logged by the hub, so that others hear on; in a test it is an error."""
    found: list[logging.LogRecord] = []
    watch = logging.Handler(logging.ERROR)
    watch.emit = found.append  # type: ignore[method-assign]
    log = logging.getLogger("shards.hub")
    log.addHandler(watch)
    yield
    log.removeHandler(watch)
    assert not found or request.node.get_closest_marker("member_fails"), found[0].exc_info


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start Redis servers that are gone after the test."""
    servers: list[RedisServer] = []

    def start(*options: str, sentinel: str = "") -> RedisServer:
        server = RedisServer(tmp_path / f"redis-{len(servers)}", *options, sentinel=sentinel).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        if server.process is not None:
            server.kill()


@pytest.fixture
async def redises(start_redis: Callable[..., RedisServer]) -> Redises:
    """A control Redis with the first slot table, and two shards."""
    servers = Redises(start_redis(), [start_redis(), start_redis()])
    async with Redis.from_url(servers.control.url) as redis:
        await Control(redis).swap_table(servers.table(), 0)
    return servers


@pytest.fixture
async def start_plane(redises: Redises) -> AsyncIterator[Callable[..., object]]:
    """Start planes that are stopped after the test."""
    async with AsyncExitStack() as stack:

        async def start(until_ready: bool = True, **settings: object) -> Plane:
            plane = Plane(replace(redises.settings(), **settings))  # type: ignore[arg-type]
            await plane.start()
            stack.push_async_callback(plane.stop)
            if until_ready:
                await plane.until_ready(60)
            return plane

        yield start


@pytest.fixture(scope="session")
def swarm_lab() -> Iterator[Lab]:
    """Three Docker daemons on this host that are one swarm; `nox -s swarm` asks for it, since that takes minutes."""
    if not os.environ.get("SHARDS_SWARM"):
        pytest.skip("a swarm of several daemons takes minutes: `nox -s swarm`")
    if (lacking := missing()) is not None:
        pytest.fail(lacking)
    bases = docker_environment()
    assert isinstance(bases, dict), bases
    with lab(list(bases.values())) as found:
        yield found

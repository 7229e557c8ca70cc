"""The layer from any thread, event loop and process: sync code, short-lived loops, a forked child, a worker."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from redis.asyncio import Redis

from shards import layer as layer_module
from shards.errors import ShardUnavailable
from shards.layer import ShardedChannelLayer
from shards.mailbox import MOST_CONNECTIONS
from shards.plane import Plane
from tests.conftest import Redises
from tests.layers import nothing, receive
from tests.redis_server import RedisServer
from tests.replica import ROOT


@pytest.fixture
async def layer(redises: Redises) -> AsyncIterator[ShardedChannelLayer]:
    layer = ShardedChannelLayer(settings=redises.settings())
    yield layer
    await layer.close()


@pytest.fixture
def environ(redises: Redises, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a fleet's process."""
    for variable in ("MESSAGE_REDIS_URL", "CHANNEL_REDIS_URL"):
        monkeypatch.setenv(variable, redises.control.url)


@pytest.fixture
async def serving(redises: Redises, environ: None) -> AsyncIterator[ShardedChannelLayer]:
    """A layer in a process that is a worker of a fleet: it does its work in the server's loop."""
    plane = Plane(redises.settings())
    await plane.start()
    plane.serve()
    await plane.until_ready(60)
    layer = ShardedChannelLayer()
    yield layer
    await layer.close()
    await plane.stop()


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Do work in so many threads at once; gives what they raised."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return errors


async def test_sync_code_in_any_thread_can_send_and_receive(layer: ShardedChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)

    def work(number: int) -> None:
        async_to_sync(layer.group_send)("chat", {"type": "x", "number": number})
        async_to_sync(layer.send)("work", {"type": "x", "number": number})
        async_to_sync(layer.receive)("work")

    assert not await asyncio.to_thread(in_threads, 8, work)
    assert sorted([(await receive(layer, channel))["number"] for _ in range(8)]) == list(range(8))  # type: ignore[type-var]
    await nothing(layer, "work")


async def test_one_channel_may_be_received_from_in_several_loops_at_once(layer: ShardedChannelLayer) -> None:
    channel, got = await layer.new_channel(), []

    def work(_number: int) -> None:
        got.append(async_to_sync(layer.receive)(channel)["number"])

    working = asyncio.create_task(asyncio.to_thread(in_threads, 8, work))
    for number in range(8):
        await layer.send(channel, {"type": "x", "number": number})
    assert not await asyncio.wait_for(working, 90)
    assert sorted(got) == list(range(8))


async def test_a_sync_view_sends_to_a_group_while_the_server_runs(serving: ShardedChannelLayer) -> None:
    """Django calls sync views in a thread; from there async_to_sync comes back to the server's loop."""
    channel = await serving.new_channel()
    await serving.group_add("chat", channel)
    await sync_to_async(lambda: async_to_sync(serving.group_send)("chat", {"type": "from a view"}))()
    errors = await asyncio.to_thread(in_threads, 4, lambda _: async_to_sync(serving.group_send)("chat", {"type": "x"}))
    assert not errors
    assert [(await receive(serving, channel))["type"] for _ in range(5)] == ["from a view", "x", "x", "x", "x"]
    assert not [thread for thread in threading.enumerate() if thread.name == "shards layer"]


async def connections(servers: Redises) -> int:
    """Count the connections to all of a fleet's Redis servers."""
    total = 0
    for server in (servers.control, *servers.shards):
        async with Redis.from_url(server.url) as redis:
            total += (await redis.info("clients"))["connected_clients"] - 1
    return total


def others() -> list[threading.Thread]:
    """Give the threads but those of this loop's own pool, which has one more where the last was not idle yet."""
    return [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]


async def test_two_hundred_short_lived_loops_leave_nothing_behind(redises: Redises, layer: ShardedChannelLayer) -> None:
    def work(count: int) -> None:
        for _ in range(count):
            async_to_sync(layer.group_send)("chat", {"type": "x"})
            async_to_sync(layer.send)("work", {"type": "x"})
            async_to_sync(layer.receive)("work")

    async def tasks() -> int:
        return len(asyncio.all_tasks())

    await asyncio.to_thread(work, 3)
    threads, open_before, tasks_before = (
        len(others()),
        await connections(redises),
        await layer._home().run(tasks()),
    )
    await asyncio.to_thread(work, 200)
    gc.collect()
    assert len(others()) <= threads
    # Redis hears of a connection's end a little later.
    async with asyncio.timeout(60):
        while await connections(redises) > open_before or await layer._home().run(tasks()) > tasks_before:
            await asyncio.sleep(0.05)


async def test_a_closed_layer_leaves_no_thread_no_connection_and_works_again(redises: Redises) -> None:
    layer = ShardedChannelLayer(settings=redises.settings())
    for _ in range(3):
        channel = await layer.new_channel()
        await layer.group_add("chat", channel)
        await layer.group_send("chat", {"type": "x"})
        assert await receive(layer, channel) == {"type": "x"}
        await layer.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "shards layer"]
    async with asyncio.timeout(60):
        while await connections(redises):
            await asyncio.sleep(0.05)


async def test_a_storm_of_sends_stays_within_a_few_connections(redises: Redises) -> None:
    layer = ShardedChannelLayer(settings=redises.settings(), capacity=5000)
    channel = await layer.new_channel()
    await layer.group_add("chat", "work")
    before = await connections(redises)
    storm = asyncio.gather(*(layer.send("work", {"type": "x"}) for _ in range(1000)))
    groups = asyncio.gather(*(layer.group_send("chat", {"type": "x"}) for _ in range(1000)))
    await asyncio.gather(storm, groups)
    assert await connections(redises) - before <= MOST_CONNECTIONS
    assert channel
    await layer.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["plain process", "server"])
async def test_a_forked_child_has_a_layer_of_its_own(redises: Redises, environ: None, kind: str) -> None:
    """Even one that is forked while another thread makes the layer's home."""
    serves = kind == "server"
    plane = Plane(redises.settings())
    if serves:
        await plane.start()
        plane.serve()
    parent = ShardedChannelLayer(settings=None if serves else redises.settings())
    channel = await parent.new_channel()
    await parent.group_add("chat", channel)
    with parent._lock:
        child = os.fork()
        if child == 0:
            _in_child(parent)
    try:
        assert await receive(parent, channel, 90) == {"type": "from the child"}
        assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
        await parent.group_send("chat", {"type": "from the parent"})
        assert await receive(parent, channel) == {"type": "from the parent"}
    finally:
        await parent.close()
        await plane.stop()


def _in_child(layer: ShardedChannelLayer) -> None:
    """Send one message, in a thread since the parent's event loop is this one's too; never return."""
    message = {"type": "from the child"}
    sent = threading.Thread(target=lambda: asyncio.run(layer.group_send("chat", message)), daemon=True)
    try:
        sent.start()
        sent.join(60)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(sent.is_alive())


async def test_a_management_command_sends_to_a_group_and_ends(redises: Redises) -> None:
    """A plain process without a server: it ends at once, with nothing left that it waits for."""
    code = (
        "from asgiref.sync import async_to_sync\n"
        "from shards.layer import ShardedChannelLayer\n"
        "layer = ShardedChannelLayer()\n"
        "for n in range(3): async_to_sync(layer.group_send)('chat', {'type': 'x'})\n"
        "print('sent')\n"
    )
    url = redises.control.url
    environ = {**os.environ, "MESSAGE_REDIS_URL": url, "CHANNEL_REDIS_URL": url}
    command = [sys.executable, "-c", code]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environ, capture_output=True, text=True, timeout=90, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "sent\n", "")


async def test_a_thread_that_does_not_start_is_one_clear_error(
    redises: Redises, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(_plane: Plane) -> None:
        time.sleep(1)  # noqa: ASYNC251

    monkeypatch.setattr(Plane, "start", stuck)
    monkeypatch.setattr(layer_module, "_START_SECONDS", 0.1)
    layer = ShardedChannelLayer(settings=redises.settings())
    with pytest.raises(ShardUnavailable, match="thread did not start within"):
        await layer.new_channel()


async def test_a_thread_that_fails_to_start_says_why(redises: Redises, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_plane: Plane) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(Plane, "start", broken)
    with pytest.raises(OSError, match="too many open files"):
        await ShardedChannelLayer(settings=redises.settings()).new_channel()


async def test_group_messages_do_not_need_the_colors_redis(
    redises: Redises, start_redis: Callable[..., RedisServer]
) -> None:
    """Named channels are at most once: while the color's Redis is away they miss what is sent, and it is counted."""
    color = start_redis()
    settings = redises.settings()
    layer = ShardedChannelLayer(settings=type(settings)(settings.message_redis_url, color.url))
    channel = await layer.new_channel()
    for member in (channel, "work"):
        await layer.group_add("chat", member)
    color.kill()
    before = layer_module.METRICS.layer_dropped._value.get()
    await layer.group_send("chat", {"type": "x"})
    assert await receive(layer, channel) == {"type": "x"}
    assert layer_module.METRICS.layer_dropped._value.get() == before + 1
    color.start()
    await layer.group_send("chat", {"type": "y"})
    assert await receive(layer, "work") == {"type": "y"}
    await layer.close()

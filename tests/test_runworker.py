"""``manage.py runworker`` with the layer: a plain SyncConsumer on a named channel, as Channels documents it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from redis.exceptions import RedisError

from shards.layer import ShardedChannelLayer
from tests.conftest import Redises
from tests.layers import receive
from tests.redis_server import RedisServer
from tests.replica import ROOT

TUTORIAL = ROOT / "tests" / "apps" / "tutorial"

StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_worker(redises: Redises) -> Iterator[StartWorker]:
    workers: list[subprocess.Popen[bytes]] = []
    url = redises.control.url

    def start(*channels: str, color: str = url) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "django", "runworker", *channels]
        environ = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "PYTHONPATH": os.pathsep.join((str(TUTORIAL), str(ROOT))),
            "MESSAGE_REDIS_URL": url,
            "CHANNEL_REDIS_URL": color,
        }
        workers.append(subprocess.Popen(command, env=environ, cwd=TUTORIAL, stderr=subprocess.PIPE))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.communicate(timeout=60)


async def test_workers_share_the_work_of_a_named_channel(redises: Redises, start_worker: StartWorker) -> None:
    layer = ShardedChannelLayer(settings=redises.settings())
    answers = await layer.new_channel()
    workers = [start_worker("thumbnails", "unused", own) for own in ("large-1", "large-2")]
    for own in ("large-1", "large-2"):
        # Else one may do all the work before the other is up, which then dies of SIGINT as any starting Python does.
        await layer.send(own, {"type": "make.thumbnail", "number": 0, "answer": answers})
        await receive(layer, answers, 90)
    for number in range(20):
        await layer.send("thumbnails", {"type": "make.thumbnail", "number": number, "answer": answers})
    done = [await receive(layer, answers, 90) for _ in range(20)]
    assert sorted(message["number"] for message in done) == list(range(20))  # type: ignore[type-var]
    # Sent to a group by way of its name, each is made once too.
    await layer.group_add("gallery", "thumbnails")
    for number in range(20):
        await layer.group_send("gallery", {"type": "make.thumbnail", "number": number, "answer": answers})
    done = [await receive(layer, answers, 90) for _ in range(20)]
    assert sorted(message["number"] for message in done) == list(range(20))  # type: ignore[type-var]
    for worker in workers:
        worker.send_signal(signal.SIGINT)
        assert worker.wait(60) == 0
    await layer.close()


async def test_a_worker_waits_for_its_colors_redis_and_goes_on(
    redises: Redises, start_redis: Callable[..., RedisServer], start_worker: StartWorker
) -> None:
    color = start_redis()
    layer = ShardedChannelLayer(settings=replace(redises.settings(), channel_redis_url=color.url))
    answers = await layer.new_channel()
    worker = start_worker("thumbnails", "unused", color=color.url)

    async def work(number: int) -> None:
        """At most once: what is lost with the connection, on the way there or back, its sender sends again."""
        async with asyncio.timeout(90):
            while True:
                with suppress(RedisError, TimeoutError):
                    await layer.send("thumbnails", {"type": "make.thumbnail", "number": number, "answer": answers})
                    if (await receive(layer, answers, 2))["number"] == number:
                        return
                await asyncio.sleep(0.05)

    await work(1)
    color.kill()
    # While it is away the worker must find out, and not end by it; then it must come back by itself.
    with pytest.raises(subprocess.TimeoutExpired):
        await asyncio.to_thread(worker.wait, 8)
    color.start()
    await work(2)
    assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    _, said = await asyncio.to_thread(worker.communicate, timeout=60)
    assert worker.returncode == 0, said
    assert said.count(b"waiting for it") <= 1
    await layer.close()

"""``manage.py runworker`` with the layer: a plain SyncConsumer on a named channel, as Channels documents it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from shards.layer import ShardedChannelLayer
from tests.conftest import Redises
from tests.layers import receive
from tests.replica import ROOT

TUTORIAL = ROOT / "tests" / "apps" / "tutorial"

StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_worker(redises: Redises) -> Iterator[StartWorker]:
    workers: list[subprocess.Popen[bytes]] = []
    url = redises.control.url

    def start(*channels: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "django", "runworker", *channels]
        environ = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "PYTHONPATH": os.pathsep.join((str(TUTORIAL), str(ROOT))),
            "MESSAGE_REDIS_URL": url,
            "CHANNEL_REDIS_URL": url,
        }
        workers.append(subprocess.Popen(command, env=environ, cwd=TUTORIAL))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.wait(10)


async def test_workers_share_the_work_of_a_named_channel(redises: Redises, start_worker: StartWorker) -> None:
    layer = ShardedChannelLayer(settings=redises.settings())
    answers = await layer.new_channel()
    workers = [start_worker("thumbnails", "unused") for _ in range(2)]
    for number in range(20):
        await layer.send("thumbnails", {"type": "make.thumbnail", "number": number, "answer": answers})
    done = [await receive(layer, answers, 30) for _ in range(20)]
    assert sorted(message["number"] for message in done) == list(range(20))  # type: ignore[type-var]
    # Sent to a group by way of its name, each is made once too.
    await layer.group_add("gallery", "thumbnails")
    for number in range(20):
        await layer.group_send("gallery", {"type": "make.thumbnail", "number": number, "answer": answers})
    done = [await receive(layer, answers, 30) for _ in range(20)]
    assert sorted(message["number"] for message in done) == list(range(20))  # type: ignore[type-var]
    for worker in workers:
        worker.send_signal(signal.SIGINT)
        assert worker.wait(15) == 0
    await layer.close()

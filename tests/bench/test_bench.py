"""The command, with real peers of a few sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.load.server import until
from tests.process import words_of

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def running(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    cache = ("--cache", str(folder / "cache"), "--report", str(folder / "bench.json"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", *cache, *arguments),
        cwd=ROOT,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def bench(folder: Path, *arguments: str, **environment: str) -> tuple[int | None, str, str]:
    async with running(folder, *arguments, **environment) as process, asyncio.timeout(280):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.fleet
@pytest.mark.timeout(600)
async def test_ours_beside_a_peer(tmp_path: Path) -> None:
    small = {"N": "50", "DURATION": "1", "RATE": "500"}
    for _ in range(4):
        status, out, err = await bench(tmp_path, "--peers", "ours,pubsub", "--workloads", "rooms", **small)
        assert status == 0, err
        document = json.loads((tmp_path / "bench.json").read_text())
        if all(figures["rooms_per_s"]["median"] == 500 for figures in document["summary"].values()):
            break  # else the machine was too busy for anybody's latency
    assert [(result["workload"], result["peer"]) for result in document["results"]] == [
        ("rooms", "ours"),
        ("rooms", "pubsub"),
    ]
    for peer in ("ours", "pubsub"):
        figures = document["summary"][peer]
        assert figures["rooms_per_s"]["median"] == 500
        assert figures["cpu_app_us"]["median"] > 0 and figures["cpu_edge_us"]["median"] > 0
    assert "500 · 1 " in out and "500 · 1x" in out
    assert (tmp_path / "bench.html").is_file() and "pubsub" in (tmp_path / "bench.md").read_text()


async def test_a_peer_that_can_not_be_had_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    nothing = tmp_path / "bin"
    nothing.mkdir()
    status, out, _ = await bench(tmp_path, "--peers", "socketio", PATH=str(nothing))
    assert status == 0
    assert "socketio: not measured: node and npm are not on PATH" in out


async def test_stopped_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    started: list[psutil.Process] = []
    arguments = ("--peers", "pubsub", "--workloads", "rooms")
    async with running(tmp_path, *arguments, N="20", DURATION="30", TMPDIR=str(tmp_path / "tmp")) as process:
        mine = psutil.Process(process.pid)

        def loading() -> bool:
            started[:] = mine.children(recursive=True)
            return any("shards.load.process" in words_of(child) for child in started)

        await until(loading, 120)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(120):
            _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().splitlines()[-1] == "stopped"
    assert not [child for child in started if child.is_running()]
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--peers", "ours,nobody"), "'nobody' is none of ours, pubsub, core, socketio, nchan, uws"),
        (("--workloads", "all"), "'all' is none of rooms, broadcast, echo, connect"),
        (("--rooms", "10,-1"), "'-1' is no number above 0"),
        (("--connections", "1000000"), "1000000 connections need more descriptors"),
    ],
)
async def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    status, _, err = await bench(tmp_path, *arguments)
    assert status == 2
    assert said in err.splitlines()[-1]

"""Servers and hosts that are no good: the run ends, says what it met, and fails."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.load import plain_server
from tests.load.server import running, until
from tests.load.test_main import SMALL, load, report, start, tmp_path
from tests.process import words_of

__all__ = ["tmp_path"]

FEW = ("--connections", "4", "--group-size", "4", "--rate", "40", "--duration", "1", "--processes", "1")

Bytes = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tcp(serve_one: Bytes) -> AsyncIterator[str]:
    """Run a TCP server that is no WebSocket server; gives an address."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await serve_one(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/"


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(bytes(range(256)) * 8)
    await writer.drain()


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("bad", [silence, garbage, hanging_up])
async def test_a_server_that_never_shakes_hands(tmp_path: Path, bad: Bytes) -> None:
    async with tcp(bad) as url:
        status, said = await load(tmp_path, "run", "--url", url, *FEW, "--connect-timeout", "1")
    document = report(tmp_path)
    assert (status, document["verdict"]) == (1, "fail"), document
    assert said == "run: fail — reports/run.json and run.html"
    failed = document["connections"]
    assert (failed["opened"], failed["failed"]) == (0, 4)
    assert sum(failure["count"] for failure in failed["failures"]) == 4
    if bad is silence:
        assert failed["failures"][0]["reason"] == "timeout"


@asynccontextmanager
async def dumb() -> AsyncIterator[str]:
    """Run a server that accepts the WebSocket, and says nothing ever."""
    async with serve(ServerConnection.wait_closed, "127.0.0.1", 0, compression=None) as listening:
        yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ws/"


async def test_a_server_that_accepts_the_websocket_and_stays_silent(tmp_path: Path) -> None:
    async with dumb() as url:
        process = await start(tmp_path, "run", "--url", url, *FEW, "--connect-timeout", "1")
        async with asyncio.timeout(60):
            await process.communicate()
    document = report(tmp_path)
    assert (process.returncode, document["verdict"]) == (1, "fail")
    assert document["connections"]["failures"] == [{"reason": "timeout", "count": 4}]
    assert document["duration_s"] < 30


@asynccontextmanager
async def breaking(what: bytes) -> AsyncIterator[str]:
    """Run a server that subscribes its clients, and answers their first message with bytes that are no frame."""

    async def handle(socket: ServerConnection) -> None:
        assert socket.request is not None
        group = socket.request.path.split("/")[2]
        await socket.send(json.dumps({"type": "welcome", "session": "s", "replica": "r"}))
        subscribed = {"type": "subscribed", "group": group, "epoch": "e", "offset": 0, "recovered": False}
        await socket.send(json.dumps(subscribed))
        await socket.recv()
        socket.transport.write(what)
        socket.transport.close()

    async with serve(handle, "127.0.0.1", 0, compression=None) as listening:
        yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ws/"


@pytest.mark.parametrize(
    "what", [b"\x81\x7e\x01\x00half", b"\xff" * 600], ids=["drops in the middle of a frame", "sends garbage"]
)
async def test_a_server_that_breaks_off(tmp_path: Path, what: bytes) -> None:
    async with breaking(what) as url:
        status, _ = await load(tmp_path, "run", "--url", url, *FEW)
    document = report(tmp_path)
    assert (status, document["verdict"]) == (1, "fail")
    assert document["connections"]["opened"] == 4
    assert document["connections"]["closed_by_server"] > 0
    assert {"unacked"} <= {target["name"] for target in document["targets"] if not target["ok"]}


async def test_a_generator_process_that_is_killed_fails_the_run_and_ends_it_in_time(tmp_path: Path) -> None:
    arguments = ("--connections", "20", "--group-size", "10", "--rate", "400", "--duration", "5", "--processes", "2")
    async with plain_server.running() as server:
        process = await start(tmp_path, "run", "--url", server.url, "--dialect", "plain", *arguments)
        await until(lambda: len(server.texts) > 20, seconds=120)
        children = psutil.Process(process.pid).children()
        victim = next(child for child in children if "shards.load.process" in words_of(child))
        victim.kill()
        async with asyncio.timeout(120):
            await process.communicate()
    document = report(tmp_path)
    assert (process.returncode, document["verdict"]) == (1, "fail")
    assert len(document["problems"]) == 1
    assert "ended before it was through" in document["problems"][0]
    assert document["connections"]["not_back"] == 10
    messages = document["messages"]
    assert messages["expected"] == messages["delivered"] > 0, "the other process's clients are in the figures"


async def test_a_disk_that_is_full_is_told_in_a_line_and_the_figures_all_the_same(tmp_path: Path) -> None:
    """No file of this process may grow beyond 500 bytes, and the report is more."""
    async with running() as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shards.load", "run", "--url", server.url, *SMALL),
            cwd=tmp_path,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)),
        )
        async with asyncio.timeout(120):
            out, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().splitlines()[-1].startswith("error: cannot write the report reports/run.json: File too large")
    assert "connect_success" in out.decode()
    assert not list((tmp_path / "reports").iterdir()), "nothing half-written is left"


async def test_stopped_while_connecting_it_still_reports(tmp_path: Path) -> None:
    async with tcp(silence) as url:
        process = await start(tmp_path, "run", "--url", url, *FEW)
        assert process.stderr is not None
        async with asyncio.timeout(120):
            while b"connect" not in await process.stderr.readline():
                pass
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(120):
            await process.communicate()
    assert (process.returncode, report(tmp_path)["verdict"]) == (1, "aborted")

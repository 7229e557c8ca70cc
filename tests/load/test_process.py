"""What a generator process does, and that all it saw is in the figures: with real processes, against real servers."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from collections import Counter
from time import monotonic_ns
from typing import Any, cast

import psutil
import pytest
from websockets.utils import accept_key

from shards.load import coordinator, report, wire
from shards.load.children import spawn
from shards.load.coordinator import Coordinator, Load, Outcome
from shards.load.plain import PlainClient, PlainRoom
from shards.load.process import Generator
from shards.load.report import Run
from shards.load.resources import Resources
from shards.load.schedule import Shape, even_groups
from tests.load import server as our_server
from tests.load.plain_server import running
from tests.load.server import Server, until
from tests.load.test_coordinator import Nobody

UNREACHABLE = 2_000_000
"""Publishes a second: several times what a process can send."""


def load(url: str, **more: Any) -> Load:
    usual: dict[str, Any] = {
        "connections": 20,
        "duration_s": 2,
        "rate": 400,
        "connect_rate": 200,
        "dialect": "plain",
        "lag_ms": 20_000,
    }
    return Load(url, **usual | more)


async def outcome(run: Coordinator) -> Outcome:
    async with asyncio.timeout(120):
        return await run.run()


async def seen(made: Load) -> Outcome:
    return await outcome(Coordinator(made, Resources(), Nobody()))


def document(made: Load, found: Outcome) -> dict[str, Any]:
    return report.build("run", {}, Run(made, found, {}, []))


async def test_each_delivery_of_each_process_has_its_latency_in_the_report() -> None:
    async with running() as server:
        made = load(server.url, processes=2)
        told = document(made, await seen(made))
    assert told["generator"]["processes"] == 2
    assert told["latency_ms"]["count"] == told["messages"]["delivered"] == told["messages"]["expected"] == 800


async def test_the_files_that_a_process_has_open_are_counted() -> None:
    async with running() as server:
        made = load(server.url, processes=2)
        generator = document(made, await seen(made))["generator"]
    assert 10 < generator["max_descriptors"] < 10 + 100, "each has ten sockets, and a few files of its own"


async def test_sockets_beyond_what_one_address_may_hold_come_from_the_next_ones() -> None:
    addresses: Counter[str] = Counter()
    async with running() as server:

        async def look() -> None:
            addresses.update(socket.remote_address[0] for socket in server.sockets if not server.texts)

        await outcome(Coordinator(load(server.url, sockets_per_address=8), Resources(), Nobody(), look))
    assert addresses == {"127.0.0.1": 8, "127.0.0.2": 8, "127.0.0.3": 4}


async def test_a_generator_that_stood_still_has_it_in_its_latencies() -> None:
    """A fifth of the messages is due while it is stopped, and waits for up to as long as that."""
    async with running() as server:
        run = Coordinator(load(server.url, duration_s=3, processes=1), Resources(), Nobody())
        under_way = asyncio.create_task(outcome(run))
        await until(lambda: len(server.texts) > 20)
        pid = run._children[0].pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.6)
        os.kill(pid, signal.SIGCONT)
        found = await under_way
    p95, p99 = found.latency.percentiles_ms([95, 99])
    assert (p95 > 250, p99 > 400) == (True, True), (p95, p99)


class Silent(asyncio.Protocol):
    """One connection of a server that answers nobody."""

    transport: asyncio.Transport

    def __init__(self, came: list[Silent]) -> None:
        self.came = came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.came.append(self)


class Deaf(Silent):
    """One of a server that shakes hands, and then reads all and heeds nothing."""

    request = b""

    def data_received(self, data: bytes) -> None:
        if not self.request.endswith(b"\r\n\r\n"):
            self.request += data
            key = re.findall(rb"(?i)sec-websocket-key: (\S+)", self.request)
            accept = accept_key(key[0].decode()).encode()
            upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            self.transport.write(upgrade + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")


class Meter(Nobody):
    """Reads the CPU time of a run's only process where the phases meet."""

    run: Coordinator

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}

    def phase(self, name: str) -> None:
        if name != "connect":
            used = psutil.Process(self.run._children[0].pid).cpu_times()
            self.cpu[name] = used.user + used.system


async def test_a_rate_that_cannot_be_reached_is_told_in_time_and_so_is_the_cpu_it_took() -> None:
    meter = Meter()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Deaf([]), "127.0.0.1", 0) as listening:
        url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ws/"
        made = load(url, connections=10, group_size=1, rate=UNREACHABLE, processes=1, settle_s=1, lag_ms=10)
        meter.run = Coordinator(made, Resources(), meter)
        async with asyncio.timeout(30):
            found = await meter.run.run()
    told = document(made, found)
    assert (told["problems"], told["generator"]["saturated"]) == ([], True)
    assert 0 < told["messages"]["published"] < made.duration_s * UNREACHABLE
    assert found.lag.percentiles_ms([99])[0] > 100
    counted_by_the_kernel = 100 * (meter.cpu["settle"] - meter.cpu["load"]) / made.duration_s
    assert counted_by_the_kernel / 2 < told["generator"]["max_cpu_percent"] < 110


async def test_a_process_that_cannot_keep_up_still_ends_with_its_coordinator() -> None:
    async with running() as server:
        process = await spawn()
        try:
            assert process.stdin
            plan = wire.Plan(
                run="r",
                url=server.url,
                groups=even_groups(10, 1, UNREACHABLE),
                connects=Shape.constant(1000),
                sockets_per_address=0,
                start_ns=monotonic_ns(),
                dialect="plain",
                rate=UNREACHABLE,
            )
            for order in (plan, wire.Go(monotonic_ns())):
                process.stdin.write(wire.encode(order) + b"\n")
            await until(lambda: len(server.texts) > 100)
            async with asyncio.timeout(20):
                process.stdin.close()
                await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_who_was_cut_off_comes_back_however_many_others_do() -> None:
    """All of them within 0.1 s, to a server that answers nobody."""
    came: list[Silent] = []
    clients = 300
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Silent(came), "127.0.0.1", 0, backlog=clients) as listening:
        url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/ws/"
        plan = wire.Plan("r", url, [], Shape.constant(1), 0, monotonic_ns(), dialect="plain")
        shared = Generator(plan, cast(asyncio.StreamWriter, None)).shared
        herd = [PlainClient(shared, PlainRoom("room")) for _ in range(clients)]
        for client in herd:
            client.come_back(random.uniform(0, 0.1))
        try:
            await until(lambda: len(came) == clients, seconds=10)
        finally:
            shared.stopping = True
            while any(client.returning for client in herd):
                for one in came:
                    one.transport.abort()
                await asyncio.sleep(0.05)


OURS = {"dialect": "shards", "group_size": 20, "rate": 1000, "processes": 1}
"""A load of 100 messages to 20 clients each."""


async def test_what_comes_a_second_time_after_all_is_there_is_still_seen() -> None:
    async def again(server: Server) -> None:
        async def later() -> None:
            await asyncio.sleep(0.6)
            for offset in (98, 99, 100):
                await server.fan_out(offset)

        tasks.append(asyncio.create_task(later()))

    tasks: list[asyncio.Task[None]] = []
    async with our_server.running(at={100: again}) as server:
        tally = (await seen(load(server.url, **OURS))).tally
        await asyncio.gather(*tasks)
    assert (tally.published, tally.delivered, tally.duplicated) == (100, 2000, 3 * 20)


async def test_who_has_all_and_is_just_on_its_way_back_is_waited_for() -> None:
    async def move(server: Server) -> None:
        await server.say(server.sockets[3], type="reconnect", within_ms=0)

    async with our_server.running(at={100: move}, slow=2.0) as server:
        found = await seen(load(server.url, **OURS))
    assert (found.tally.delivered, found.tally.faults) == (2000, 0)
    assert (found.reconnects, found.open) == (1, 20)


@pytest.mark.parametrize("processes", [1, 2])
async def test_who_is_stuck_connecting_does_not_keep_the_others_from_their_load(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "_CONNECT_SLACK_SECONDS", 4.0)
    async with running(stuck=(3, 5)) as server:
        found = await seen(load(server.url, processes=processes))
    assert (found.opened, found.open, sum(found.failures.values())) == (18, 18, 2)
    assert found.tally.expected == found.tally.delivered == 18 * 40, "forty messages for each of the others"
    assert found.latency.percentiles_ms([99])[0] < 5000, "they were sent in their time"
    assert len(found.problems) == 1
    assert "generator processes were not connected after 4 s" in found.problems[0]

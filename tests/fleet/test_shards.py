"""Shards that are lost, and shards that run elsewhere, by the commands and with real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from shards.fleet.shard_list import FleetShard
from shards.fleet.state import FleetDir
from tests.fleet.clients import crowd
from tests.fleet.runner import Commands, Result, part, steady
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

PASSWORD = "a-password-of-another-server"


@pytest.fixture
def start_redis(tmp_path: Any) -> Any:
    """Start Redis servers that are none of the fleet's, gone after the test."""
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"elsewhere-{len(servers)}", *options).start())
        return servers[-1]

    yield start
    for server in servers:
        if server.process is not None:
            server.kill()


async def command(fleet: Commands, *arguments: str) -> Result:
    return await asyncio.to_thread(fleet.ok, *arguments)


async def frames(socket: ClientConnection, type: str) -> dict[str, Any]:
    """Give the next frame of a type."""
    async with asyncio.timeout(60):
        while True:
            frame: dict[str, Any] = json.loads(await socket.recv())
            if frame["type"] == type:
                return frame


async def say(socket: ClientConnection, **frame: Any) -> None:
    await socket.send(json.dumps(frame))


def hang_and_forget(commands: Commands, name: str) -> int:
    """Lose a shard: its process hangs for good."""
    pid: int = part(commands.status(), name)["pid"]
    os.kill(pid, signal.SIGSTOP)
    return pid


async def test_a_shard_that_is_gone_for_good(commands: Commands) -> None:
    await command(commands, "up", "--replicas", "1", "--shards", "3", "--edges", "1")
    refused = commands("reshard", "--without", "shared-1")
    assert refused.code == 1
    assert "shared-1 is well" in refused.last
    assert "--shards N" in refused.last
    unknown = commands("reshard", "--without", "shared-7")
    assert (unknown.code, "there are shared-0, shared-1, shared-2" in unknown.last) == (2, True)
    assert commands("reshard").code == commands("reshard", "--shards", "2", "--without", "shared-1").code == 2
    dry = await command(commands, "reshard", "--without", "shared-1", "--dry-run")
    assert "shared-1 -> shared-0" in dry.stdout
    assert "history is lost" in dry.stdout
    assert "refused, if shared-" in dry.stdout

    async with connect(f"{commands.url}/ws/") as socket:
        places = {}
        for group in [f"room:{number}" for number in range(12)]:
            await say(socket, type="subscribe", group=group)
            places[group] = (await frames(socket, "subscribed"))["epoch"]
            await say(socket, type="publish", group=group, id="before", data=1)
            await frames(socket, "ack")
        hang_and_forget(commands, "shared-1")
        for group in places:
            await say(socket, type="publish", group=group, id="after", data=2)
        await command(commands, "reshard", "--without", "shared-1")
        epochs, told, heard = dict(places), set(), set()
        async with asyncio.timeout(90):
            while len(heard) < len(places):
                frame = json.loads(await socket.recv())
                if frame.get("code") == "unavailable":  # on a slow machine it takes longer than publishes wait
                    await say(socket, type="publish", group=frame["group"], id="after", data=2)
                if frame["type"] == "gap":
                    told.add(frame["group"])
                    epochs[frame["group"]] = frame["epoch"]
                elif frame["type"] == "message" and frame["id"] == "after":
                    heard.add(frame["group"])
    assert 0 < len(told) < len(places)
    assert all((epochs[group] != places[group]) == (group in told) for group in places)

    async with connect(f"{commands.url}/ws/") as socket:
        for group, epoch in places.items():
            await say(socket, type="subscribe", group=group, since={"epoch": epoch, "offset": 1})
            subscribed = await frames(socket, "subscribed")
            assert subscribed["recovered"] is (group not in told)
            if group in told:
                assert (await frames(socket, "gap"))["epoch"] == epochs[group]

    status = await asyncio.to_thread(commands.until, steady)
    assert [shard["name"] for shard in status["shards"]] == ["shared-0", "shared-2"]
    assert [shard["slots"] for shard in status["shards"]] == [512, 512]
    assert not (commands.directory / "data" / "shared-1").exists()
    await command(commands, "down")
    await command(commands, "up", "--replicas", "1", "--edges", "1")
    assert [shard["name"] for shard in commands.until(steady)["shards"]] == ["shared-0", "shared-2"]
    assert "Ready to accept" in (await command(commands, "logs", "shared-2")).stdout
    await command(commands, "up", "--shards", "3")
    assert [shard["name"] for shard in commands.until(steady)["shards"]] == ["shared-0", "shared-1", "shared-2"]


async def test_out_to_servers_elsewhere_and_back_with_nothing_lost(
    commands: Commands, start_redis: Callable[..., RedisServer]
) -> None:
    one, two = start_redis("--requirepass", PASSWORD), start_redis("--appendonly", "no")
    shown = [f"redis://:{PASSWORD}@127.0.0.1:{one.port}/0", f"{two.url}?weight=3"]
    await command(commands, "up", "--replicas", "2", "--shards", "2", "--edges", "1")
    async with crowd(commands.url, 40) as ledger:
        moved = await command(commands, "reshard", "--shards", ",".join(shown))
        assert f"{two.url} keeps no append-only file" in moved.stderr
        status = await asyncio.to_thread(commands.until, steady)
        assert [(s["name"], s["slots"], s["pid"], s["url"]) for s in status["shards"]] == [
            ("shared-2", 256, None, one.url),
            ("shared-3", 768, None, two.url),
        ]
        # Replicas that are new, and workers that connect again, find the password too.
        await command(commands, "promote")
        await command(commands, "up", "--shards", "2")
        status = await asyncio.to_thread(commands.until, steady)
        assert [(s["name"], s["slots"]) for s in status["shards"]] == [("shared-0", 512), ("shared-1", 512)]
    assert (ledger.failures, ledger.faults) == ([], [])
    assert ledger.connects == 40, "nobody had to reconnect"
    seen = [path.read_text() for path in commands.directory.rglob("*.log")] + [moved.stderr, moved.stdout]
    seen += [(commands.directory / "fleet.json").read_text(), json.dumps(status)]
    assert not [text for text in seen if PASSWORD in text]
    assert PASSWORD not in (commands.directory / "secrets" / "shards").read_text(), "it is forgotten with its shard"


def test_a_fleet_whose_shards_all_run_elsewhere(commands: Commands, start_redis: Callable[..., RedisServer]) -> None:
    one, two = start_redis(), start_redis("--requirepass", PASSWORD)
    urls = f"{one.url},redis://:{PASSWORD}@127.0.0.1:{two.port}"
    commands.ok("up", "--replicas", "1", "--edges", "1", "--shards", urls)
    status = commands.until(steady)
    assert [shard["name"] for shard in status["shards"]] == ["shared-0", "shared-1"]
    secret = commands.directory / "secrets" / "shards"
    assert PASSWORD in secret.read_text()
    assert secret.stat().st_mode & 0o077 == 0
    two.kill()
    degraded = commands.until(lambda status: status["state"] == "degraded")
    assert not part(degraded, "shared-1")["healthy"]
    two.start()
    commands.until(steady)
    # Its data stays there, and is met again by a fleet that remembers nothing.
    purged = commands.ok("down", "--purge")
    assert one.url in purged.stderr
    commands.ok("up", "--replicas", "1", "--edges", "1", "--shards", urls)
    asyncio.run(talk(commands))


async def talk(commands: Commands) -> None:
    async with connect(f"{commands.url}/ws/room/") as socket:
        await say(socket, type="publish", id="1", data=1)
        await frames(socket, "ack")


def test_servers_that_cannot_be_shards(commands: Commands, start_redis: Callable[..., RedisServer]) -> None:
    good, locked = start_redis(), start_redis("--requirepass", PASSWORD)
    replica = start_redis("--replicaof", "127.0.0.1", str(good.port))
    evicting = start_redis("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    wrong = {
        f"{good.url},redis://127.0.0.1:1/0": (1, "redis://127.0.0.1:1/0 can't be reached"),
        f"redis://:not-it@127.0.0.1:{locked.port}/0": (1, "refuses the password"),
        locked.url: (1, "refuses the password"),
        replica.url: (1, "is a read-only replica"),
        evicting.url: (2, "set `maxmemory-policy noeviction`"),
        f"{good.url},redis://localhost:{good.port}/0": (2, "are the same server"),
        f"{good.url}?weight=0": (2, "must be more than 0"),
        f"redis://127.0.0.1:{good.port}/99": (1, "refuses"),
    }
    for urls, (code, words) in wrong.items():
        result = commands("up", "--shards", urls)
        assert (result.code, words in result.last) == (code, True), result.stderr
        assert "Traceback" not in result.stderr
        assert "not-it" not in result.stderr
    assert commands.processes() == []


async def test_without_that_is_killed_is_finished_by_up(commands: Commands) -> None:
    await command(commands, "up", "--replicas", "1", "--shards", "2", "--edges", "1")
    hang_and_forget(commands, "shared-1")
    reshard = commands.start("reshard", "--without", "shared-1")
    directory = FleetDir(commands.state_dir, commands.project)
    async with asyncio.timeout(60):
        while (state := directory.read()) is None or not any(shard.lost for shard in state.shards):
            await asyncio.sleep(0.02)
    reshard.kill()
    reshard.communicate()
    assert FleetShard("shared-1", lost=True) in state.shards
    await command(commands, "up")
    assert [(s["name"], s["slots"]) for s in commands.until(steady)["shards"]] == [("shared-0", 1024)]
    await talk(commands)

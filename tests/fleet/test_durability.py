"""What an ack is worth: a fleet whose shards sync first, and one whose shards are two servers each."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from shards.ports import free_port
from tests.fleet.clients import Ledger, crowd
from tests.fleet.runner import Commands, steady
from tests.fleet.test_lifecycle import history

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

SMALL = ("--replicas", "1", "--shards", "1", "--edges", "1")
SERVED_AGAIN_S = 60
WELL_AGAIN_S = 90


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """A fleet with one shard of two servers; a test leaves it well, whichever of them leads."""
    commands = Commands(tmp_path_factory.mktemp("fleet") / "fleets", free_port(()), "pairs")
    commands.ok("up", *SMALL, "--durability", "replicated")
    yield commands
    commands("down")
    commands.gone()


def server(fleet: Commands, role: str) -> dict[str, Any]:
    return next(server for server in fleet.status()["shards"][0]["servers"] if server["role"] == role)


def kill_with_disk(fleet: Commands, killed: dict[str, Any]) -> None:
    psutil.Process(killed["pid"]).kill()
    shutil.rmtree(fleet.directory / "data" / killed["name"])


def client_of(fleet: Commands, name: str) -> Redis:
    ports = fleet.remembered()["ports"]
    return Redis(port=ports[name], password=(fleet.directory / "secrets" / "redis").read_text(), decode_responses=True)


async def acked_more(ledger: Ledger, messages: int = 20) -> float:
    """Wait until so many more are acked; gives how long that took, in seconds."""
    began, before = time.monotonic(), sum(map(len, ledger.acked.values()))
    while sum(map(len, ledger.acked.values())) < before + messages:
        assert time.monotonic() - began < SERVED_AGAIN_S
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def test_both_servers_and_the_sentinels_are_shown(replicated: Commands) -> None:
    status = replicated.until(steady, WELL_AGAIN_S)
    assert status["durability"] == "replicated"
    (shard,) = status["shards"]
    assert (shard["name"], shard["state"], shard["slots"]) == ("shared-0", "active", 1024)
    assert {one["name"] for one in shard["servers"]} == {"shared-0", "shared-0-twin"}
    assert {one["role"] for one in shard["servers"]} == {"primary", "copy"}
    assert shard["pid"] == server(replicated, "primary")["pid"]
    assert [(one["name"], one["healthy"]) for one in status["sentinels"]] == [(f"sentinel-{i}", True) for i in range(3)]
    assert "sentinel-2" in replicated.ok("status").stdout
    assert "shared-0-twin" in replicated.ok("logs").stdout


async def test_a_primary_killed_with_its_disk_loses_nothing_twice_in_a_row(replicated: Commands) -> None:
    await asyncio.to_thread(replicated.until, steady, WELL_AGAIN_S)
    async with crowd(replicated.url, 20) as ledger:
        for _ in range(2):
            await acked_more(ledger)
            killed = await asyncio.to_thread(server, replicated, "primary")
            await asyncio.to_thread(kill_with_disk, replicated, killed)
            await acked_more(ledger)
            status = await asyncio.to_thread(replicated.until, steady, WELL_AGAIN_S)
            roles = {one["name"]: one["role"] for one in status["shards"][0]["servers"]}
            assert roles[killed["name"]] == "copy", "it came back as a copy of the other"
    assert (ledger.failures, ledger.faults) == ([], [])


async def test_a_copy_killed_with_its_disk_loses_nothing(replicated: Commands) -> None:
    await asyncio.to_thread(replicated.until, steady, WELL_AGAIN_S)
    async with crowd(replicated.url, 20) as ledger:
        await acked_more(ledger)
        primary = await asyncio.to_thread(server, replicated, "primary")
        await asyncio.to_thread(kill_with_disk, replicated, await asyncio.to_thread(server, replicated, "copy"))
        await acked_more(ledger)
        await asyncio.to_thread(replicated.until, steady, WELL_AGAIN_S)
        assert (await asyncio.to_thread(server, replicated, "primary"))["name"] == primary["name"]
    assert (ledger.failures, ledger.faults) == ([], [])


async def test_both_servers_killed_at_once_lose_nothing(replicated: Commands) -> None:
    await asyncio.to_thread(replicated.until, steady, WELL_AGAIN_S)
    async with crowd(replicated.url, 20) as ledger:
        await acked_more(ledger)
        for one in replicated.status()["shards"][0]["servers"]:
            psutil.Process(one["pid"]).kill()
        await asyncio.to_thread(replicated.until, steady, WELL_AGAIN_S)
    assert (ledger.failures, ledger.faults) == ([], [])


@pytest.mark.parametrize("end", ["down", "reboot"])
async def test_after_a_switch_the_next_start_is_from_the_newest_data(
    replicated: Commands, tmp_path: Path, end: str
) -> None:
    """The server that led first has older data: what came after the switch must not be overwritten with it."""
    await asyncio.to_thread(replicated.until, steady, WELL_AGAIN_S)
    killed = await asyncio.to_thread(server, replicated, "primary")
    data, older = replicated.directory / "data" / killed["name"], tmp_path / "older"
    async with crowd(replicated.url, 10) as ledger:
        await acked_more(ledger)
        # What Redis writes before it takes its place may be gone the next moment.
        shutil.copytree(data, older, ignore=shutil.ignore_patterns("temp-*"))
        psutil.Process(killed["pid"]).kill()
        await acked_more(ledger)
    await asyncio.to_thread(stop, replicated, end)
    # As it would be if it had not come back before the end.
    shutil.rmtree(data)
    older.rename(data)
    await asyncio.to_thread(replicated.ok, "up")
    status = await asyncio.to_thread(replicated.until, steady, WELL_AGAIN_S)
    assert {one["role"]: one["name"] for one in status["shards"][0]["servers"]}["copy"] == killed["name"]
    for group, acked in ledger.acked.items():
        assert acked <= await history(replicated.url, group)


def stop(fleet: Commands, way: str) -> None:
    if way == "down":
        fleet.ok("down")
        fleet.gone()
        return
    left = fleet.processes()
    for process in sorted(left, key=lambda process: "shards.fleet.engines.keeper" not in process.cmdline()):
        process.kill()
    psutil.wait_procs(left, 60)


def test_shards_of_two_servers_come_and_go(replicated: Commands) -> None:
    replicated.until(steady, WELL_AGAIN_S)
    replicated.ok("reshard", "--shards", "2")
    status = replicated.until(steady, WELL_AGAIN_S)
    assert [len(shard["servers"]) for shard in status["shards"]] == [2, 2]
    with client_of(replicated, "sentinel-0") as client:
        assert sorted(client.sentinel_masters()) == ["shared-0", "shared-1"]
    replicated.ok("reshard", "--shards", "1")
    replicated.until(steady, WELL_AGAIN_S)
    with client_of(replicated, "sentinel-0") as client:
        assert sorted(client.sentinel_masters()) == ["shared-0"]


def test_it_cannot_become_another_meanwhile_nor_later(replicated: Commands) -> None:
    for arguments in (("up", "--durability", "always"), ("up", "--durability", "everysec")):
        refused = replicated(*arguments)
        assert (refused.code, len(refused.stderr.strip().splitlines())) == (2, 1), refused.stderr
        assert "--durability replicated" in refused.stderr
    unknown = replicated("up", "--durability", "sometimes")
    assert unknown.code == 2
    assert "choose everysec, always or replicated" in unknown.last


def test_no_secret_is_in_its_logs_arguments_or_environment(replicated: Commands) -> None:
    secret = (replicated.directory / "secrets" / "redis").read_text()
    seen = [log.read_text() for log in (replicated.directory / "logs").iterdir()]
    for process in replicated.processes():
        seen += [" ".join(process.cmdline()), " ".join(process.environ().values())]
    assert not [text for text in seen if secret in text]


async def test_a_shard_that_syncs_first_is_killed_and_loses_nothing(commands: Commands) -> None:
    commands.ok("up", *SMALL, "--durability", "always")
    with client_of(commands, "shared-0") as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
    async with crowd(commands.url, 20) as ledger:
        await acked_more(ledger)
        psutil.Process(commands.status()["shards"][0]["pid"]).kill()
        await acked_more(ledger)
    assert (ledger.failures, ledger.faults) == ([], [])
    commands.ok("down")
    commands.ok("up", "--durability", "everysec")
    for group, acked in ledger.acked.items():
        assert acked <= await history(commands.url, group)


async def test_a_shard_whose_both_servers_are_gone_is_given_up(commands: Commands) -> None:
    small = ("--replicas", "1", "--shards", "2", "--edges", "1")
    await asyncio.to_thread(commands.ok, "up", *small, "--durability", "replicated")
    refused = await asyncio.to_thread(commands, "reshard", "--without", "shared-1")
    assert (refused.code, "shared-1 is well" in refused.last) == (1, True)
    for one in commands.status()["shards"][1]["servers"]:
        kill_with_disk(commands, one)
    given_up = await asyncio.to_thread(commands.ok, "reshard", "--without", "shared-1")
    assert "their history is lost" in given_up.stdout
    status = await asyncio.to_thread(commands.until, steady, WELL_AGAIN_S)
    assert [(shard["name"], shard["slots"]) for shard in status["shards"]] == [("shared-0", 1024)]
    assert [path.name for path in (commands.directory / "data").glob("shared-1*")] == []
    assert not {"shared-1", "shared-1-twin"} & set(commands.remembered()["ports"])
    with client_of(commands, "sentinel-0") as client:
        assert list(client.sentinel_masters()) == ["shared-0"]
    async with crowd(commands.url, 20) as ledger:
        await acked_more(ledger)
    assert (ledger.failures, ledger.faults) == ([], [])


def test_servers_that_run_elsewhere_have_no_copies_that_we_keep(commands: Commands, replicated: Commands) -> None:
    url = "redis://127.0.0.1:1/0"
    new = commands("up", "--durability", "replicated", "--shards", url)
    running = replicated("reshard", "--shards", url)
    for refused in (new, running):
        assert (refused.code, len(refused.stderr.strip().splitlines())) == (2, 1), refused.stderr
        assert "--shards a number" in refused.last
    assert commands.processes() == []

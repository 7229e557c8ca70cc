"""A fleet that runs: what its status says, what happens when parts die, and how it changes under its clients."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
import urllib.request
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import connect

from tests.fleet.clients import crowd
from tests.fleet.runner import Commands, Result, finish, part, serving, steady

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

HEALTHY_AGAIN_S = 60


def replicas(status: dict[str, Any]) -> list[str]:
    return [replica["name"] for replica in status["replicas"]]


async def command(fleet: Commands, *arguments: str) -> Result:
    return await asyncio.to_thread(fleet.ok, *arguments)


def test_the_status_is_what_scripts_rely_on(fleet: Commands) -> None:
    status = fleet.until(serving(0))
    common = {"name": str, "healthy": bool, "pid": int, "rss_bytes": int}
    kinds = {
        "edges": common | {"cpu_percent": float},
        "replicas": common
        | {
            "color": str,
            "state": str,
            "workers": int,
            "port": int,
            "connections": int,
            "cpu_percent": float,
            "release": str,
        },
        "shards": common | {"state": str, "slots": int, "clients": int, "url": str},
        "redis": common | {"clients": int},
    }
    for kind, types in kinds.items():
        for found in status[kind]:
            assert {name: type(found[name]) for name in types} == types
            assert found["healthy"]
            assert found["container"] is None
            assert found["rss_bytes"] > 1_000_000
    assert (status["project"], status["engine"]) == ("t", "local")
    assert status["url"] == f"http://127.0.0.1:{fleet.port}"
    assert status["ring"]["slots"] == sum(shard["slots"] for shard in status["shards"]) == 1024
    assert {redis["name"] for redis in status["redis"]} == {"redis_blue", "redis_green", "redis_shared"}
    assert (len(status["replicas"]), len(status["shards"]), len(status["edges"])) == (2, 2, 2)


def test_up_again_changes_nothing(fleet: Commands) -> None:
    before = fleet.until(steady)
    assert "starting" not in fleet.ok("up").stderr
    after = fleet.status()
    for kind in ("edges", "replicas", "shards", "redis"):
        assert [p["pid"] for p in after[kind]] == [p["pid"] for p in before[kind]]


def test_no_secret_is_seen_in_arguments_environment_status_or_logs(fleet: Commands) -> None:
    secrets = [(fleet.directory / "secrets" / name).read_text() for name in ("redis", "django", "tokens")]
    seen = [json.dumps(fleet.status())]
    for process in fleet.processes():
        seen += [" ".join(process.cmdline()), " ".join(process.environ().values())]
    seen += [log.read_text() for log in (fleet.directory / "logs").iterdir()]
    assert not [secret for secret in secrets for text in seen if secret in text]
    for path in [fleet.directory, *(fleet.directory / "secrets").iterdir(), *(fleet.directory / "conf").glob("*.conf")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_every_part_may_open_as_many_files_as_the_host_allows(fleet: Commands) -> None:
    for process in fleet.processes():
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == min(hard, 1_048_576), process


@pytest.mark.parametrize("kind,index", [("replicas", 0), ("edges", 0), ("shards", 0), ("redis", 0), ("redis", 2)])
def test_a_part_that_is_killed_comes_back(fleet: Commands, kind: str, index: int) -> None:
    killed = fleet.until(steady)[kind][index]
    os.kill(killed["pid"], signal.SIGKILL)
    died = time.monotonic()
    # Whatever is said meanwhile: a part that is said to be well is not the one that was killed.
    while True:
        status = fleet.status()
        now = part(status, killed["name"])
        assert not now["healthy"] or now["pid"] != killed["pid"]
        assert status["state"] in {"steady", "degraded"}
        if not now["healthy"]:
            assert status["state"] == "degraded"
        if steady(status):
            break
        assert time.monotonic() - died < HEALTHY_AGAIN_S, status
    with urllib.request.urlopen(f"http://127.0.0.1:{fleet.port}/livez", timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("kind,name", [("replicas", 0), ("edges", 1), ("shards", 1), ("redis", 0)])
def test_a_part_that_hangs_is_told_of(fleet: Commands, kind: str, name: int) -> None:
    """Its process is there, so nothing restarts it; but it does not answer."""
    pid = fleet.until(steady)[kind][name]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        found = fleet.until(lambda status: status["state"] == "degraded")
        assert not found[kind][name]["healthy"]
    finally:
        os.kill(pid, signal.SIGCONT)
    fleet.until(steady)


async def test_promote_and_rollback_lose_nothing(fleet: Commands) -> None:
    before = fleet.until(steady)
    first, second = ("blue", "green") if before["active_color"] == "blue" else ("green", "blue")
    async with crowd(fleet.url, 60) as ledger:
        for verb, active in (("promote", second), ("rollback", first)):
            moved = await command(fleet, verb)
            assert "move: 60 sockets handed over alive, 0 asked to reconnect, 0 closed" in moved.stderr
            status = await asyncio.to_thread(fleet.until, serving(60))
            assert status["active_color"] == active
            assert replicas(status) == [f"{active}-0", f"{active}-1"]
    assert (ledger.failures, ledger.faults) == ([], [])
    assert ledger.connects == 60, "nobody had to reconnect"
    after = fleet.status()
    assert [edge["pid"] for edge in after["edges"]] == [edge["pid"] for edge in before["edges"]]


async def test_replicas_come_and_go_under_their_clients(fleet: Commands) -> None:
    color = fleet.until(steady)["active_color"]
    async with crowd(fleet.url, 40) as ledger:
        await command(fleet, "up", "--replicas", "3")
        assert replicas(fleet.status()) == [f"{color}-{i}" for i in range(3)]
        await command(fleet, "up", "--replicas", "1")
        status = await asyncio.to_thread(fleet.until, serving(40))
        assert replicas(status) == [f"{color}-0"]
        await command(fleet, "up", "--replicas", "2", "--workers", "2")
        status = await asyncio.to_thread(fleet.until, steady)
        assert [replica["workers"] for replica in status["replicas"]] == [2, 2]
    assert (ledger.failures, ledger.faults) == ([], [])
    assert ledger.connects == 40, "nobody had to reconnect"
    # A replica of several workers that is killed leaves none of them behind.
    killed = fleet.status()["replicas"][0]
    os.kill(killed["pid"], signal.SIGKILL)
    fleet.until(lambda status: steady(status) and status["replicas"][0]["pid"] != killed["pid"])
    await command(fleet, "up", "--replicas", "2", "--workers", "1")


async def test_a_replica_that_somebody_tells_to_stop_hands_its_sockets_over(fleet: Commands) -> None:
    stopped = fleet.until(steady)["replicas"][0]
    async with crowd(fleet.url, 40) as ledger:
        os.kill(stopped["pid"], signal.SIGTERM)

        def again(status: dict[str, Any]) -> bool:
            return steady(status) and part(status, stopped["name"])["pid"] != stopped["pid"]

        await asyncio.to_thread(fleet.until, again)
    assert (ledger.failures, ledger.faults) == ([], [])
    assert ledger.connects == 40, "nobody had to reconnect"


def test_edges_come_and_go(fleet: Commands) -> None:
    before = fleet.until(steady)
    fleet.ok("up", "--edges", "3")
    assert [edge["name"] for edge in fleet.until(steady)["edges"]] == ["edge-0", "edge-1", "edge-2"]
    fleet.ok("up", "--edges", "2")
    assert [edge["pid"] for edge in fleet.until(steady)["edges"]] == [edge["pid"] for edge in before["edges"]]


@pytest.mark.parametrize("moment", ["starting", "switching", "draining"])
@pytest.mark.parametrize("then", ["promote", "rollback"])
async def test_a_promote_that_is_killed_is_finished_or_taken_back(fleet: Commands, moment: str, then: str) -> None:
    before = fleet.until(steady)
    other = "green" if before["active_color"] == "blue" else "blue"
    async with crowd(fleet.url, 20) as ledger:
        promote = fleet.start("promote")
        assert promote.stderr is not None
        for line in promote.stderr:
            if line.startswith(moment):
                break
        promote.kill()
        promote.communicate()
        assert fleet("up").code == 1, "nothing else may be changed half-way"
        await command(fleet, then)
        status = await asyncio.to_thread(fleet.until, steady)
    assert status["active_color"] == (other if then == "promote" else before["active_color"])
    assert len(status["replicas"]) == 2
    assert (ledger.failures, ledger.faults) == ([], [])


async def test_shards_come_and_go_under_their_clients(fleet: Commands) -> None:
    dry = fleet.ok("reshard", "--shards", "4", "--dry-run")
    assert dry.stdout.splitlines()[-1] == "512 of 1024 slots move (50.0 %); the least possible: 512 (50.0 %)"
    same = fleet.ok("reshard", "--shards", "2")
    assert same.stdout.splitlines()[-1] == "nothing to do: shared-0 has 512, shared-1 has 512"
    async with crowd(fleet.url, 60) as ledger:
        for verb, shards in (("reshard", 4), ("up", 3), ("reshard", 2)):
            done = await command(fleet, verb, "--shards", str(shards))
            if (verb, shards) == ("reshard", 4):
                each = ", ".join(f"shared-{i} has 256" for i in range(4))
                assert done.stdout.splitlines()[-1] == f"512 of 1024 slots moved: {each}"
            status = await asyncio.to_thread(fleet.until, steady)
            assert [shard["name"] for shard in status["shards"]] == [f"shared-{i}" for i in range(shards)]
            assert sum(shard["slots"] for shard in status["shards"]) == 1024
            assert max(shard["slots"] for shard in status["shards"]) <= 1024 // shards + 1
    assert (ledger.failures, ledger.faults) == ([], [])
    assert ledger.connects == 60, "nobody had to reconnect"


def test_what_can_not_be_a_shard_is_told_by_a_dry_run_too(fleet: Commands) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
    for flags in ((), ("--dry-run",)):
        refused = fleet("reshard", "--shards", url, *flags)
        assert refused.code == 1
        assert refused.last.startswith(f"error: {url} can't be reached")
    assert len(fleet.until(steady)["shards"]) == 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_a_reshard_that_is_interrupted_says_what_goes_on(fleet: Commands, signum: signal.Signals) -> None:
    fleet.until(steady)
    reshard = fleet.start("reshard", "--shards", "4")
    assert reshard.stderr is not None
    for line in reshard.stderr:
        if line.startswith("moving"):
            break
    reshard.send_signal(signum)
    stopped = finish(reshard)
    assert (stopped.code, stopped.last) == (130, "interrupted")
    assert "`inv reshard --shards 4` again goes on from there" in stopped.stderr
    fleet.ok("reshard", "--shards", "2")
    assert [shard["slots"] for shard in fleet.until(steady)["shards"]] == [512, 512]


async def test_a_reshard_that_is_killed_is_finished_by_the_next(fleet: Commands) -> None:
    async with crowd(fleet.url, 20) as ledger:
        reshard = fleet.start("reshard", "--shards", "4")
        assert reshard.stderr is not None
        for line in reshard.stderr:
            if line.startswith("moving"):
                break
        reshard.kill()
        reshard.communicate()
        assert fleet.status()["state"] == "resharding"
        await command(fleet, "reshard", "--shards", "2")
        status = await asyncio.to_thread(fleet.until, steady)
    assert [shard["slots"] for shard in status["shards"]] == [512, 512]
    assert (ledger.failures, ledger.faults) == ([], [])


def test_logs_of_one_part_or_of_all(fleet: Commands) -> None:
    fleet.until(steady)
    assert "Ready to accept connections" in fleet.ok("logs", "shared-0").stdout
    assert "shared-1" in fleet.ok("logs").stdout
    unknown = fleet("logs", "blue-99")
    assert (unknown.code, len(unknown.stderr.splitlines())) == (2, 1)


async def test_logs_are_followed(fleet: Commands) -> None:
    fleet.until(steady)
    following = fleet.start("logs", "shared-0", "--follow")
    assert following.stdout is not None
    assert following.stdout.readline()
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=60)
    assert following.returncode == 130


async def test_a_keeper_that_is_killed_is_told_of_and_replaced(commands: Commands) -> None:
    commands.ok("up", "--replicas", "1", "--shards", "1", "--edges", "1")
    keeper = next(process for process in commands.processes() if "shards.fleet.engines.keeper" in process.cmdline())
    keeper.kill()
    keeper.wait(60)
    found = commands("status")
    assert "degraded" in found.stdout
    assert "nothing keeps this fleet alive" in found.stderr
    assert part(commands.status(), "shared-0")["healthy"], "what it kept goes on"
    assert commands("promote").code == 1
    commands.ok("up")
    assert steady(commands.until(steady))


async def history(url: str, group: str) -> set[str]:
    """Read the ids of the messages in a group's log."""
    async with connect(f"{url}/ws/") as socket:
        await socket.recv()
        await socket.send(json.dumps({"type": "history", "group": group, "limit": 1000}))
        return {message["id"] for message in json.loads(await socket.recv())["messages"]}


async def test_after_a_reboot_up_starts_it_again_with_its_data(commands: Commands) -> None:
    commands.ok("up", "--replicas", "1", "--shards", "1", "--edges", "1")
    async with crowd(commands.url, 1) as ledger:
        while not ledger.acked:
            await asyncio.sleep(0.05)
    left = commands.processes()
    for process in sorted(left, key=lambda process: "shards.fleet.engines.keeper" not in process.cmdline()):
        process.kill()
    psutil.wait_procs(left, 60)
    assert commands.status() == {"state": "down"}
    commands.ok("up", "--replicas", "1", "--edges", "1")
    status = commands.until(steady)
    assert len(status["shards"]) == 1, "as many as hold the data, not the default"
    for group, acked in ledger.acked.items():
        assert acked <= await history(commands.url, group), "what was acked is there"
    down = commands.ok("down")
    assert down.stdout.strip() == "fleet t is down; its data is kept"
    commands.gone()
    assert commands.ok("down").stdout.strip() == "fleet t was not up"
    assert commands("status", "--json").code == 1
    commands.ok("down", "--purge")
    assert not commands.directory.exists()

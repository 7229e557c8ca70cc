"""`inv top`: what people see of the dashboard on a terminal."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from redis.asyncio import Redis
from rich.console import Console

from shards.fleet import probe
from shards.fleet.engines.local import LocalOptions
from shards.fleet.fleet import Fleet
from shards.fleet.layout import CONTROL
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState
from shards.router.control import WorkerRecord
from shards.router.table import Shard, SlotTable
from shards.server.dashboard.figures import Reading, counts_of, shown
from shards.server.exposition import Family
from shards.tasks.console import Kept
from shards.tasks.top import line, panel
from shards.tasks.view import noted, show
from tests.fleet.runner import Commands, steady
from tests.fleet.runner import part as part_of
from tests.redis_server import RedisServer

BY = {"color": "blue", "replica": "blue-0", "worker": "1"}


def view(second: float, delivered: float, gaps: float = 0.0, **more: Any) -> dict[str, Any]:
    """What is shown of one worker that has delivered so much since it began."""

    def reading(at: float, count: float) -> Reading:
        families = [
            Family("app_messages_delivered", "", "counter", [("app_messages_delivered_total", BY, count)]),
            Family("app_gaps", "", "counter", [("app_gaps_total", BY, gaps)]),
        ]
        worker = WorkerRecord("blue-0/1", "blue", "blue-0", "1", 1, "active", 7, "r1", 1, 12.5)
        table = SlotTable.first([Shard("shared-0", "redis://a"), Shard("shared-1", "redis://b")])
        return Reading(at, [worker], counts_of([msgspec.json.encode(families)]), table, **more)

    return shown(reading(second, delivered), reading(second - 1, 0))


def part(name: str, healthy: bool = True, **more: Any) -> dict[str, Any]:
    return {"name": name, "healthy": healthy, **more}


STEADY = {"state": "steady", "replicas": [part("blue-0", state="active")], "shards": [part("shared-0", servers=[])]}
DEGRADED = {
    "state": "degraded",
    "replicas": [part("blue-0", state="active"), part("blue-1", False, state="down")],
    "shards": [part("shared-0", False, servers=[])],
    "warnings": ["nothing keeps this fleet alive any more"],
}


def drawn(*views: dict[str, Any], status: dict[str, Any] = STEADY) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(panel(views, "t at http://x", status))
    return console.export_text()


def test_it_shows_rates_replicas_ring_and_what_goes_on() -> None:
    said = drawn(view(1, 100), view(2, 2500))
    assert "fleet t at http://x: steady" in said
    assert "2,500" in said
    assert "blue-0" in said
    assert "shared-0 512, shared-1 512 slots" in said
    assert "no trouble counted" in said
    assert "slots move" in drawn(view(1, 0, resharding=True))
    assert "promote to green at move" in drawn(view(1, 0, cutover={"verb": "promote", "new": "green", "step": "move"}))
    assert "3 gaps" in drawn(view(1, 0, gaps=3.0))


def test_a_fleet_is_called_steady_only_where_inv_status_says_so() -> None:
    """The control Redis is told only by workers that live: of a shard that is down it knows nothing."""
    said = drawn(view(1, 100), status=DEGRADED)
    assert "fleet t at http://x: degraded" in said
    assert "no answer: blue-1, shared-0" in said
    assert "nothing keeps this fleet alive any more" in said
    assert "steady" not in said
    assert "steady" not in drawn(view(1, 100), status={})
    assert "no answer" not in drawn(view(1, 100))


def test_a_replica_of_which_no_worker_speaks_is_among_the_others() -> None:
    rows = [line.split() for line in drawn(view(1, 100), status=DEGRADED).splitlines()]
    assert ["blue-1", "down", "-", "-", "-", "-", "-"] in rows
    assert len([row for row in rows if row[:1] == ["blue-0"]]) == 1


def test_a_line_of_a_log_says_how_the_fleet_is() -> None:
    assert line(view(1, 100), STEADY).startswith("steady, 7 sockets, ")
    assert line(view(1, 100), DEGRADED).startswith("degraded (blue-1, shared-0), 7 sockets, ")


def test_a_control_redis_that_is_away_is_told_and_drawn_over() -> None:
    away = {"away": "the control Redis does not answer"}
    assert "does not answer" in drawn(view(1, 5), away)
    assert "2,500" in drawn(view(1, 5), away, view(3, 2500))
    assert line(away, DEGRADED) == f"degraded (blue-1, shared-0), {away['away']}"


def test_one_status_after_the_other_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for second in (1, 2):
        show({"state": "down", "project": "t", "others": []}, datetime(2026, 1, 2, 3, 4, second))
    first, apart, then, end = capsys.readouterr().out.split("\n")[:4]
    assert first.startswith("2026-01-02 03:04:01 fleet t does not run")
    assert then.startswith("2026-01-02 03:04:02 fleet t does not run")
    assert apart == end == ""


def test_what_must_not_be_missed_is_drawn_once_and_not_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    kept = Kept()
    kept.say("starting")
    kept.keep("nothing keeps this fleet alive")
    assert noted({"state": "degraded"}, kept.taken()) == {
        "state": "degraded",
        "warnings": ["nothing keeps this fleet alive"],
    }
    assert kept.taken() == []
    assert capsys.readouterr().err == ""


async def test_who_watches_goes_on_after_the_passwords_were_changed(
    start_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server, directory = start_redis("--requirepass", "before"), FleetDir(tmp_path, "t")
    directory.create()
    directory.password_file.write_text("before")
    fleet = Fleet(directory, LocalOptions(tmp_path), print)
    async with fleet.control(FleetState(FleetSpec(project="t"), ports={CONTROL: server.port})) as control:
        assert await control.table() is None
        async with Redis(port=server.port, password="before") as admin:
            await admin.config_set("requirepass", "after")
            directory.password_file.write_text("after")
            await admin.client_kill_filter(_type="normal", skipme=True)
        assert await probe.insist(control.table) is None


@pytest.mark.fleet
@pytest.mark.timeout(300)
def test_off_a_terminal_it_says_a_line_a_second_until_it_is_stopped(fleet: Commands) -> None:
    with fleet.start("top") as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert all("sockets" in one for one in said)
    assert fleet("top", "--project", "none").code == 1


@pytest.mark.fleet
@pytest.mark.timeout(300)
def test_a_shard_that_hangs_is_named_although_every_worker_is_well(fleet: Commands) -> None:
    shard = psutil.Process(part_of(fleet.status(), "shared-0")["pid"])
    with fleet.start("top") as process:
        assert process.stdout is not None
        try:
            assert any(line.startswith("steady, ") for line in process.stdout)
            shard.suspend()
            said = next(line for line in process.stdout if line.startswith("degraded ("))
        finally:
            shard.resume()
            process.send_signal(signal.SIGINT)
    assert "shared-0" in said
    fleet.until(steady)


@pytest.mark.fleet
@pytest.mark.timeout(300)
def test_a_status_that_is_watched_off_a_terminal_says_when_each_was(fleet: Commands) -> None:
    with fleet.start("status", "--watch") as process:
        assert process.stdout is not None
        heads = []
        while len(heads) < 2:
            line = process.stdout.readline()
            heads += [line] if " is steady at " in line else []
        process.send_signal(signal.SIGINT)
    first, second = (datetime.strptime(head[:19], "%Y-%m-%d %H:%M:%S") for head in heads)
    assert first < second

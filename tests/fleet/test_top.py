"""`inv top`: what people see of the dashboard on a terminal."""

from __future__ import annotations

import io
import signal
from typing import Any

import msgspec
import pytest
from rich.console import Console

from shards.router.control import WorkerRecord
from shards.router.table import Shard, SlotTable
from shards.server.dashboard.figures import Reading, counts_of, shown
from shards.server.exposition import Family
from shards.tasks.top import line, panel
from tests.fleet.runner import Commands

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


def drawn(*views: dict[str, Any]) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(panel(views, "t at http://x"))
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


def test_a_control_redis_that_is_away_is_told_and_drawn_over() -> None:
    away = {"away": "the control Redis does not answer"}
    assert "does not answer" in drawn(view(1, 5), away)
    assert "2,500" in drawn(view(1, 5), away, view(3, 2500))
    assert line(away) == away["away"]


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

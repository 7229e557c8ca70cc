"""Steps are merged into one report, and it is said where the service bends."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from shards.load import report, steps
from shards.load.coordinator import Load
from shards.load.histogram import Histogram
from shards.load.histogram import steps as steps_of
from shards.load.ledger import Account, Tally
from shards.load.page import render
from shards.load.report import Run
from shards.load.scenarios import Target
from tests.load.test_report import outcome, references
from tests.load.test_targets import SCENARIOS, well


def step(connections: int, p99: float, missed: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"connections": connections, "p99_ms": p99, "missed": list(missed)}


@pytest.mark.parametrize(
    ("taken", "at", "why"),
    [
        ([step(1000, 2), step(2000, 2.5), step(5000, 6)], None, "no bend up to 5,000"),
        ([step(1000, 2), step(2000, 9), step(5000, 14)], 5000, "7.0 times the lowest"),
        ([step(1000, 20), step(2000, 50), step(5000, 61)], 5000, "61.0 ms"),
        ([step(1000, 2), step(2000, 2, ("lost",)), step(5000, 90)], 2000, "it misses lost"),
        ([step(1000, 40)], None, "no bend up to 1,000"),
    ],
    ids=["flat", "out of proportion", "slow from the start", "missed", "one step"],
)
def test_where_it_bends(taken: list[dict[str, Any]], at: int | None, why: str) -> None:
    found = steps.bend(taken)
    assert found["connections"] == at
    assert why in found["why"]


def made(started: float, connections: int, **changes: object) -> dict[str, Any]:
    load = Load(url="ws://127.0.0.1:1/ws/", connections=connections, duration_s=10, rate=1000)
    samples = [{"t": float(t), "rss_bytes": 1e6 * connections, "cpu_percent": 50.0} for t in range(1, 12)]
    process = {"name": "edge-0", "rss_max_bytes": 1, "cpu_max_percent": 1.0, "cpu_mean_percent": 1.0, "files_max": 3}
    events = [{"t": 0.5, "name": "load"}]
    usual = {"started": started, "opened": connections, "open": connections, "events": events, "duration_s": 12.0}
    seen = outcome(**(usual | changes))
    targets = {"connect_success": Target(">= 0.999"), "lost": Target("== 0"), "p99_ms": Target("< 50")}
    return report.build("gradual", targets, Run(load, seen, {}, [{**process, "samples": samples}]))


def test_the_steps_become_one_report() -> None:
    whole = steps.merged([made(1000, 100), made(1030, 200)])
    assert whole["verdict"] == "pass"
    assert whole["duration_s"] == 42
    assert [one["connections"] for one in whole["steps"]] == [100, 200]
    assert whole["steps"][1]["cpu_percent"] == {"edges": 50.0}
    assert whole["steps"][1]["rss_bytes"] == {"edges": 2e8}
    assert whole["messages"]["delivered"] == 20_000
    assert [event["t"] for event in whole["events"]] == [0.5, 30.5]
    assert [sample["t"] for sample in whole["resources"][0]["samples"]][10:12] == [11.0, 31.0]
    page = render(whole)
    assert "does not bend" in page


def test_a_step_that_misses_a_target_fails_the_whole_and_its_row_is_shown() -> None:
    lossy = made(1000, 100)
    lossy["targets"][1] |= {"measured": 3, "ok": False}
    lossy["verdict"] = "fail"
    whole = steps.merged([lossy, made(1030, 200)])
    assert whole["verdict"] == "fail"
    assert [target["measured"] for target in whole["targets"] if not target["ok"]] == [3]
    assert whole["bend"]["connections"] == 100


def test_what_went_wrong_in_any_step_is_in_the_sums() -> None:
    amiss = Tally(delivered=1, lost=1, skipped=2, duplicated=3, reordered=4, overtaken=5, gaps=6, jumps=7, late=8)
    whole = steps.merged([made(1000, 100, tally=amiss), made(1030, 200)])["messages"]
    names = ("lost", "skipped", "duplicated", "reordered", "overtaken", "gaps", "unannounced_gaps", "late")
    assert [whole[name] for name in names] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_who_was_hit_in_any_step_is_told() -> None:
    lossy = made(
        1000,
        100,
        tally=Tally(lost=1),
        amiss=1,
        accounts=[Account(7, Tally(lost=1), ["lost: offset 3, id 2"], "room")],
        errors=Counter({"protocol": 2}),
        examples={"protocol": "["},
        reconnects=3,
        open=99,
        failures=Counter({"timeout": 1}),
        events=[{"t": 0.5, "name": "load"}, {"t": 2.0, "name": "kill edge: edge-0", "pid": 1}],
    )
    second = made(1030, 200, errors=Counter({"protocol": 1, "other": 1}), failures=Counter({"timeout": 1}))
    whole = steps.merged([lossy, second | {"left_out": {"unacked": "no acks"}}])
    assert whole["clients"]["amiss"] == 1
    assert [(one["client"], one["examples"]) for one in whole["clients"]["worst"]] == [(7, ["lost: offset 3, id 2"])]
    assert whole["errors"] == [
        {"kind": "protocol", "count": 3, "example": "["},
        {"kind": "other", "count": 1, "example": ""},
    ]
    assert [(one["name"], one["t"]) for one in whole["disruptions"]] == [("kill edge: edge-0", 2.0)]
    assert whole["left_out"] == {"unacked": "no acks"}
    connections = whole["connections"]
    assert (connections["not_back"], connections["reconnects"], connections["opened"]) == (1, 3, 200)
    assert connections["failures"] == [{"reason": "timeout", "count": 2}]


def test_what_cannot_be_summed_is_that_of_the_worst_step() -> None:
    """The first step is worse in everything, so that the last one's figures are not enough."""
    away, lag = Histogram(), Histogram()
    away.record(steps_of([2_000_000_000]))
    lag.record(steps_of([9_000_000]))
    first, second = made(1000, 100, away=away, lag=lag, cpu_percent=98.0), made(1030, 200)
    slots = [{"version": number, "slots": {}} for number in (1, 2, 3)]
    wear = {"name": "edge-0", "rss_bytes_per_s": 5.0, "files_risen": None}
    first |= {"ring": {"before": slots[0], "after": slots[1]}, "wear": [wear], "redis_clients": [7, 9]}
    second |= {"ring": {"before": slots[1], "after": slots[2]}, "redis_clients": [9, 8]}
    second |= {"wear": [wear | {"rss_bytes_per_s": 1.0, "files_risen": 2.0}]}
    whole = steps.merged([first, second])
    assert whole["resume_ms"]["count"] == 1
    assert whole["resume_ms"]["p95"] == pytest.approx(2000, rel=0.01)
    assert whole["generator"]["max_lag_ms"] == pytest.approx(9, rel=0.01)
    assert whole["generator"]["max_cpu_percent"] == 98
    assert whole["generator"]["saturated_by"] == [
        "at 100 connections one of its processes used 98.0 % of a core in the load (95 % may be)"
    ]
    assert whole["ring"] == {"before": slots[0], "after": slots[2]}
    assert whole["wear"] == [wear | {"files_risen": 2.0}]
    assert whole["redis_clients"] == [7, 9, 9, 8]


def test_a_page_opens_offline_whatever_is_on_it() -> None:
    ring = {when: {"version": 1, "slots": {"shared-0": 512, "shared-1": 512}} for when in ("before", "after")}
    spread = [{"t": float(t), "replicas": {"blue-0": 5, "green-0": 5}} for t in range(3)]
    run = replace(well(), ring=ring, spread=spread)
    run.outcome.naive.record(steps_of([1_000_000]))
    run.outcome.problems.append("something")
    step = report.build("stress", SCENARIOS["stress"].targets, run)
    page = render(steps.merged([step, step]))
    for heading in ("Targets", "Steps", "What happened to clients", "Connections", "Events", "Ring", "Processes"):
        assert f"<h2>{heading}" in page
    assert "nothing was measured" not in page
    assert references(page) == []


def test_a_step_that_was_stopped_is_no_pass() -> None:
    stopped = made(1030, 200, aborted=True)
    assert steps.merged([made(1000, 100), stopped])["verdict"] == "aborted"

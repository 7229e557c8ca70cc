"""The verdict follows from the targets, and the files say what was seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ShardsError, UsageError
from shards.load import report
from shards.load.coordinator import Load, Outcome, Second
from shards.load.histogram import steps
from shards.load.ledger import Tally
from shards.load.report import Run
from shards.load.scenarios import Event, Target

LOAD = Load(url="ws://127.0.0.1:1/ws/", connections=100, duration_s=10, rate=1000)
TARGETS = {"connect_success": Target(">= 0.999"), "lost": Target("== 0"), "p99_ms": Target("< 50")}


def outcome(**changes: object) -> Outcome:
    made = Outcome(
        opened=100,
        open=100,
        load_s=10,
        connect_s=0.1,
        tally=Tally(published=1000, acked=1000, expected=10_000, delivered=10_000),
    )
    made.latency.record(steps([5_000_000] * 1000))
    made.timeline = {-1: Second(), 0: Second(100, 100, 1000, 5, 6), 1: Second(100, 100, 1000, 5, 60)}
    made.events = [{"t": 0.5, "name": "<b>promote"}]
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def document(seen: Outcome) -> dict[str, object]:
    resources = [
        {"name": "edge-0", "rss_max_bytes": 5, "cpu_max_percent": 1.0, "cpu_mean_percent": 1.0, "samples": []},
    ]
    return report.build("loadtest-10k", TARGETS, Run(LOAD, seen, {}, resources))


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "pass"),
        ({"opened": 99}, "fail"),
        ({"tally": Tally(lost=1)}, "fail"),
        ({"cpu_percent": 96.0}, "fail"),
        ({"problems": ["generator process 1 ended before it was through"]}, "fail"),
        ({"aborted": True}, "aborted"),
    ],
    ids=["well", "connections", "lost", "saturated", "problem", "aborted"],
)
def test_the_verdict(changes: dict[str, object], verdict: str) -> None:
    assert document(outcome(**changes))["verdict"] == verdict


def test_a_late_generator_is_saturated() -> None:
    assert report.saturated(lag_p99_ms=10.1, cpu_percent=0, lag_ms=10)
    assert not report.saturated(lag_p99_ms=10, cpu_percent=95, lag_ms=10)


def test_latency_beyond_its_target_fails() -> None:
    slow = outcome()
    slow.latency.record(steps([60_000_000] * 20))
    assert document(slow)["verdict"] == "fail"


def test_what_was_not_measured_is_missed() -> None:
    judged = report.judge({"p99_ms": Target("< 50")}, Run(LOAD, Outcome(), {}, []))
    assert judged == [{"name": "p99_ms", "target": "< 50", "measured": None, "ok": False}]


@pytest.mark.parametrize(
    ("figure", "changes"),
    [
        ("http_errors", {"probe_url": "http://127.0.0.1:1/"}),
        ("during_exit", {"events": (Event(1, command="true"),)}),
        ("memory_gb", {"project": "mine"}),
    ],
)
def test_what_a_run_does_not_have_is_left_out_and_said(figure: str, changes: dict[str, Any], tmp_path: Path) -> None:
    targets = {figure: Target("== 0")}
    without, asked = Run(LOAD, Outcome(), {}, []), Run(replace(LOAD, **changes), Outcome(), {}, [])
    assert (report.judge(targets, without), list(report.left_out(targets, without))) == ([], [figure])
    report.write(report.build("run", targets, without), tmp_path / "r.json")
    assert "left out: " in (tmp_path / "r.html").read_text()
    assert [target["ok"] for target in report.judge(targets, asked)] == [False]
    assert report.left_out(targets, asked) == {}


def test_no_target_judged_is_no_pass() -> None:
    assert report.verdict([], outcome(), False) == "fail"


def test_a_target_for_no_figure_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no figure is called losses; there are: connect_success, "):
        report.check({"losses": Target("== 0")})


def test_the_files(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "loadtest-10k.json"
    report.write(document(outcome()), path)
    written = json.loads(path.read_text())
    assert written["messages"]["per_s"] == 1000
    assert written["latency_ms"]["corrected"] is True
    assert [second["t"] for second in written["timeline"]] == [0, 1]
    page = path.with_suffix(".html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<b>promote" not in page
    assert "http://" not in page
    assert sorted(p.name for p in path.parent.iterdir()) == ["loadtest-10k.html", "loadtest-10k.json"]


def test_a_report_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardsError, match="cannot write the report"):
        report.write(document(outcome()), tmp_path / "file" / "r.json")


def test_a_run_that_saw_nothing_still_gives_a_page(tmp_path: Path) -> None:
    report.write(report.build("run", TARGETS, Run(LOAD, Outcome(), {}, [])), tmp_path / "r.json")
    page = (tmp_path / "r.html").read_text()
    assert "nothing was measured" in page
    assert "<td>not measured<td>✗ missed" in page


def test_who_came_back_is_told_with_how_long_it_took() -> None:
    seen = outcome()
    assert document(seen)["resume_ms"] is None
    seen.away.record(steps([100_000_000] * 99 + [2_000_000_000]))
    found = document(seen)["resume_ms"]
    assert isinstance(found, dict)
    assert found["count"] == 100
    assert found["p50"] == pytest.approx(100, rel=0.01)
    assert found["max"] == pytest.approx(2000, rel=0.01)


@pytest.mark.parametrize(("state", "ok"), [("steady", True), ("degraded", False)])
def test_a_fleet_that_did_not_heal_is_seen(state: str, ok: bool) -> None:
    run = Run(LOAD, outcome(), {"state": state}, [])
    assert [target["ok"] for target in report.judge({"not_steady": Target("== 0")}, run)] == [ok]
    assert not report.judge({"not_steady": Target("== 0")}, Run(LOAD, outcome(), {}, []))[0]["ok"]

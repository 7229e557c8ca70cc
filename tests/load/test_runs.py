"""A scenario many times in a row: all must pass, and each is told of."""

from __future__ import annotations

from pathlib import Path

from shards.load import runs

PASSED = {"verdict": "pass"}
FAILED = {"verdict": "fail"}


def test_each_of_many_runs_has_a_report_of_its_own() -> None:
    path = Path("reports/chaos.json")
    assert runs.report_path(path, 1, 1) == path
    assert runs.report_path(path, 7, 20) == Path("reports/chaos-07.json")
    assert runs.summary_path(path) == Path("reports/chaos-runs.json")


def test_all_runs_asked_for_must_pass() -> None:
    assert runs.summary("chaos", 2, [PASSED, PASSED])["verdict"] == "pass"
    assert runs.summary("chaos", 2, [PASSED, FAILED])["verdict"] == "fail"
    stopped = runs.summary("chaos", 3, [PASSED, PASSED])
    assert (stopped["verdict"], stopped["passed"], stopped["runs"]) == ("fail", 2, 3)

"""A scenario many times in a row: which report is whose, and what came of them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TOLD = ("verdict", "started", "duration_s", "problems", "messages", "resume_ms")


def report_path(path: Path, number: int, runs: int) -> Path:
    """Give the path of a run's report: `path` of the only one, ``<path>-07.json`` of the seventh of many."""
    return path if runs == 1 else path.with_name(f"{path.stem}-{number:0{len(str(runs))}}{path.suffix}")


def summary_path(path: Path) -> Path:
    """Give the path of the summary of many runs."""
    return path.with_name(f"{path.stem}-runs.json")


def result(path: Path, seed: int, document: dict[str, Any]) -> dict[str, Any]:
    """Say of one run what the summary holds of it."""
    missed = [target["name"] for target in document["targets"] if not target["ok"]]
    told = {name: document[name] for name in _TOLD}
    return {"report": path.name, "seed": seed, "missed": missed, **told}


def no_result(path: Path, seed: int, problem: str) -> dict[str, Any]:
    """Say of a run that it did not come about."""
    return {"report": path.name, "seed": seed, "missed": [], "verdict": "fail", "problems": [problem]}


def summary(scenario: str, runs: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the runs that were made, of `runs` that were asked for; all of these must have passed."""
    passed = sum(1 for one in results if one["verdict"] == "pass")
    return {
        "scenario": scenario,
        "verdict": "pass" if passed == runs else "fail",
        "runs": runs,
        "passed": passed,
        "results": results,
    }

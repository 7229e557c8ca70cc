"""The attacks do what they say, and their judge sees what went wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.__main__ import cells, markdown, why_not
from tests.attacks.crowd import GROUP_SIZE, Window, quantile
from tests.fleet.runner import ROOT


def found(crowd: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    noticed = {"lost": 0, "doubled": 0, "unacked": 0, "gaps": 0, "refused": 0, "reconnects": 0, "delivered": 10}
    noticed |= {"p50_ms": 1.0, "p99_ms": 5.0, "max_ms": 9.0, "lag_p99_ms": 1.0} | (crowd or {})
    part = {"name": "blue-0", "before": 100 << 20, "most": 110 << 20, "after": 105 << 20}
    memory = {"replica": part, "edge": part | {"name": "edge-0"}}
    rest = {"attack": "x", "what": "y", "seconds": 1.0, "told": {"closed 1008": 3}, "died": [], "steady": True}
    return {**rest, "memory": memory, "crowd": noticed, **changes}


def test_what_held_held() -> None:
    assert why_not(found()) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (found({"p99_ms": 100.0}), "p99"),
        (found({"p99_ms": None}), "p99"),
        (found({"lag_p99_ms": 60.0}), "itself"),
        (found({"lost": 1}), "1 lost"),
        (found({"reconnects": 2}), "2 reconnects"),
        (found({"unacked": 1}), "1 unacked"),
        (found(died=["blue-0"]), "blue-0 died"),
        (found(steady=False), "steady"),
        (found(told={"sent": 10}), "did nothing"),
        (
            found(memory={"edge": {"name": "edge-0", "before": 0, "most": 300 << 20, "after": 0}}),
            "edge-0 grew by 300 MB",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_went_wrong_is_said(wrong: dict[str, Any], words: str) -> None:
    [why] = why_not(wrong)
    assert words in why


def test_the_page_has_a_line_for_each() -> None:
    one = found() | {"why_not": ["1 lost"]}
    page = markdown({"clients": 200, "rate": 1000.0, "attacks": [one]})
    assert f"| {' | '.join(cells(one))} |" in page
    assert "**x**: y" in page


def test_the_crowd_counts_what_was_acked_and_did_not_come() -> None:
    window = Window(acked={"a", "b"}, pending={"c"})
    window.heard.update({"a": GROUP_SIZE, "b": GROUP_SIZE - 3})
    assert (window.lost(), window.settled(), window.told()["unacked"]) == (3, False, 1)
    window.heard["b"] += 4
    assert (window.told()["lost"], window.told()["doubled"]) == (0, 1)


def test_quantiles() -> None:
    assert quantile([], 0.99) is None
    assert [quantile([*range(100)], share) for share in (0.5, 0.99, 1.0)] == [50, 99, 99]


@pytest.mark.fleet
def test_some_attacks_on_a_small_fleet(tmp_path: Path) -> None:
    small = ("--seconds", "2", "--clients", "20", "--rate", "100", "--replicas", "1", "--json")
    some = "unmasked-frames,ping-flood,token-guessing"
    run = subprocess.run(
        [sys.executable, "-m", "tests.attacks", *small, "--only", some, "--reports", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode in (0, 1), run.stderr
    result = json.loads(run.stdout)
    told = {one["attack"]: one["told"] for one in result["attacks"]}
    assert told["unmasked-frames"].keys() == {"connections", "closed 1002"}
    assert "closed 1008" in told["ping-flood"]
    assert told["token-guessing"].keys() == {"connections", "socket 403", "API 401"}
    for one in result["attacks"]:
        assert not one["died"]
        assert one["steady"]
        assert (one["crowd"]["lost"], one["crowd"]["reconnects"]) == (0, 0)
        assert one["crowd"]["delivered"] >= 100, "the crowd went on all the while"
    assert (tmp_path / "attacks.md").exists()


def test_an_attack_that_nobody_knows_is_wrong_usage() -> None:
    command = [sys.executable, "-m", "tests.attacks", "--only", "telepathy"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "telepathy" in run.stderr

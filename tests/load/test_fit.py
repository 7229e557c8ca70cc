"""A line through measurements, and how much it can be trusted."""

from __future__ import annotations

import json

import pytest

from shards.load.fit import fit
from shards.load.scaling import costs, markdown, table
from shards.load.scenarios import repository

ROOT = repository()


def test_a_straight_line_is_found_without_error() -> None:
    found = fit([(1000, 70e6 + 22e3 * 1000), (5000, 70e6 + 22e3 * 5000), (20000, 70e6 + 22e3 * 20000)])
    assert found.slope == pytest.approx(22e3)
    assert found.base == pytest.approx(70e6)
    assert found.error == pytest.approx(0, abs=1e-3)


def test_the_error_is_that_of_textbooks() -> None:
    """Anscombe's first quartet: slope 0.500 with a standard error of 0.118."""
    x = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    found = fit(list(zip(x, y, strict=True)))
    assert found.slope == pytest.approx(0.5001, abs=1e-4)
    assert found.base == pytest.approx(3.0001, abs=1e-4)
    assert found.error == pytest.approx(0.1179, abs=1e-4)
    assert found.residual == pytest.approx(1.9213, abs=1e-3)


@pytest.mark.parametrize("points", [[(1.0, 1.0), (2.0, 2.0)], [(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]])
def test_too_little_for_a_line_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="three measurements"):
        fit(points)


def test_the_documentation_has_the_costs_that_are_counted_with() -> None:
    found = json.loads((ROOT / "shards" / "host" / "costs.json").read_text())
    assert costs(found["runs"], found["host"], found["measured"]) == found
    assert markdown(found) in (ROOT / "docs" / "scaling.md").read_text()


def test_each_cost_is_told_with_its_own_error() -> None:
    """Silent sockets whose CPU is no line: its error is beside it, and the one of messages is another."""
    found = json.loads((ROOT / "shards" / "host" / "costs.json").read_text())
    edges = found["tiers"]["edges"]
    silent = fit([(run["connections"], run["quiet"]["edges"]["cpu_percent"] / 100) for run in found["runs"]])
    assert edges["socket_cpu_s_error"] == pytest.approx(silent.error, rel=0.01)
    told = f"{1e6 * silent.slope:.1f} ± {1e6 * silent.error:.1f} µs/s"
    assert told in markdown(found)
    assert told in table(found)[0]


def test_costs_follow_from_runs() -> None:
    def run(sockets: int) -> dict[str, object]:
        quiet = {"cpu_percent": sockets * 0.001, "rss_bytes": 2 * 50e6 + 40e3 * sockets}
        busy = {"cpu_percent": sockets * 0.001 + sockets / 2 * 26e-6 * 100, "rss_bytes": 0.0}
        tiers = ("edges", "replicas", "shards")
        return {
            "connections": sockets,
            "delivered_per_s": sockets / 2,
            "processes": dict.fromkeys(tiers, 2),
            "quiet": dict.fromkeys(tiers, quiet),
            "busy": dict.fromkeys(tiers, busy),
        }

    found = costs([run(n) for n in (1000, 2000, 5000)], {"cpus": 2}, "2026-01-01T00:00:00+00:00")
    edges = found["tiers"]["edges"]
    assert edges["base_bytes"] == pytest.approx(50e6)
    assert edges["socket_bytes"] == pytest.approx(40e3)
    assert edges["message_cpu_s"] == pytest.approx(26e-6)
    assert edges["socket_cpu_s"] == pytest.approx(1e-5)
    assert found["most_sockets"] == 5000

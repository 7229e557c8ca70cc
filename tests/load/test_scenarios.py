"""Scenarios are read from `invoke.yaml`; what makes no sense there is said in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.errors import UsageError
from shards.load import report, scenarios
from shards.load.scenarios import Target


@pytest.mark.parametrize(
    ("text", "met", "missed"),
    [(">= 0.999", 0.999, 0.998), ("< 50", 49.9, 50), ("== 0", 0, 1), ("<= 4", 4, 4.1), ("> 1", 1.1, 1)],
)
def test_a_target_is_met_or_missed(text: str, met: float, missed: float) -> None:
    assert Target(text).met(met)
    assert not Target(text).met(missed)


def test_the_repositorys_own_scenarios_make_sense() -> None:
    known = scenarios.read(scenarios.repository() / "invoke.yaml")
    for scenario in known.values():
        report.check(scenario.targets)
    full = known["loadtest-10k"]
    assert full.connections == 10_000
    assert full.rate > 10_000
    assert {"lost", "duplicated", "reordered", "unannounced_gaps"} <= set(full.targets)


def test_a_shorter_run_has_its_events_earlier() -> None:
    full = scenarios.read(scenarios.repository() / "invoke.yaml")["chaos"]
    half = full.lasting(full.duration / 2)
    assert [event.at for event in half.events] == [event.at / 2 for event in full.events]
    assert full.lasting(None) == full


def test_events_that_follow_each_other_are_shortened_too() -> None:
    full = scenarios.read(scenarios.repository() / "invoke.yaml")["failover"]
    half = full.lasting(full.duration / 2)
    assert [event.after for event in half.events] == [(event.after or 0) / 2 for event in full.events]
    assert all(event.at is None for event in half.events)


def test_a_step_carries_and_owes_as_much_for_each_connection() -> None:
    full = scenarios.read(scenarios.repository() / "invoke.yaml")["gradual"]
    for number in (1000, 20_000):
        step = full.step(number)
        assert step.connections == number
        assert step.rate / number == pytest.approx(full.rate / full.connections)
        assert step.targets["delivered_per_s"].text == f">= {number}"
        assert step.targets["p99_ms"] == full.targets["p99_ms"]


def test_fewer_connections_carry_and_owe_less() -> None:
    full = scenarios.read(scenarios.repository() / "invoke.yaml")["loadtest-10k"]
    fifth = full.sized(2000, None)
    assert fifth.rate == pytest.approx(full.rate / 5)
    assert fifth.targets["delivered_per_s"].text == ">= 2000"
    assert fifth.targets["connect_rate_per_s"].text == ">= 100"
    assert full.sized(20_000, None).rate == full.rate
    assert full.sized(None, 700).targets["delivered_per_s"].text == ">= 693"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fleet: {}", "no key `load:`"),
        ("load: [", "cannot read"),
        ("load: {a: {connections: many, duration: 1, rate: 1}}", "load: a: Expected `int`"),
        ("load: {a: {connections: 1, rate: 1}}", "load: a: .*duration"),
        ("load: {a: {connections: 1, duration: 1, rate: 1, targets: {lost: none}}}", "'none' is no target"),
        ("load: {a: 5}", "load: a"),
        ("load: {a: {connections: 1, duration: 1, rate: 1, group_size: huge}}", "load: a"),
        ("load: {a: {connections: 1, duration: 1, rate: 1, events: [{at: 1}]}}", "load: a: .*one of `kill`"),
        ("load: {a: {connections: 1, duration: 1, rate: 1, events: [{at: 1, kill: all}]}}", "load: a: .*all"),
        ("load: {a: {connections: 1, duration: 1, rate: 1, events: [{kill: edge}]}}", "load: a: .*`at` or `after`"),
        (
            "load: {a: {connections: 1, duration: 1, rate: 1, events: [{at: 1, after: 1, kill: edge}]}}",
            "load: a: .*one",
        ),
        ("load: {a: {connections: 1, duration: 1, rate: 1, events: [{at: 1, kill: edge, run: up}]}}", "load: a: "),
    ],
)
def test_a_config_that_makes_no_sense(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "invoke.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        scenarios.read(path)


def test_a_common_target_can_be_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "invoke.yaml"
    path.write_text("load: {targets: {lost: '== 0'}, a: {connections: 1, duration: 1, rate: 1, targets: {lost: null}}}")
    assert scenarios.read(path)["a"].targets == {}

"""A leak goes on; what warms up, steps up or jitters is none."""

from __future__ import annotations

import random

import pytest

from shards.load import growth
from shards.load.usage import clients, ended, tier_of, tiers, wear

MB = 1e6


def noisy(of_second, seconds: int = 60) -> list[tuple[float, float]]:
    chance = random.Random(1)
    return [(t, of_second(t) + chance.uniform(-0.2, 0.2) * MB) for t in range(seconds)]


@pytest.mark.parametrize(
    ("of_second", "least", "most"),
    [
        (lambda t: 90 * MB + 0.07 * MB * t, 0.05 * MB, 0.09 * MB),
        (lambda t: 90 * MB, 0, 0.01 * MB),
        (lambda t: 90 * MB + (8 * MB if t > 20 else 0), 0, 0.01 * MB),
        (lambda t: 90 * MB + 10 * MB * (1 - 0.8**t), 0, 0.01 * MB),
        (lambda t: 90 * MB + 0.3 * MB * (t % 12), 0, 0.05 * MB),
        (lambda t: 90 * MB - 0.1 * MB * t, 0, 0),
    ],
    ids=["leak", "even", "step", "warm-up", "garbage collector", "shrinks"],
)
def test_only_what_goes_on_is_growth(of_second, least: float, most: float) -> None:
    found = growth.sustained(noisy(of_second))
    assert found is not None
    assert least <= found <= most


def test_an_outlier_does_not_make_a_slope() -> None:
    points = [(float(t), 2.0 * t) for t in range(30)]
    points[12] = (12.0, 1e9)
    assert growth.slope(points) == pytest.approx(2)


def test_too_few_samples_say_nothing() -> None:
    assert growth.sustained([(float(t), 1.0) for t in range(11)]) is None
    assert growth.risen([(0.0, 1.0)]) is None


def test_many_samples_are_thinned_without_changing_the_slope() -> None:
    assert growth.slope([(float(t), 3.0 * t) for t in range(3600)]) == pytest.approx(3)


def test_what_rose_is_told_by_medians_at_both_ends() -> None:
    points = [(float(t), 100.0 if t < 25 else 140.0) for t in range(50)]
    assert growth.risen(points) == 40
    points[0] = (0.0, 9999.0)
    assert growth.risen(points) == 40


def process(name: str, of_second, seconds: int = 60) -> dict[str, object]:
    samples = [
        {"t": float(t), "rss_bytes": of_second(t), "cpu_percent": 10.0, **({"files": 5 + t} if t % 5 == 0 else {})}
        for t in range(seconds)
    ]
    return {"name": name, "samples": samples}


def test_wear_tells_of_each_process_but_the_generator_and_those_that_came_late() -> None:
    resources = [
        process("blue-0", lambda t: 50e6 + 1024 * 70 * t),
        process("blue-1", lambda t: 50e6 + 15_000 * t),
        process("edge-0", lambda t: 80e6),
        process("generator-0", lambda t: 1e6 * t),
        process("shared-0/0", lambda t: 9e6, seconds=30),
    ]
    found = {one["name"]: one for one in wear(resources, 0, 60, messages=70 * 60)}
    assert set(found) == {"blue-0", "blue-1", "edge-0"}
    assert found["blue-1"]["bytes_per_message"] == 0, "less than 1 MiB in all is chance"
    assert found["blue-0"]["bytes_per_message"] == pytest.approx(1024, rel=0.01)
    assert found["edge-0"]["bytes_per_message"] == 0
    assert found["edge-0"]["files_risen"] > 20


def test_a_process_that_ends_meanwhile_is_told_of_for_its_growth_is_not_known() -> None:
    resources = [
        process("generator-0", lambda t: 1e6, seconds=20),
        process("edge-0", lambda t: 80e6),
        process("blue-0", lambda t: 50e6 + 30e6 * t, seconds=40),
    ]
    assert ended(resources, 0, 59) == ["blue-0"]
    assert ended(resources[:2], 0, 59) == []
    assert ended(resources[:1], 0, 59) is None


def test_clients_of_a_redis_that_does_not_say_are_not_none() -> None:
    fleet = {"shards": [{"clients": 5}], "redis": [{"clients": 2}]}
    assert clients(fleet) == [7]
    assert clients({**fleet, "redis": [{"clients": None}]}) == clients({}) == []


def test_what_an_edge_has_not_collected_yet_is_no_leak_and_what_goes_beyond_is() -> None:
    piles_up = process("edge-0", lambda t: 200e6 + 0.2e6 * t)
    leaks = process("edge-1", lambda t: 50e6 + 2e6 * t)
    found = {one["name"]: one for one in wear([piles_up, leaks], 0, 60, messages=600)}
    assert found["edge-0"]["rss_bytes_per_s"] > 0
    assert found["edge-0"]["bytes_per_message"] == 0
    assert found["edge-1"]["bytes_per_message"] == pytest.approx(200e3, rel=0.01)


def test_tiers_are_summed_over_their_processes() -> None:
    resources = [process("edge-0", lambda t: 2.0), process("edge-1", lambda t: 3.0), process("green-2", lambda t: 4.0)]
    found = tiers(resources, 10, 50)
    assert found["edges"] == {"cpu_percent": 20.0, "rss_bytes": 5.0}
    assert found["replicas"]["rss_bytes"] == 4.0


@pytest.mark.parametrize(
    ("name", "tier"),
    [("edge-0", "edges"), ("blue-0/1", "replicas"), ("shared-3-twin", "shards"), ("redis_blue", "redis")],
)
def test_a_process_belongs_to_the_tier_of_its_name(name: str, tier: str) -> None:
    assert tier_of(name) == tier

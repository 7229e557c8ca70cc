"""A leak goes on; what warms up, steps up or jitters is none."""

from __future__ import annotations

import random
from typing import Any

import pytest

from shards.load import growth, scenarios
from shards.load.usage import clients, ended, tier_of, tiers, together, wear

MB = 1e6
STRESS = scenarios.read(scenarios.repository() / "invoke.yaml")["stress"].targets


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


def process(name: str, of_second, seconds: int = 60) -> dict[str, Any]:
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
    found = {one["name"]: one for one in wear(resources, 0, 60)}
    assert set(found) == {"blue-0", "blue-1", "edge-0"}
    assert found["blue-0"]["rss_bytes_per_s"] == pytest.approx(1024 * 70, rel=0.01)
    assert found["edge-0"]["rss_bytes_per_s"] == 0
    assert found["edge-0"]["files_risen"] > 20


def replicas(kept: float, seconds: int = 300, noise: float = 0.0) -> list[dict[str, object]]:
    """Three replicas that together keep so many bytes of each of 1,050 messages a second."""
    chance = random.Random(1)
    return [
        process(f"blue-{n}", lambda t: 60e6 + kept * 350 * t + chance.uniform(-noise, noise), seconds) for n in range(3)
    ]


@pytest.mark.parametrize(("kept", "leaks"), [(140, True), (60, True), (45, False)])
def test_what_is_kept_of_each_message_is_that_of_all_replicas(kept: float, leaks: bool) -> None:
    """At the bound that is shipped."""
    [found] = together(replicas(kept), 0, 300, messages=1050 * 300)
    assert found["bytes_per_message"] == pytest.approx(kept, rel=0.02)
    assert STRESS["leak_bytes_per_message"].met(found["bytes_per_message"]) is not leaks


def test_a_clean_run_is_not_accused_of_what_an_allocator_does() -> None:
    """Measured: of three replicas one grew by 0.5 MB in the 40 s after the warm-up, with 210 messages a second."""
    grown = [process(f"blue-{n}", lambda t, n=n: 60e6 + (12e3 * t if n == 1 else 0)) for n in range(3)]
    for resources, seconds, rate in ((grown, 60, 210), (replicas(0, 300, noise=0.3e6), 300, 1050)):
        [found] = together(resources, 0, seconds, messages=rate * seconds)
        assert (found["bytes_per_message"] < 20, found["share"]) == (True, 0.0)


def test_a_kilobyte_of_each_message_is_seen_in_a_small_run_too() -> None:
    """500 sockets for 60 s: 53 messages a second, which three replicas share: 0.7 MB each."""
    kept = [process(f"blue-{n}", lambda t: 60e6 + 1024 * 17.5 * t) for n in range(3)]
    [found] = together(kept, 0, 60, messages=52.5 * 60)
    assert found["bytes_per_message"] == pytest.approx(1024, rel=0.02)


@pytest.mark.parametrize(
    ("name", "rise", "leaks"),
    [("blue-0", 184e6, True), ("edge-0", 90e3 * 3600, True), ("blue-0", 5e6, False), ("edge-0", 9e6, False)],
    ids=["a replica from 117 to 301 MB", "an edge by 90 kB a second", "5 MB", "9 MB of an edge"],
)
def test_a_soak_finds_what_grows_by_a_good_part_of_what_it_had(name: str, rise: float, leaks: bool) -> None:
    """By each message it is next to nothing: there are millions."""
    [found] = together([process(name, lambda t: 117e6 + rise * t / 3600, 3600)], 0, 3600, messages=1050 * 3600)
    assert STRESS["leak_share"].met(found["share"]) is not leaks


def test_what_is_taken_during_the_warm_up_is_no_growth_but_what_growth_is_measured_by() -> None:
    def warms_up(t: float) -> float:
        return 60e6 + 1e6 * min(t, 100) + 0.05e6 * max(0, t - 100)

    [found] = together([process("blue-0", warms_up, 300)], 0, 300, messages=1050 * 300)
    assert found["share"] == pytest.approx(10 / 160, rel=0.05)


@pytest.mark.parametrize(("each", "leaks"), [(3e6, False), (9e6, True)])
def test_small_processes_may_each_grow_by_what_means_little_however_many_they_are(each: float, leaks: bool) -> None:
    """Three that have 7.5 or 10.5 MB when they are warm."""
    shards = [process(f"shared-{n}", lambda t: 6e6 + each * t / 200, 300) for n in range(3)]
    [found] = together(shards, 0, 300, messages=1050 * 300)
    assert STRESS["leak_share"].met(found["share"]) is not leaks


@pytest.mark.parametrize(
    ("seconds", "grown", "leaks"),
    [(300, 0.4, False), (300, 1.0, True), (1200, 0.4, True)],
    ids=["may be garbage", "more than that", "would be collected by now"],
)
def test_what_an_edge_has_not_collected_is_excused_for_some_minutes_only(
    seconds: int, grown: float, leaks: bool
) -> None:
    """It grows by that share of what it had when it was warm, evenly to the end."""
    warm = seconds / 3
    edge = process("edge-0", lambda t: 100e6 * (1 + grown * max(0.0, t - warm) / (seconds - warm)), seconds)
    [found] = together([edge], 0, seconds, messages=1050 * seconds)
    assert STRESS["leak_share"].met(found["share"]) is not leaks


def there(process: dict[str, Any], first: int, last: int) -> dict[str, Any]:
    """Give the same process as if it had been there from one second to another."""
    return process | {"samples": [sample for sample in process["samples"] if first <= sample["t"] <= last]}


@pytest.mark.parametrize(("first", "last"), [(200, 299), (0, 200)], ids=["came late", "left early"])
def test_who_was_there_for_a_part_of_the_time_has_no_say_in_how_its_tier_grew(first: int, last: int) -> None:
    some = [there(process(name, lambda t: 60e6 + 1e6 * t, 300), first, last) for name in ("blue-3", "green-0")]
    found = together([*some, *replicas(140)], 0, 300, messages=1050 * 300)
    assert found == together(replicas(140), 0, 300, messages=1050 * 300)


def test_tiers_are_told_apart_and_so_are_colors() -> None:
    names = ("blue-0", "blue-1", "green-0", "edge-0", "shared-0", "generator-0")
    found = together([process(name, lambda t: 60e6) for name in names], 0, 60, messages=60)
    assert [one["name"] for one in found] == ["blue", "green", "edges", "shards"]


def test_a_process_that_ends_meanwhile_is_told_of_for_its_growth_is_not_known() -> None:
    resources = [
        process("generator-0", lambda t: 1e6, seconds=20),
        process("edge-0", lambda t: 80e6),
        process("blue-0", lambda t: 50e6 + 30e6 * t, seconds=40),
    ]
    assert ended(resources, 0, 59) == ["blue-0"]
    assert ended(resources[:2], 0, 59) == []
    assert ended(resources[:1], 0, 59) is None


def test_seconds_without_a_sample_are_no_end_and_who_came_later_did_not_begin() -> None:
    times = {"blue-0": (0, 56), "blue-1": (0, 49), "edge-0": (3, 40), "green-0": (12, 30)}
    resources = [there(process(name, lambda t: 60e6), *seconds) for name, seconds in times.items()]
    assert ended(resources, 0, 59) == ["blue-1", "edge-0"]


def test_clients_of_a_redis_that_does_not_say_are_not_none() -> None:
    fleet = {"shards": [{"clients": 5}], "redis": [{"clients": 2}]}
    assert clients(fleet) == [7]
    assert clients({**fleet, "redis": [{"clients": None}]}) == clients({}) == []


def test_what_an_edge_has_not_collected_yet_is_no_leak_and_what_goes_beyond_is() -> None:
    piles_up = process("edge-0", lambda t: 200e6 + 0.2e6 * t)
    leaks = process("edge-1", lambda t: 50e6 + 2e6 * t)
    [one], [other] = (together([edge], 0, 60, messages=600) for edge in (piles_up, leaks))
    assert one["bytes_per_message"] == 0
    assert other["bytes_per_message"] == pytest.approx(200e3, rel=0.01)


@pytest.mark.parametrize("name", ["blue-0", "edge-0"])
@pytest.mark.parametrize("seconds", [60, 900])
def test_the_least_leak_that_is_told_is_the_least_that_is_seen(name: str, seconds: int) -> None:
    def of(kept: float) -> dict[str, Any]:
        after_warm_up = process(name, lambda t: 60e6 + kept * 100 * max(0, t - seconds / 3), seconds)
        [found] = together([after_warm_up], 0, seconds, 100 * seconds)
        return found

    least = of(0)["least_bytes_per_message"]
    assert (of(0.95 * least)["bytes_per_message"], of(0)["bytes_per_message"]) == (0, 0)
    assert of(1.2 * least)["bytes_per_message"] == pytest.approx(1.2 * least, rel=0.02)


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

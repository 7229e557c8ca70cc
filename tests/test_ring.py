"""The ring keeps its three promises: balance, little movement, the same answer everywhere."""

import hashlib
import itertools
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from math import ceil, floor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import ring

ROOT = str(Path(__file__).resolve().parents[1])
PINNED = {"a": 559, "room:42": 444, "lobby": 566, "home": "blue-1", "resized": "f6f03a3c49440485"}


def names(count: int) -> list[str]:
    return [f"shared-{i}" for i in range(count)]


def even(count: int) -> dict[str, float]:
    return dict.fromkeys(names(count), 1.0)


@given(st.integers(1, 64))
def test_no_shard_is_loaded_more_than_a_tenth_above_average(count: int) -> None:
    load = Counter(ring.assign(even(count)))
    assert set(load) == set(names(count))
    assert max(load.values()) / (ring.SLOTS / count) <= 1.1


@given(st.integers(1, 64))
def test_one_more_shard_moves_no_more_than_its_share(count: int) -> None:
    before = ring.assign(even(count))
    after = ring.assign(even(count + 1), before)
    moved = ring.moves(before, after)
    assert len(moved) / ring.SLOTS <= 1.05 / (count + 1)
    assert {new for _, new in moved.values()} == {f"shared-{count}"}, "slots only move to the new shard"


@given(st.integers(2, 64), st.data())
def test_a_shard_that_leaves_moves_only_its_own_slots(count: int, data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(names(count)))
    before = ring.assign(even(count))
    weights = {name: 1.0 for name in names(count) if name != gone}
    after = ring.assign(weights, before)
    assert all(old == gone for old, _ in ring.moves(before, after).values())
    assert gone not in after


@given(st.lists(st.integers(1, 32), min_size=2, max_size=8))
def test_balance_survives_any_history_of_resizes(history: list[int]) -> None:
    owners = ring.assign(even(history[0]))
    for count in history[1:]:
        owners = ring.assign(even(count), owners)
        assert max(Counter(owners).values()) / (ring.SLOTS / count) <= 1.1


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12))
def test_slots_follow_weights(weights: list[float]) -> None:
    members = dict(zip(names(len(weights)), weights, strict=True))
    load = Counter(ring.assign(members))
    for name, weight in members.items():
        assert abs(load[name] - ring.SLOTS * weight / sum(weights)) < 1 + 1e-6


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, float]:
    """Draw which shards there are, under any names, and their weights."""
    numbers = draw(st.sets(st.integers(0, 15), min_size=1, max_size=8))
    return {f"shared-{number}": draw(st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.0])) for number in sorted(numbers)}


@settings(max_examples=40)
@given(st.lists(fleets(), min_size=2, max_size=5))
def test_any_sequence_of_fleets_moves_the_least_and_follows_the_weights(history: list[dict[str, float]]) -> None:
    owners = ring.assign(history[0])
    for weights in history[1:]:
        before, owners = owners, ring.assign(weights, owners)
        assert len(ring.moves(before, owners)) == ring.least_moves(weights, before)
        load = Counter(owners)
        for name, weight in weights.items():
            assert abs(load[name] - ring.SLOTS * weight / sum(weights.values())) < 1 + 1e-6
        assert ring.assign(weights, owners) == owners, "what is right already stays"


@settings(max_examples=20)
@given(st.lists(st.integers(1, 16), min_size=2, max_size=6))
def test_equal_shards_differ_by_a_slot_at_most_whatever_was_before(history: list[int]) -> None:
    owners: Sequence[str] | None = None
    for count in history:
        owners = ring.assign(even(count), owners)
        load = Counter(owners)
        assert max(load.values()) - min(load.values()) <= 1


@given(fleets(), st.data())
def test_no_assignment_moves_less(weights: dict[str, float], data: st.DataObject) -> None:
    """The least is what any assignment with these loads needs, found by trying all ways to round."""
    slots = 8
    owners = data.draw(st.lists(st.sampled_from(sorted({*weights, "gone"})), min_size=slots, max_size=slots))
    held, total = Counter(owners), sum(weights.values())
    shares = [slots * weight / total for weight in weights.values()]
    roundings = itertools.product(*({floor(share), ceil(share)} for share in shares))
    fits = [loads for loads in roundings if sum(loads) == slots]
    most = max(sum(min(held[name], load) for name, load in zip(weights, loads, strict=True)) for loads in fits)
    assert ring.least_moves(weights, owners) == slots - most


def interpreter(minor: int) -> str:
    """Find Python 3.`minor` on this machine; the test is skipped where it is not there."""
    path = sys.executable if minor == sys.version_info.minor else shutil.which(f"python3.{minor}")
    if path is None or subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"there is no Python 3.{minor} on this machine")
    return path


@pytest.mark.parametrize("minor", range(11, 16))
def test_another_process_computes_the_same_ring(minor: int) -> None:
    python = interpreter(minor)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from shards import ring;"
        "a = ring.assign({'shared-%d' % i: 1.0 for i in range(5)});"
        "print(ring.slot_of('room:42'), ring.home(7, ['blue-0', 'blue-1']), *a)"
    )
    seen = {
        subprocess.run([python, "-c", code, ROOT], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    }
    here = [str(ring.slot_of("room:42")), str(ring.home(7, ["blue-0", "blue-1"])), *ring.assign(even(5))]
    assert seen == {" ".join(here).encode() + b"\n"}


def test_the_ring_of_today_is_the_ring_of_tomorrow() -> None:
    """Groups would lose their logs if a new version of this code placed them elsewhere."""
    assert [ring.slot_of(g) for g in ("a", "room:42", "lobby")] == [
        PINNED["a"],
        PINNED["room:42"],
        PINNED["lobby"],
    ]
    assert ring.home(7, ["blue-0", "blue-1", "blue-2"]) == PINNED["home"]
    resized = ring.assign({"shared-0": 1.0, "shared-2": 2.0, "shared-3": 1.0}, ring.assign(even(3)))
    assert hashlib.sha256(" ".join(resized).encode()).hexdigest()[:16] == PINNED["resized"]


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0}])
def test_a_ring_of_nobody_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="member"):
        ring.assign(weights)


def test_more_members_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot share"):
        ring.assign(even(5), slots=4)

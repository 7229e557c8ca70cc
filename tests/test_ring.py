"""The ring keeps its three promises: balance, little movement, the same answer everywhere."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards import ring

PINNED = {"a": 559, "room:42": 444, "lobby": 566, "home": "blue-1"}


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


def test_another_process_computes_the_same_ring() -> None:
    code = (
        "from shards import ring;"
        "a = ring.assign({'shared-%d' % i: 1.0 for i in range(5)});"
        "print(ring.slot_of('room:42'), ring.home(7, ['blue-0', 'blue-1']), *a)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
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


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0}])
def test_a_ring_of_nobody_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="member"):
        ring.assign(weights)


def test_more_members_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot share"):
        ring.assign(even(5), slots=4)

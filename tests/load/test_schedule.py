"""The schedule: even, open-loop, and the same whoever carries which part of it."""

from __future__ import annotations

import math
from collections import Counter
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.load.schedule import (
    Group,
    Shape,
    bent,
    connects,
    even_groups,
    mixed_groups,
    publishes,
    shape_times,
    shares,
)

even = st.builds(
    even_groups, clients=st.integers(1, 500), size=st.integers(1, 20), delivered_per_s=st.floats(1, 50_000)
)
mixed = st.builds(
    mixed_groups, clients=st.integers(1, 3000), delivered_per_s=st.floats(1, 50_000), seed=st.integers(0, 1000)
)


def clients(groups: list[Group]) -> list[int]:
    return [client for group in groups for client in group.members]


@given(even | mixed)
def test_every_client_is_in_exactly_one_group(groups: list[Group]) -> None:
    assert clients(groups) == list(range(len(clients(groups))))
    assert [group.number for group in groups] == list(range(len(groups)))
    assert all(group.size for group in groups)


@given(groups=even | mixed, processes=st.integers(1, 8))
def test_every_group_belongs_to_exactly_one_process(groups: list[Group], processes: int) -> None:
    parts = shares(groups, processes)
    assert len(parts) == min(processes, len(groups))
    assert Counter(group for part in parts for group in part) == Counter(groups)
    assert all(sorted(clients(part)) == clients(part) for part in parts)


@given(groups=mixed, processes=st.integers(1, 4))
def test_no_process_carries_more_than_its_share_and_one_group(groups: list[Group], processes: int) -> None:
    loads = [sum(group.delivered for group in part) for part in shares(groups, processes)]
    assert max(loads) - min(loads) <= max(group.delivered for group in groups) * 1.001


@given(count=st.integers(1, 500), size=st.integers(1, 20))
def test_even_groups_are_alike_but_for_the_last(count: int, size: int) -> None:
    sizes = [group.size for group in even_groups(count, size, 1000)]
    assert set(sizes[:-1]) <= {size}
    assert 1 <= sizes[-1] <= size


@given(groups=even | mixed, turns=st.integers(1, 4))
def test_all_that_is_due_comes_in_order(groups: list[Group], turns: int) -> None:
    due = list(islice(publishes(groups), turns * len(groups)))
    assert due == sorted(due)
    assert all(seconds == groups[position].due(turn) for seconds, position, turn in due)


@given(groups=st.integers(1, 60), processes=st.integers(1, 6), rate=st.floats(0.1, 5000), turns=st.integers(1, 4))
def test_the_processes_parts_make_one_even_stream(groups: int, processes: int, rate: float, turns: int) -> None:
    due = []
    for part in shares(even_groups(groups * 10, 10, rate * 10), processes):
        mine = islice(publishes(part), turns * len(part))
        due += [(seconds, part[position].number, turn) for seconds, position, turn in mine]
    due.sort(key=lambda one: (one[2], one[1]))
    assert [seconds for seconds, _, _ in due] == pytest.approx([k / rate for k in range(turns * groups)])
    assert [(group, turn) for _, group, turn in due] == [(k % groups, k // groups) for k in range(turns * groups)]


@given(count=st.integers(1, 3000), delivered=st.floats(1, 50_000), size=st.integers(1, 20), seed=st.integers())
def test_groups_receive_what_was_asked_for(count: int, delivered: float, size: int, seed: int) -> None:
    for groups in (mixed_groups(count, delivered, seed), even_groups(count, size, delivered)):
        assert len(clients(groups)) == count
        assert sum(group.rate * len(group.members) for group in groups) == pytest.approx(delivered)


def test_mixed_groups_are_of_all_sizes_and_the_largest_gets_no_more_than_its_part() -> None:
    groups = mixed_groups(2000, 5000, 1)
    sizes = sorted(group.size for group in groups)
    assert (sizes[0], sizes[-1]) == (1, 1000)
    assert sum(1 for size in sizes if size <= 10) > 100
    assert len({size for size in sizes if 10 < size < 1000}) >= 5
    largest = next(group for group in groups if group.size == 1000)
    assert largest.delivered == pytest.approx(5000 / 7)
    assert max(group.rate / group.size for group in groups) < 20


def test_a_seed_makes_the_same_groups_again_and_another_one_others() -> None:
    assert mixed_groups(2000, 5000, 1) == mixed_groups(2000, 5000, 1)
    assert mixed_groups(2000, 5000, 1) != mixed_groups(2000, 5000, 2)


def test_connects_are_paced() -> None:
    assert [connects(1000, 500, None).when(client) for client in (0, 1, 500)] == [0, 0.002, 1]


def test_connects_in_a_spike_are_all_over_when_the_shape_is() -> None:
    """4 of 5 seconds at 500/s and one at 2,000/s make 4,000."""
    course = connects(4000, 1, Shape.parse("spike:500-2000"))
    assert course.length == pytest.approx(5)
    due = [course.when(client) for client in range(4000)]
    assert [sum(second <= moment < second + 1 for moment in due) for second in range(5)] == [500, 500, 2000, 500, 500]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("constant:50", [0, 2.5, 5]),
        ("ramp:0-100", [0, 5, 7.0710678]),
        ("ramp:100-0", [0, 10 - 10 * 0.75**0.5, 10 - 7.0710678]),
        ("step:20,80", [0, 5 + 25 / 80, 5 + 150 / 80]),
        ("spike:25-150", [0, 4 + 25 / 150, 4 + 150 / 150]),
    ],
)
def test_a_shape_reaches_its_counts_when_its_rates_add_up_to_them(text: str, at: list[float]) -> None:
    """Each of them makes 500 in ten seconds; these are the times of 0, 125 and 250."""
    shape = Shape.parse(text).over(10)
    assert shape.mean == pytest.approx(50)
    assert [shape.when(count) for count in (0, 125, 250)] == pytest.approx(at)


shapes = st.builds(
    "{0[0]}:{0[1]}".format,
    st.tuples(st.sampled_from(["ramp", "spike"]), st.builds("{}-{}".format, st.integers(0, 900), st.integers(1, 900)))
    | st.tuples(st.just("step"), st.lists(st.integers(1, 900).map(str), min_size=1, max_size=5).map(",".join)),
)


@given(text=shapes, seconds=st.floats(1, 1000))
def test_a_shapes_times_grow_and_follow_its_rates(text: str, seconds: float) -> None:
    shape = Shape.parse(text).over(seconds)
    total = shape.mean * seconds
    due = [shape.when(total * part / 100) for part in range(100)]
    assert due == sorted(due)
    assert due[0] >= 0
    assert due[-1] <= seconds * 1.0001
    highest = max(max(begin, end) for _, begin, end in shape.pieces)
    assert all(later - earlier >= total / 100 / highest * 0.999 for earlier, later in pairwise(due))


def test_after_its_end_a_shape_goes_on_as_it_ended() -> None:
    assert Shape.parse("ramp:0-100").over(10).when(600) == pytest.approx(11)
    assert Shape.parse("ramp:100-0").over(10).when(501) == math.inf


@given(rate=st.floats(1, 10_000), seconds=st.floats(0, 1000))
def test_an_even_shape_bends_nothing(rate: float, seconds: float) -> None:
    assert bent(seconds, rate, None) == seconds
    assert bent(seconds, rate, Shape.constant(rate)) == pytest.approx(seconds)


@given(text=shapes, groups=even)
def test_a_bent_schedule_sends_as_many_as_its_shape_says(text: str, groups: list[Group]) -> None:
    """Cut after its length, what all groups deliver is the area under the shape, to one message a group."""
    shape = Shape.parse(text).over(10)
    rate = sum(group.delivered for group in groups)
    shape = shape.times(rate / shape.mean)
    counted = 0
    for seconds, position, _ in publishes(groups):
        if bent(seconds, rate, shape) >= 10 or counted > 20_000:
            break
        counted += groups[position].size
    if counted <= 20_000:
        assert abs(counted - rate * 10) <= sum(group.size for group in groups) + 1


@pytest.mark.parametrize(
    "text", ["", "ramp", "ramp:1", "ramp:a-b", "ramp:-5-5", "step:", "step:1,", "spike:1,2", "hill:1-2", "ramp:0-0"]
)
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no shape: write for instance|is 0 all the time"):
        Shape.parse(text)


def test_a_shape_as_text_shrinks_with_its_load() -> None:
    assert shape_times("spike:2000-20000", 0.1) == "spike:200-2000"
    assert shape_times("step:5,2.5", 0.5) == "step:2.5,1.25"

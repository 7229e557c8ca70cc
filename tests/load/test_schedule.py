"""The schedule: even, open-loop, and the same whoever carries which part of it."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.load.schedule import Group, connect_due, even_groups, mixed_groups, publishes, shares

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
    assert [connect_due(client, 500) for client in (0, 1, 500)] == [0, 0.002, 1]

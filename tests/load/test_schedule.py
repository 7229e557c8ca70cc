"""The schedule: even, open-loop, and the same whoever carries which part of it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.load.schedule import Publishes, Rooms, connect_due, publish_rate

rooms = st.builds(Rooms, clients=st.integers(1, 500), size=st.integers(1, 20), processes=st.integers(1, 8))


@given(rooms)
def test_every_client_is_in_exactly_one_group(rooms: Rooms) -> None:
    assert [c for group in range(rooms.groups) for c in rooms.members(group)] == list(range(rooms.clients))


@given(rooms)
def test_every_group_belongs_to_exactly_one_process(rooms: Rooms) -> None:
    owned = Counter(group for process in range(rooms.processes) for group in rooms.groups_of(process))
    assert owned == Counter(range(rooms.groups))


@given(rooms)
def test_no_group_is_empty_and_only_the_last_is_smaller(rooms: Rooms) -> None:
    sizes = [len(rooms.members(group)) for group in range(rooms.groups)]
    assert set(sizes[:-1]) <= {rooms.size}
    assert 1 <= sizes[-1] <= rooms.size


@given(groups=st.integers(1, 60), processes=st.integers(1, 6), rate=st.floats(0.1, 5000), turns=st.integers(1, 4))
def test_the_processes_parts_make_one_even_stream(groups: int, processes: int, rate: float, turns: int) -> None:
    processes = min(processes, groups)
    due = []
    for first in range(processes):
        part = Publishes(rate, groups, first, processes)
        own = range(first, groups, processes)
        for number in range(turns * len(own)):
            seconds, position, turn = part.due(number)
            due.append((seconds, own[position], turn))
    due.sort()
    assert [seconds for seconds, _, _ in due] == pytest.approx([k / rate for k in range(turns * groups)])
    assert [(group, turn) for _, group, turn in due] == [(k % groups, k // groups) for k in range(turns * groups)]


@given(rooms=rooms, delivered=st.floats(1, 50_000))
def test_the_publish_rate_makes_the_delivered_rate(rooms: Rooms, delivered: float) -> None:
    a_turn = sum(len(rooms.members(group)) for group in range(rooms.groups))
    assert publish_rate(rooms, delivered) * a_turn / rooms.groups == pytest.approx(delivered)


def test_connects_are_paced() -> None:
    assert [connect_due(client, 500) for client in (0, 1, 500)] == [0, 0.002, 1]

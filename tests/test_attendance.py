"""Who is told to have come and gone: everyone, once, whatever the reports look like on the way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shards.attendance import LEAVE_SECONDS, MOST_NAMED, News, Roll
from shards.presence import Present


def say(*members: str) -> Present:
    return Present(len(members), list(members))


def test_nobody_is_told_of_those_who_were_there_before() -> None:
    assert Roll([say("a", "b")]).compare([say("a", "b")], 0.0) == News()


def test_who_comes_is_told_at_once_and_who_goes_a_little_later() -> None:
    roll = Roll([say("a"), say("b")])
    assert roll.compare([say("a"), say("b", "c")], 0.0) == News(joined=frozenset("c"))
    assert roll.compare([say("a"), say("c")], 1.0) == News()
    assert roll.unsettled
    assert roll.compare([say("a"), say("c")], 1.0 + LEAVE_SECONDS) == News(left=frozenset("b"))
    assert not roll.unsettled
    assert roll.compare([say("a"), say("b", "c")], 9.0) == News(joined=frozenset("b"))


def test_who_reconnects_elsewhere_soon_enough_was_never_away() -> None:
    roll = Roll([say("a", "b"), say()])
    assert roll.compare([say("a"), say()], 0.0) == News()
    assert roll.compare([say("a"), say("b")], LEAVE_SECONDS / 2) == News()
    assert roll.compare([say("a"), say("b")], 2 * LEAVE_SECONDS) == News()


def test_the_members_of_a_dead_worker_have_left_at_once() -> None:
    assert Roll([say("a"), say("b")]).compare([say("a")], 0.0, patience=0.0) == News(left=frozenset("b"))


def test_of_a_crowd_only_the_count_is_told() -> None:
    crowd = [f"m{i}" for i in range(MOST_NAMED + 1)]
    roll = Roll([say("a")])
    assert roll.compare([say("a", *crowd)], 0.0) == News(count=MOST_NAMED + 2)
    assert roll.compare([say("a", "b", *crowd)], 0.0) == News(joined=frozenset("b")), "and then it goes on by name"


def test_where_not_all_have_names_only_a_new_count_is_told() -> None:
    roll = Roll([say("a")])
    assert roll.compare([Present(500, ["a"])], 0.0) == News(count=500)
    assert roll.compare([Present(500, ["b"])], 0.0) == News()
    assert roll.compare([say("a")], 0.0) == News(count=1)
    assert roll.compare([say("a", "b")], 0.0) == News(joined=frozenset("b"))


MEMBERS = st.frozensets(st.sampled_from("abcdefgh"))


@given(st.lists(st.tuples(MEMBERS, st.floats(0.01, 3.0)), min_size=1))
def test_what_was_told_adds_up_to_who_is_there(looks: list[tuple[frozenset[str], float]]) -> None:
    first, *rest = looks
    roll, here, now = Roll([say(*first[0])]), set(first[0]), 0.0
    for seen, later in [*rest, (looks[-1][0], 2 * LEAVE_SECONDS), (looks[-1][0], 2 * LEAVE_SECONDS)]:
        now += later
        news = roll.compare([say(*seen)], now)
        assert not news.joined & here, "nobody comes twice"
        assert news.left <= here, "nobody goes who was not there"
        here = (here | news.joined) - news.left
        assert seen <= here, "nobody who is there is taken for gone"
    assert here == looks[-1][0]

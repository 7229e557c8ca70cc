"""Token buckets, alone and one for each of many, and which groups someone reaches: pure."""

from __future__ import annotations

from shards.rate import Reach, Reaches, Shares, TokenBucket


def test_a_bucket_that_has_not_enough_is_left_as_it_is() -> None:
    bucket = TokenBucket(10.0, 100.0)
    assert bucket.take(0.0, 100)
    assert not bucket.take(1.0, 11)
    assert bucket.take(1.0, 10), "what was refused has taken nothing"
    assert TokenBucket(0.0, 0.0).take(0.0, 1e9), "without a rate there is no limit"


class TestReach:
    """New groups are counted, those of before are not."""

    def test_so_many_groups_and_then_as_many_in_the_time(self) -> None:
        reach = Reach(0.01, 3)
        assert [reach.takes(f"g{number}", 0.0) for number in range(4)] == [True, True, True, False]
        assert not reach.takes("g3", 99.0)
        assert reach.takes("g3", 101.0)
        assert not reach.takes("g4", 101.0)

    def test_a_group_of_before_is_free_however_often(self) -> None:
        reach = Reach(0.01, 2)
        assert all(reach.takes(f"g{number % 2}", 0.0) for number in range(1000))

    def test_what_is_remembered_is_bounded(self) -> None:
        reach = Reach(1.0, 2)
        for number in range(1000):
            assert reach.takes(f"g{number}", float(number))
        assert not [number for number in range(998) if f"g{number}" in reach._last]
        assert len(reach._last) == 2

    def test_one_that_is_reached_again_and_again_stays_known(self) -> None:
        reach = Reach(1.0, 2)
        for number in range(1000):
            assert reach.takes("home", float(number))
            assert reach.takes(f"g{number}", float(number))
        assert reach.would_take("home", 1000.0)
        assert len(reach) == 2

    def test_to_ask_counts_nothing(self) -> None:
        reach = Reach(0.01, 1)
        assert reach.would_take("a", 0.0)
        assert reach.would_take("b", 0.0)
        assert reach.takes("a", 0.0)
        assert reach.would_take("a", 0.0)
        assert not reach.would_take("b", 0.0)
        assert Reach(0.0, 1).would_take("b", 0.0), "without a rate there is no limit"


class TestReaches:
    """New groups of each name."""

    def test_each_has_its_own_and_comes_back_to_it_free(self) -> None:
        reaches = Reaches(0.01, 4.0, 2, least=2)
        assert [reaches.takes("x", f"g{number}", 0.0) for number in range(5)] == [True] * 4 + [False]
        assert reaches.takes("x", "g3", 0.0)
        assert not reaches.takes("x", "g0", 0.0), "only the last ones are known"
        assert reaches.takes("y", "g0", 0.0)

    def test_who_may_name_as_many_as_ever_is_forgotten_and_who_may_not_is_not(self) -> None:
        reaches = Reaches(0.01, 2.0, 2, least=2, most=10)
        assert all(reaches.takes("busy", group, 0.0) for group in "ab")
        for number in range(1000):
            reaches.takes(f"passing-{number}", "a", number * 0.01)
        assert not reaches.takes("busy", "c", 10.0)
        for number in range(1000):
            reaches.takes(f"later-{number}", "a", 1e6 + number * 1000)
        assert len(reaches._reaches) <= 2000

    def test_all_together_have_a_bound_beyond_what_each_has_in_any_case(self) -> None:
        reaches = Reaches(0.01, 10.0, 10, least=2, beyond=20)
        for name in "abcdef":
            assert all(reaches.takes(name, f"{name}{number}", 0.0) for number in range(10))
        kept = reaches._reaches._kept
        assert {name: len(reach) for name, reach in kept.items()} == dict.fromkeys("ab", 10) | {
            "c": 6,
            **dict.fromkeys("def", 2),
        }
        assert reaches.takes("a", "a0", 0.0)
        assert not reaches.takes("f", "f0", 0.0)
        assert reaches.takes("f", "f9", 0.0)

    def test_the_room_of_those_who_are_forgotten_is_the_others(self) -> None:
        reaches = Reaches(0.01, 10.0, 10, least=2, beyond=8)
        assert all(reaches.takes("early", f"g{number}", 0.0) for number in range(10))
        assert reaches._beyond == 8
        assert all(reaches.takes("late", f"g{number}", 2000.0) for number in range(10))
        assert reaches._beyond == 8
        assert all(reaches.takes("late", f"g{number}", 2000.0) for number in range(10)), "all are known"
        assert set(reaches._reaches._kept) == {"late"}


class TestShares:
    """A bucket for each name."""

    def test_each_has_its_own(self) -> None:
        shares = Shares(1.0, 2.0)
        assert [shares.take("a", 0.0) for _ in range(3)] == [True, True, False]
        assert shares.take("b", 0.0)
        assert shares.take("a", 1.0)

    def test_those_that_are_full_again_are_forgotten_and_nobody_gains_by_that(self) -> None:
        shares = Shares(1.0, 2.0, most=10)
        assert shares.take("busy", 0.0, 2)
        for number in range(1000):
            assert shares.take(f"passing-{number}", number / 1000)
        assert not shares.take("busy", 1.0, 2)
        for number in range(1000):
            shares.take(f"later-{number}", 1000.0 + number * 10)
        assert len(shares._buckets) <= 2000

    def test_without_a_rate_there_is_no_limit_and_nothing_is_kept(self) -> None:
        shares = Shares(0.0, 0.0)
        assert all(shares.take(str(number), 0.0) for number in range(100))
        assert not shares._buckets

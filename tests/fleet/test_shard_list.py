"""Which shards a fleet shall have: read from text, and brought about under names that stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import UsageError
from shards.fleet.shard_list import External, FleetShard, Wanted, converge, credentials_in, read_externals, union
from shards.fleet.spec import FleetSpec, shards_text
from shards.settings import Credentials

A, B = External("redis://10.0.0.5:6379/0"), External("redis://10.0.0.6:6379/0", 2.0)


def names(shards: tuple[FleetShard, ...]) -> list[str]:
    return [shard.name for shard in shards]


def test_a_number_is_reached_under_the_lowest_names() -> None:
    three = converge((), 3)
    assert names(three) == ["shared-0", "shared-1", "shared-2"]
    assert converge(three, 3) == three
    assert names(converge(three, 1)) == ["shared-0"]


def test_a_name_is_given_again_only_when_nobody_has_it() -> None:
    have = (FleetShard("shared-0"), FleetShard("shared-1", lost=True), FleetShard("shared-2"))
    assert names(converge(have, 2)) == ["shared-0", "shared-2"]
    assert names(converge(have, 3)) == ["shared-0", "shared-2", "shared-3"]
    assert names(converge(converge(have, 2), 3)) == ["shared-0", "shared-1", "shared-2"]


def test_from_our_own_to_servers_elsewhere_and_back() -> None:
    own = converge((), 2)
    elsewhere = converge(own, (A, B))
    assert [(s.name, s.url, s.weight) for s in elsewhere] == [("shared-2", A.url, 1.0), ("shared-3", B.url, 2.0)]
    assert names(union(own, elsewhere)) == ["shared-0", "shared-1", "shared-2", "shared-3"]
    assert converge(union(own, elsewhere), (A, B)) == elsewhere
    assert converge(elsewhere, 2) == own
    assert converge(elsewhere, (External(A.url, 3.0),)) == (FleetShard("shared-2", A.url, 3.0),)


@given(st.lists(st.one_of(st.integers(1, 9), st.sampled_from([(A,), (B,), (A, B)])), min_size=1, max_size=6))
def test_any_way_there_ends_with_what_is_wanted_last(ways: list[Wanted]) -> None:
    have: tuple[FleetShard, ...] = ()
    for wanted in ways:
        # Killed or not, what there was is still there.
        have = union(have, converge(have, wanted))
        assert len({shard.name for shard in have}) == len(have)
    last, after = ways[-1], converge(have, ways[-1])
    assert len(after) == (last if isinstance(last, int) else len(last))
    assert {shard.url for shard in after} == ({""} if isinstance(last, int) else {one.url for one in last})


def test_urls_are_read_in_one_way_of_writing_them() -> None:
    text = "redis://10.0.0.5, redis://user:p%40ss@10.0.0.6:6379/0?weight=2,rediss://[::1]:7/3"
    assert read_externals(text) == (A, B, External("rediss://[::1]:7/3"))
    assert credentials_in(text) == {B.url: Credentials("user", "p@ss")}
    assert credentials_in("redis://:word@10.0.0.5") == {A.url: Credentials("default", "word")}
    assert "word" not in repr(credentials_in("redis://:word@10.0.0.5"))


def test_a_spec_takes_numbers_and_urls_as_text_or_list() -> None:
    def shards(value: object) -> Wanted:
        return FleetSpec.read({"shards": value}, 20_000).shards

    assert shards("3") == shards(3) == 3
    assert shards(f"{A.url},{B.url}?weight=2") == shards([A.url, f"{B.url}?weight=2"]) == shards((A, B)) == (A, B)
    assert shards_text([A.url, B.url]) == f"{A.url},{B.url}"


@pytest.mark.parametrize(
    "text,words",
    [
        ("http://10.0.0.5", "no URL of a Redis server"),
        ("10.0.0.5:6379", "no URL of a Redis server"),
        ("redis://", "no URL of a Redis server"),
        ("redis://h:0", "no URL of a Redis server"),
        ("redis://h:99999", "no URL"),
        ("redis://h/name", "nothing else"),
        ("redis://h?wait=1", "nothing else"),
        ("redis://h?weight=0", "must be more than 0"),
        ("redis://h?weight=-1", "must be more than 0"),
        ("redis://h?weight=nan", "must be more than 0"),
        ("redis://h?weight=heavy", "must be a number"),
        ("redis://h,redis://h:6379/0", "names redis://h:6379/0 twice"),
        (",", "--shards"),
        ("3,redis://h", "no URL of a Redis server"),
    ],
)
def test_what_makes_no_sense_is_refused_without_telling_a_password(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        FleetSpec.read({"shards": text.replace("//h", "//:secret@h")}, 20_000)
    assert words in str(caught.value).replace("***@", "")
    assert "secret" not in str(caught.value)

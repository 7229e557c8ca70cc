"""Fleets of one name, kept from several directories: what is another's is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.fleet.engines.docker.ownership import is_anothers, mark_of, may_exist, refusal

OURS = mark_of(Path("/a/.fleet/shards"), "here")


@pytest.mark.parametrize(
    ("found", "anothers"),
    [
        ("", False),
        (OURS, False),
        (mark_of(Path("/b/.fleet/shards"), "here"), True),
        (mark_of(Path("/gone/.fleet/shards"), "here"), False),
        # Of another host's directories nothing is known.
        (mark_of(Path("/gone/.fleet/shards"), "there"), True),
        (mark_of(Path("/a/.fleet/shards"), "there"), True),
    ],
    ids=[
        "no mark",
        "ours",
        "another's",
        "of a directory that is gone",
        "of another host",
        "of the same path elsewhere",
    ],
)
def test_whose_something_is(found: str, anothers: bool) -> None:
    assert is_anothers(found, OURS, lambda path: not path.startswith("/gone")) is anothers


def test_a_fleet_that_is_anothers_is_told_with_where_it_is_kept(tmp_path: Path) -> None:
    here, elsewhere = mark_of(tmp_path / "a"), mark_of(Path("/b"), "there")
    (tmp_path / "b").mkdir()
    assert refusal("p", ["", here], here) is None
    said = refusal("p", [here, mark_of(tmp_path / "b")], here)
    assert said is not None
    assert f"kept in {tmp_path / 'b'}: run its commands from there" in said
    assert "/b of another host:" in str(refusal("p", [elsewhere], here))


def test_a_directory_that_one_may_not_look_for_is_taken_to_be_there(tmp_path: Path) -> None:
    assert may_exist(str(tmp_path))
    assert not may_exist(str(tmp_path / "gone" / "p"))
    # As a home directory that lets nobody in is; here, so that it is so for root too, a name that is too long.
    assert may_exist(str(tmp_path / ("x" * 300)))

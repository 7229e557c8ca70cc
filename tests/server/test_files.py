"""A worker that runs out of files says so itself: nobody else knows."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import pytest

from shards.host.symptoms import FILES, Evidence, symptoms
from shards.server.files import Files, lowest_free, told


@contextlib.contextmanager
def limited(files: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_a_file_left_it_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    files, lowest = Files(), lowest_free()
    assert lowest is not None
    files.look(0.0)
    assert caplog.messages == [], "there are enough"
    with limited(lowest):
        for now in (1.0, 2.0, 60.0, 61.0):
            files.look(now)
    said = f"too many open files: all {lowest:,} that this worker may open; who comes is turned away without a word"
    assert caplog.messages == [said, said]


def test_that_there_is_none_left_is_said_at_once_though_it_was_near_just_before(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    files, free = Files(), iter((limit - 1, None, limit - 1, None))
    monkeypatch.setattr("shards.server.files.lowest_free", lambda: next(free))
    for now in (0.0, 1.0, 2.0, 3.0):
        files.look(now)
    assert [line.split(":")[0] for line in caplog.messages] == ["nearly too many open files", "too many open files"]


def test_it_is_said_before_there_is_none_left() -> None:
    assert told(8_999, 10_000) is None
    assert told(9_000, 10_000) == "nearly too many open files: 9,000 or more of the 10,000 that this worker may open"


@pytest.mark.parametrize("lowest", [None, 9_999])
def test_the_doctor_knows_what_it_says(lowest: int | None) -> None:
    line = told(lowest, 10_000)
    assert line
    found = {one.name: one for one in symptoms(Evidence([], lines=[("blue-0", line)]))}
    assert found[FILES].verdict == "warn"
    assert line in found[FILES].evidence[0]

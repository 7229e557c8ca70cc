"""Until when browsers may come by TLS only, for what a fleet's edges have told them: pure."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards.fleet import reconcile
from shards.fleet.fleet import Fleet
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState

PLAIN = FleetSpec()
DAY_S = 86_400


def tls(hsts_s: int | None) -> FleetSpec:
    """Show a certificate, and tell browsers this."""
    return replace(PLAIN, tls_certificate="/c.pem", tls_key="/k.pem", hsts_seconds=hsts_s)


class History:
    """A fleet that is up, what was wanted of it at which moments, and what was noted.

    Args:
        root: of its directory.
        monkeypatch: sets the time.
        first: how it was started, at the moment 0.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, first: FleetSpec) -> None:
        nothing: Any = None
        self._said: list[str] = []
        self._fleet = Fleet(FleetDir(root, "p"), nothing, self._said.append)
        monkeypatch.setattr(time, "time", lambda: self._now)
        self._now = 1e9
        self.state = FleetState(first, up=True)

    def up(self, after_s: float, wanted: FleetSpec) -> str:
        """Do what `inv up` does of it; give what it notes."""
        self._now += after_s
        self._said.clear()
        reconcile._warn_of_locked_out(self._fleet, self.state, wanted)
        self.state = reconcile._with_edges(self.state, wanted)
        return "\n".join(self._said)

    def again(self, after_s: float, wanted: FleetSpec) -> str:
        """Do what `inv down`, and `inv up` a while later, do of it; give what is noted."""
        self.state = replace(self.state, up=False, hsts_until=self.state.promised(self._now))
        self._now += after_s
        self._said.clear()
        reconcile._warn_of_locked_out(self._fleet, self.state, wanted)
        return "\n".join(self._said)


@pytest.fixture
def told_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    return History(tmp_path, monkeypatch, tls(DAY_S))


def test_to_take_the_certificate_away_while_browsers_want_one_is_warned_of(told_a_day: History) -> None:
    assert "by TLS only for up to 86,400 s" in told_a_day.up(1e6, PLAIN)
    assert "by TLS only for up to 86,300 s" in told_a_day.up(100, PLAIN), "and again for as long as that is so"
    assert told_a_day.up(DAY_S, PLAIN) == ""


@pytest.mark.parametrize("told", [0, None, 60], ids=str)
def test_the_longest_that_was_told_counts_and_not_the_last(told_a_day: History, told: int | None) -> None:
    """Not every browser was here since then."""
    assert told_a_day.up(1e6, tls(told)) == ""
    assert "by TLS only for up to 86,390 s" in told_a_day.up(10, PLAIN)


def test_who_waits_for_as_long_as_was_told_is_not_warned(told_a_day: History) -> None:
    told_a_day.up(1e6, tls(0))
    told_a_day.up(DAY_S / 2, tls(0))
    assert told_a_day.up(DAY_S / 2 + 1, PLAIN) == ""


def test_it_counts_from_when_it_was_told_last(told_a_day: History) -> None:
    told_a_day.up(1e6, tls(DAY_S))
    told_a_day.up(1e6, tls(0))
    assert "by TLS only for up to 86,400 s" in told_a_day.up(0, PLAIN)


def test_nobody_is_told_anything_while_the_fleet_is_down(told_a_day: History) -> None:
    assert "by TLS only for up to 86,300 s" in told_a_day.again(100, PLAIN)
    assert told_a_day.again(DAY_S, PLAIN) == ""


def test_it_is_remembered_in_the_file(told_a_day: History, tmp_path: Path) -> None:
    told_a_day.up(0, tls(0))
    directory = FleetDir(tmp_path, "q")
    directory.create()
    directory.write(told_a_day.state)
    found = directory.read()
    assert found == told_a_day.state
    assert found.hsts_until == 1e9 + DAY_S


def test_a_start_that_fails_may_have_told_something(told_a_day: History) -> None:
    before = FleetState(PLAIN, up=False)
    after = reconcile._as_before(before, told_a_day.state)
    assert after is not None
    assert (after.spec, after.up, after.hsts_until) == (PLAIN, False, 1e9 + DAY_S)


def test_to_ask_for_it_without_a_certificate_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(tmp_path, monkeypatch, PLAIN)
    said = history.up(0, replace(PLAIN, hsts_seconds=600))
    assert said.startswith("warning: fleet.hsts_seconds is 600, but without a certificate")
    assert "\n" not in said
    assert history.up(0, replace(PLAIN, hsts_seconds=0)) == ""
    assert history.up(0, PLAIN) == ""
    assert history.up(0, tls(600)) == ""

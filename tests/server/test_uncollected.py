"""Garbage collection rests while sockets move, and not for longer."""

from __future__ import annotations

import gc

import pytest

from shards.server.handoff.uncollected import begin, end, uncollected


def test_it_rests_until_the_last_one_is_through() -> None:
    begin()
    with pytest.raises(KeyError), uncollected():
        assert not gc.isenabled()
        raise KeyError
    assert not gc.isenabled()
    end()
    assert gc.isenabled()
    gc.unfreeze()


def test_where_it_was_off_it_stays_off() -> None:
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

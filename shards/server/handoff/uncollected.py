"""No garbage collection while sockets are on their way: looking at the objects of thousands of them takes 100 ms."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_under_way = 0
_was_on = False


def begin() -> None:
    """Collect nothing until `end` was called as often as this."""
    global _under_way, _was_on
    if _under_way == 0:
        _was_on = gc.isenabled()
        gc.disable()
    _under_way += 1


def end() -> None:
    """Collect again, where that was so before."""
    global _under_way
    _under_way -= 1
    if _under_way == 0 and _was_on:
        # The first collection would look at all that came meanwhile, at once. What a socket takes is given back
        # without the collector when it ends.
        gc.freeze()
        gc.enable()


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect nothing meanwhile."""
    begin()
    try:
        yield
    finally:
        end()

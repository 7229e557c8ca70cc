"""What of JSON every client can read. Pure.

A message that one client can't read would cost it its connection, and again each time it comes back for it: its place
is before that message. So whoever publishes it is refused.
"""

from __future__ import annotations

import re
from itertools import accumulate

MOST_DIGITS = 4300
"""Of a number. Python reads no integer that is longer (`sys.int_info.default_max_str_digits`)."""

MOST_DEPTH = 500
"""Arrays and objects in one another. Python's `json` gives up at 1,000, less what its caller's stack takes."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BUT_DIGITS_TO_SPACES = bytes(byte if byte in b"0123456789" else ord(" ") for byte in range(256))
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = [1 if byte in b"[{" else -1 for byte in range(256)]


def why_unreadable(data: bytes) -> str | None:
    """Say why some client could not read `data`, which is JSON; None: all can."""
    if _may_be_too_deep(data) or _may_be_too_long(data):
        bare = _STRING.sub(b"", data)
        if _may_be_too_long(bare):
            return f"a number may have {MOST_DIGITS} digits"
        if _depth(bare) > MOST_DEPTH:
            return f"arrays and objects may be {MOST_DEPTH} in one another"
    return None


def _may_be_too_deep(data: bytes) -> bool:
    return len(data) > MOST_DEPTH and data.count(b"[") + data.count(b"{") > MOST_DEPTH


def _may_be_too_long(data: bytes) -> bool:
    return (
        len(data) > MOST_DIGITS
        and max(map(len, data.translate(_BUT_DIGITS_TO_SPACES).split()), default=0) > MOST_DIGITS
    )


def _depth(bare: bytes) -> int:
    return max(accumulate(map(_STEP.__getitem__, bare.translate(None, _NO_BRACKETS))), default=0)

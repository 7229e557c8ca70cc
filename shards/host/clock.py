"""Is this host's clock kept right? Asked of the kernel, which whoever keeps it tells."""

from __future__ import annotations

import ctypes
import sys

_UNSYNCHRONISED = 0x0040
_BYTES, _STATUS_AT = 256, 5
"""`struct timex`: `status` is an int behind `modes` (padded) and three longs; there is room for all of it."""


def synchronised() -> bool | None:
    """Tell whether the kernel takes its clock for synchronised; None where it can't be asked."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex"):
        return None
    # `modes` is 0: nothing is set.
    answer = (ctypes.c_long * (_BYTES // ctypes.sizeof(ctypes.c_long)))()
    if libc.adjtimex(ctypes.byref(answer)) == -1:
        return None
    return not answer[_STATUS_AT] & _UNSYNCHRONISED

"""What tests ask other processes, any of which may end at that very moment."""

from __future__ import annotations

import psutil


def words_of(process: psutil.Process) -> list[str]:
    """Give its command line; none if it is gone, or dead and not yet reaped."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []

"""Says in a worker's log that it may open hardly any more files: what accepts its sockets says nothing of it.

Without a file left the event loop takes who comes and closes at once, so that its edge answers 503 and nobody knows
why.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import resource

logger = logging.getLogger(__name__)

NEAR = 0.9
"""Of the files that it may open: from there on it is told."""

_AGAIN_S = 60.0


def lowest_free() -> int | None:
    """Give the number that the next file gets, so that as many are open at least; None: there is none left.

    Takes no longer where thousands are open, as counting them would.
    """
    try:
        file = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return None if error.errno == errno.EMFILE else 0
    os.close(file)
    return file


def told(lowest: int | None, limit: int) -> str | None:
    """Say how near a process is to the end of its files; None: not near.

    Args:
        lowest: see `lowest_free`.
        limit: files that it may open.
    """
    if lowest is None:
        return f"too many open files: all {limit:,} that this worker may open; who comes is turned away without a word"
    if lowest >= NEAR * limit:
        return f"nearly too many open files: {lowest:,} or more of the {limit:,} that this worker may open"
    return None


class Files:
    """Looks from time to time, and says it once a minute at most, or at once where it is worse than what was said."""

    def __init__(self) -> None:
        self._said, self._full = -math.inf, False

    def look(self, now: float) -> None:
        """Say it if it is so.

        Args:
            now: seconds of a clock that only goes forward.
        """
        lowest = lowest_free()
        worse = lowest is None and not self._full
        if now - self._said < _AGAIN_S and not worse:
            return
        if text := told(lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
            logger.warning("%s", text)
            self._said, self._full = now, lowest is None

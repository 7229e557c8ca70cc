"""How many of a worker's sockets are on their way at a time: as many as the host bears. Pure.

Each is unread meanwhile, and the longer, the more there are and the busier the host is. Additive increase,
multiplicative decrease, as TCP does it, by how long it took: workers that hand over at the same time need not know of
each other. Not below a few: what takes long may be an app that asks a database for each of them.
"""

from __future__ import annotations

QUICK_SECONDS = 0.02
SLOW_SECONDS = 0.04
"""Within which a socket is handed over where there is room for more, and beyond which there are too many."""

LEAST, FIRST, MOST = 4, 6, 12


class Window:
    """The number of sockets that may be on their way, which changes with how long they take."""

    def __init__(self) -> None:
        self._size = float(FIRST)
        self._shrunk_until = 0.0

    @property
    def size(self) -> int:
        """How many may be now."""
        return int(self._size)

    def took(self, seconds: float, now: float) -> None:
        """Hear how long a socket took.

        Args:
            seconds: how long.
            now: when it was through, by any clock in seconds.
        """
        if seconds < QUICK_SECONDS:
            self._size = min(float(MOST), self._size + 0.5 / self._size)
        elif seconds > SLOW_SECONDS and now >= self._shrunk_until:
            # Those that are on their way were begun before: what they take says nothing of the new size.
            self._size = max(float(LEAST), self._size * 0.6)
            self._shrunk_until = now + seconds

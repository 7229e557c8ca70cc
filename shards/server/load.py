"""How busy a worker is, as it tells the registry; who sends it sockets goes by that."""

from __future__ import annotations

import time


class Load:
    """Measures from one heartbeat to the next.

    Attributes:
        accept_ms: how long a handshake took, from its request to its answer, on average, and how late the event loop
            was on top of it.
        cpu_percent: of a core.
    """

    def __init__(self) -> None:
        self.accept_ms = 0.0
        self.cpu_percent = 0.0
        self._accepts, self._seconds = 0, 0.0
        self._at, self._cpu = time.monotonic(), time.process_time()

    def accepted(self, seconds: float) -> None:
        """Hear that a handshake took so long."""
        self._accepts += 1
        self._seconds += seconds

    def measure(self, late_seconds: float) -> None:
        """Sum up what was since the last time; the event loop was late by so much just now."""
        now, cpu = time.monotonic(), time.process_time()
        self.accept_ms = 1000 * (self._seconds / max(1, self._accepts) + max(0.0, late_seconds))
        self.cpu_percent = 100 * (cpu - self._cpu) / max(1e-3, now - self._at)
        self._accepts, self._seconds, self._at, self._cpu = 0, 0.0, now, cpu

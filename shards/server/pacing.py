"""How a drain is spread over time: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

HINTED_SHARE = 0.6
"""Of a drain's time, the part in which clients reconnect of their own accord; in the rest they are closed."""


@dataclass(frozen=True)
class Drain:
    """A drain that shall be through within `drain_ms` milliseconds of its start."""

    drain_ms: int

    @property
    def within_ms(self) -> int:
        """For how long clients may take their time to reconnect, in milliseconds."""
        return int(self.drain_ms * HINTED_SHARE)

    def to_close(self, elapsed_ms: float, left: int, step_ms: float) -> int:
        """Give how many of the sockets left to close in the step that begins now.

        Args:
            elapsed_ms: since the drain began.
            left: sockets still open.
            step_ms: length of a step.

        Returns:
            0 while clients may still come of their own accord; then what spreads the rest evenly over the time left;
            all of them once the time is over.
        """
        if elapsed_ms < self.within_ms:
            return 0
        steps_left = max(1, int((self.drain_ms - elapsed_ms) / step_ms))
        return -(-left // steps_left)

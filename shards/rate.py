"""How often someone may do something: a token bucket. Pure: the caller brings the time."""

from __future__ import annotations


class TokenBucket:
    """Lets `rate` through a second, and up to `burst` at once; with a rate of 0 everything.

    Args:
        rate: tokens a second.
        burst: tokens the bucket holds; it is full at first.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Take a token at the moment `now`, in seconds; False: there is none."""
        if self._rate <= 0:
            return True
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def level(self, now: float) -> float:
        """Give how many tokens are left at the moment `now`, in seconds."""
        return min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate) if self._rate > 0 else 0.0

    def set_level(self, tokens: float, now: float) -> None:
        """Go on with so many tokens from the moment `now`, in seconds."""
        self._tokens, self._at = max(0.0, min(self._burst, tokens)), now

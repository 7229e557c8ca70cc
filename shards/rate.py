"""How often, and with how many, someone may do something: token buckets. Pure: the caller brings the time."""

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

    def take(self, now: float, tokens: float = 1) -> bool:
        """Take tokens at the moment `now`, in seconds; False: there are not so many, and none is taken."""
        if self._rate <= 0:
            return True
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def level(self, now: float) -> float:
        """Give how many tokens are left at the moment `now`, in seconds."""
        return min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate) if self._rate > 0 else 0.0

    def set_level(self, tokens: float, now: float) -> None:
        """Go on with so many tokens from the moment `now`, in seconds."""
        self._tokens, self._at = max(0.0, min(self._burst, tokens)), now


class Reach:
    """Which groups someone reaches: new ones count, the last ones that were reached are not new.

    So what is remembered here is bounded, and so is what others have to remember for someone who names a new group each
    time.

    Args:
        rate: new groups a second.
        burst: new groups at once, and how many of the last ones are known.
    """

    __slots__ = ("_last", "_most", "bucket")

    def __init__(self, rate: float, burst: int) -> None:
        self._most = burst
        self._last: dict[str, None] = {}
        self.bucket = TokenBucket(rate, burst)

    def takes(self, group: str, now: float) -> bool:
        """Tell whether `group` may be reached at the moment `now`, in seconds."""
        if group in self._last:
            return True
        if not self.bucket.take(now):
            return False
        if len(self._last) >= self._most:
            del self._last[next(iter(self._last))]
        self._last[group] = None
        return True


class Shares:
    """A bucket for each of many, by their names: what each may do, however many ways it takes.

    Args:
        rate: tokens a second of each; 0: any number.
        burst: tokens that each bucket holds.
        most: buckets that are kept; beyond that, those that are full again are forgotten, being as good as new.
    """

    def __init__(self, rate: float, burst: float, most: int = 10_000) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, name: str, now: float, tokens: float = 1) -> bool:
        """Take tokens of `name`'s bucket at the moment `now`, in seconds; False: there are not so many."""
        if self._rate <= 0:
            return True
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= self._most:
                self._forget_full(now)
            bucket = self._buckets[name] = TokenBucket(self._rate, self._burst)
        return bucket.take(now, tokens)

    def _forget_full(self, now: float) -> None:
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if bucket.level(now) < self._burst}
        # Where more than half are in use, there are to be more: to look through all of them for each new one is slow.
        self._most = max(self._most, 2 * len(self._buckets))

"""How often, and with how many, someone may do something: token buckets. Pure: the caller brings the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


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

    def has(self, now: float, tokens: float = 1) -> bool:
        """Tell whether there are so many tokens at the moment `now`, in seconds; none is taken."""
        return self._rate <= 0 or self.level(now) >= tokens

    def level(self, now: float) -> float:
        """Give how many tokens are left at the moment `now`, in seconds."""
        return min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate) if self._rate > 0 else 0.0

    def unused(self, now: float) -> bool:
        """Tell whether it is as good as new at the moment `now`, in seconds."""
        return self._rate <= 0 or self.level(now) >= self._burst

    def set_level(self, tokens: float, now: float) -> None:
        """Go on with so many tokens from the moment `now`, in seconds."""
        self._tokens, self._at = max(0.0, min(self._burst, tokens)), now


class Reach:
    """Which groups someone reaches: new ones count, the last ones that were reached are not new.

    So what is remembered here is bounded, and so is what others have to remember for someone who names a new group each
    time.

    Args:
        rate: new groups a second.
        burst: new groups at once.
        known: how many of the last ones are known; None: as many as there may be at once.
    """

    __slots__ = ("_known", "_last", "bucket")

    def __init__(self, rate: float, burst: float, known: int | None = None) -> None:
        self._known = int(burst) if known is None else known
        # The one that was reached longest ago is first.
        self._last: dict[str, None] = {}
        self.bucket = TokenBucket(rate, burst)

    def __len__(self) -> int:
        return len(self._last)

    def __contains__(self, group: str) -> bool:
        return group in self._last

    def would_take(self, group: str, now: float) -> bool:
        """Tell whether `group` may be reached at the moment `now`, in seconds, and count nothing."""
        return group in self._last or self.bucket.has(now)

    def takes(self, group: str, now: float, known: int | None = None, *, free: bool = False) -> bool:
        """Tell whether `group` may be reached at the moment `now`, in seconds.

        Args:
            group: its name.
            now: the moment.
            known: so many are known from now on, where these are fewer than ever.
            free: it does not count, also where it is new.
        """
        if group in self._last:
            # By use and not by first come: one that is reached again and again stays known, whatever else is reached.
            del self._last[group]
            self._last[group] = None
            return True
        if not (free or self.bucket.take(now)):
            return False
        most = self._known if known is None else min(self._known, known)
        if len(self._last) >= most:
            del self._last[next(iter(self._last))]
        self._last[group] = None
        return True

    def unused(self, now: float) -> bool:
        """Tell whether as many new ones as ever may be reached at the moment `now`, in seconds."""
        return self.bucket.unused(now)


class _Forgettable(Protocol):
    def unused(self, now: float) -> bool:
        """Tell whether it may be forgotten."""


_Kept = TypeVar("_Kept", bound=_Forgettable)


_LOOKS_S = 1.0
"""So often what all take together is looked through, where it is too much: for each new group that would be slow."""


def _ignore(_: object) -> None:
    """Need not hear of it."""


class _Each(Generic[_Kept]):
    """Something of each of many, by their names; beyond `most`, what is as good as new is forgotten.

    Args:
        make: makes one.
        most: how many are kept.
        forgotten: called with each that is forgotten.
    """

    def __init__(self, make: Callable[[], _Kept], most: int, forgotten: Callable[[_Kept], None] = _ignore) -> None:
        self._make, self._most, self._forgotten = make, most, forgotten
        self._kept: dict[str, _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, name: str, now: float) -> _Kept:
        """Give `name`'s at the moment `now`, in seconds."""
        found = self._kept.get(name)
        if found is None:
            if len(self._kept) >= self._most:
                self.forget(now)
                # Where more than half are in use, there are to be more: to look through all for each new one is slow.
                self._most = max(self._most, 2 * len(self._kept))
            found = self._kept[name] = self._make()
        return found

    def forget(self, now: float) -> None:
        """Forget those that are as good as new at the moment `now`, in seconds."""
        for name in [name for name, one in self._kept.items() if one.unused(now)]:
            self._forgotten(self._kept.pop(name))


class Shares:
    """A bucket for each of many, by their names: what each may do, however many ways it takes.

    Args:
        rate: tokens a second of each; 0: any number.
        burst: tokens that each bucket holds.
        most: buckets that are kept; beyond that, those that are full again are forgotten, being as good as new.
    """

    def __init__(self, rate: float, burst: float, most: int = 10_000) -> None:
        self._rate = rate
        self._buckets = _Each(lambda: TokenBucket(rate, burst), most)

    def take(self, name: str, now: float, tokens: float = 1) -> bool:
        """Take tokens of `name`'s bucket at the moment `now`, in seconds; False: there are not so many."""
        return self._rate <= 0 or self._buckets.of(name, now).take(now, tokens)


class Reaches:
    """Which groups each of many reaches, by their names, however many ways it takes: a `Reach` for each.

    Args:
        rate: new groups a second of each.
        burst: new groups at once.
        known: how many of the last ones of each are known: who comes back to these is no burden, and this is memory.
        least: so many of each are known in any case.
        beyond: how many are known of all together beyond that.
        most: names that are kept; beyond that, those that may name as many as ever are forgotten.
    """

    def __init__(
        self, rate: float, burst: float, known: int, *, least: int, beyond: int = 200_000, most: int = 10_000
    ) -> None:
        self._least, self._most_beyond = min(least, known), beyond
        self._beyond = 0
        self._looked_at = float("-inf")
        self._reaches = _Each(lambda: Reach(rate, burst, known), most, self._forgotten)

    def takes(self, name: str, group: str, now: float, *, free: bool = False) -> bool:
        """Tell whether `name` may reach `group` at the moment `now`, in seconds; `free`: it may, and is known then."""
        if self._beyond >= self._most_beyond and now >= self._looked_at + _LOOKS_S:
            self._looked_at = now
            self._reaches.forget(now)
        reach = self._reaches.of(name, now)
        before = self._beyond_least(reach)
        # Where all together have no room, no more are known of this one than now.
        known = max(self._least, len(reach)) if self._beyond >= self._most_beyond else None
        taken = reach.takes(group, now, known, free=free)
        self._beyond += self._beyond_least(reach) - before
        return taken

    def _beyond_least(self, reach: Reach) -> int:
        return max(0, len(reach) - self._least)

    def _forgotten(self, reach: Reach) -> None:
        self._beyond -= self._beyond_least(reach)

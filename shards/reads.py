"""Reads from one shard, as many at once as its answers may pile up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

MOST_BYTES = 4 << 20
"""What the answers under way from one shard may take. Redis cuts a subscriber whose answers pile up to 8 MiB."""

Answered = Callable[[], None]
"""To be called once, when the answer is here."""


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    size: int
    wanted: Callable[[], bool]
    send: Callable[[Answered], None]


class Reads:
    """The reads from one shard: those under way, and those that wait for their turn.

    Args:
        most_bytes: what may be under way.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._under_way = 0
        self._for_all: deque[_Read] = deque()
        self._for_one: deque[_Read] = deque()
        self._sending = False

    def line_up(
        self, size: int, wanted: Callable[[], bool], send: Callable[[Answered], None], for_all: bool = False
    ) -> None:
        """Have a read sent in its turn: at once, where there is room.

        Args:
            size: bytes that its answer may take.
            wanted: asked when its turn has come.
            send: sends it.
            for_all: whether all members of a group wait for it; these go before reads for a single one.
        """
        (self._for_all if for_all else self._for_one).append(_Read(size, wanted, send))
        self._send()

    def _send(self) -> None:
        # A shard that is gone answers at once, and that may line up another read: not one deeper each time.
        if self._sending:
            return
        self._sending = True
        try:
            while (read := self._next()) is not None:
                if read.wanted():
                    self._under_way += read.size
                    read.send(lambda size=read.size: self._answered(size))  # type: ignore[misc]
        finally:
            self._sending = False

    def _next(self) -> _Read | None:
        waiting = self._for_all or self._for_one
        if not waiting or (self._under_way and self._under_way + waiting[0].size > self._most_bytes):
            return None
        return waiting.popleft()

    def _answered(self, size: int) -> None:
        self._under_way -= size
        if self._for_all or self._for_one:
            # Not before this answer has been worked off.
            asyncio.get_running_loop().call_soon(self._send)

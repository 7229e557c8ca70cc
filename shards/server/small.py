"""asyncio's Queue and Event, small: theirs keep five deques a socket, 3.8 KB, and a worker has thousands of sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


_FEW = 8


class SmallQueue(Generic[T]):
    """An unbounded queue with one reader; small while it is short."""

    __slots__ = ("_items", "_reader")

    def __init__(self) -> None:
        self._items: tuple[T, ...] | deque[T] = ()
        self._reader: asyncio.Future[None] | None = None

    def put_nowait(self, item: T) -> None:
        """Add an item."""
        if isinstance(self._items, deque):
            self._items.append(item)
        elif len(self._items) < _FEW:
            self._items += (item,)
        else:
            # To copy all there are for each that comes would stop a worker, where somebody sends 40,000 at once.
            self._items = deque((*self._items, item))
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> T:
        """Wait for an item and take it; a cancelled call takes none."""
        while not self._items:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if isinstance(self._items, deque):
            item = self._items.popleft()
            self._items = self._items or ()
        else:
            item, *rest = self._items
            self._items = tuple(rest)
        return item

    def empty(self) -> bool:
        """Tell whether there is nothing to get."""
        return not self._items

    @property
    def waited_for(self) -> bool:
        """Whether the reader waits, and there is nothing to get."""
        return not self._items and self._reader is not None and not self._reader.done()

    def take_all(self, which: Callable[[T], bool]) -> list[T]:
        """Take the items that `which` says yes to."""
        taken = [item for item in self._items if which(item)]
        left = [item for item in self._items if not which(item)]
        self._items = tuple(left) if len(left) <= _FEW else deque(left)
        return taken


class SmallEvent:
    """A flag, set at first, that any number of tasks may wait for."""

    __slots__ = ("_change",)

    def __init__(self) -> None:
        self._change: asyncio.Future[None] | None = None

    def is_set(self) -> bool:
        """Tell whether nobody who called `wait` would have to."""
        return self._change is None

    def clear(self) -> None:
        """Make those wait who call `wait` from now on."""
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()

    def set(self) -> None:
        """Let everyone go on who waits."""
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)

    async def wait(self) -> None:
        """Wait until the flag is set."""
        while self._change is not None:
            await asyncio.shield(self._change)

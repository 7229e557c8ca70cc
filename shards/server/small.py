"""asyncio's Queue and Event, small: theirs keep five deques a socket, 3.8 KB, and a worker has thousands of sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SmallQueue(Generic[T]):
    """An unbounded queue with one reader."""

    __slots__ = ("_items", "_reader")

    def __init__(self) -> None:
        self._items: tuple[T, ...] = ()
        self._reader: asyncio.Future[None] | None = None

    def put_nowait(self, item: T) -> None:
        """Add an item."""
        self._items += (item,)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> T:
        """Wait for an item and take it; a cancelled call takes none."""
        while not self._items:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
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
        self._items = tuple(item for item in self._items if not which(item))
        return taken


class SmallEvent:
    """A flag, set at first, that any number of tasks may wait for."""

    __slots__ = ("_change",)

    def __init__(self) -> None:
        self._change: asyncio.Future[None] | None = None

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

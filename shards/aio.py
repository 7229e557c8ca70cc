"""What asyncio lacks."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from time import monotonic_ns
from typing import Any, Generic, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 0.5
_SHORTEST_SLEEP_NS = 1_000_000


def keep_on(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
    """Have `work` done until cancelled. An error that it has no answer to is logged, and it begins anew.

    For what a process can't do without: else its task is gone, and nobody knows.
    """

    async def again_and_again() -> None:
        while True:
            try:
                await work()
            except Exception:
                logger.exception("%s: it begins anew", name)
            await asyncio.sleep(_AGAIN_SECONDS)

    return asyncio.create_task(again_and_again(), name=name)


async def end(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancel `tasks` and wait until they are done.

    A cancel can be swallowed: by `asyncio.wait_for` before Python 3.12 where it comes together with the result
    (https://github.com/python/cpython/issues/86296), and by libraries that do the like. Then it is sent again.
    """
    left = {task for task in tasks if task is not None and not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_SECONDS)


async def sleep_until(at_ns: int) -> None:
    """Sleep until it is `at_ns` by the monotonic clock; not at all for less than a millisecond.

    A loop's timers are no finer, and who has much to do, each thing at its time, shall not go round the loop for each.
    """
    left_ns = at_ns - monotonic_ns()
    if left_ns > _SHORTEST_SLEEP_NS:
        await asyncio.sleep(left_ns / 1_000_000_000)


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Do what blocks in a thread. Whoever cancels this waits until the thread has ended, as threads can't be cancelled.

    Else it would go on making what the one that cancels is about to take away.

    Args:
        work: given an event that is set when this is cancelled; it may end then.
    """
    cancelled = threading.Event()
    done = asyncio.ensure_future(asyncio.to_thread(work, cancelled))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([done])
        raise


def stop_if_cancelled() -> None:
    """Raise a cancel of the current task anew, where one was swallowed; see `end`.

    For long work between two parts of which it may stop. It must not be in a block that waits with a deadline.

    Raises:
        asyncio.CancelledError: the task was cancelled, and has not ended.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Patience(Generic[T]):
    """Tells what has waited for too long: one timer, however many wait.

    Args:
        seconds: how long each may wait.
        overdue: told of each that has waited so long; whether it still waits is for this to know.
    """

    def __init__(self, seconds: float, overdue: Callable[[T], None]) -> None:
        self._seconds = seconds
        self._overdue = overdue
        self._waiting: deque[tuple[float, T]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def wait_for(self, item: T) -> None:
        """Begin to wait for `item`."""
        loop = asyncio.get_running_loop()
        self._waiting.append((loop.time() + self._seconds, item))
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            self._overdue(self._waiting.popleft()[1])
        self._timer = loop.call_at(self._waiting[0][0], self._look) if self._waiting else None

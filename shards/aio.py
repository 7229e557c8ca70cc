"""What asyncio lacks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN_SECONDS = 0.5


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

"""Makes consumers of Channels known to the connection that they serve: nobody else has them in hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from channels.consumer import AsyncConsumer

from shards.carried import passenger, restore_state


def install() -> None:
    """Have every consumer of this process, when it begins, tell its connection's passenger; once is enough."""
    begin = AsyncConsumer.__call__
    if hasattr(begin, "__wrapped__"):
        return

    @wraps(begin)
    async def begin_known(self: Any, scope: Any, receive: Any, send: Any) -> Any:
        mine = passenger()
        if mine is not None and scope["type"] == "websocket":
            mine.consumer = self
            if mine.arrived is not None and mine.arrived.state is not None:
                self.dispatch = _restoring(self, self.dispatch, mine.arrived.state)
        return await begin(self, scope, receive, send)

    AsyncConsumer.__call__ = begin_known  # type: ignore[method-assign]


def _restoring(
    consumer: Any, dispatch: Callable[[Any], Awaitable[None]], state: bytes
) -> Callable[[Any], Awaitable[None]]:
    """Have a consumer take what its predecessor carried right after its `connect`, before anything else."""

    connected = False

    async def dispatch_and_restore(message: Any) -> None:
        nonlocal connected
        await dispatch(message)
        if not connected:
            connected = True
            await restore_state(consumer, state)

    return dispatch_and_restore

"""The reference service's consumer: anyone may talk in any group."""

from __future__ import annotations

from shards.consumers import GroupConsumer, Receive, Scope, Send


class Rooms(GroupConsumer):
    """Open rooms. A service of your own would override `may_connect`, `may_subscribe` and `may_publish`."""


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a WebSocket to a path that is none: HTTP 403, and no traceback in the log."""
    await receive()
    await send({"type": "websocket.close"})

"""Rooms for clients that speak no protocol at all: what one says, everybody in the room gets as it is."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from channels.layers import get_channel_layer

from shards.consumers import Receive, Scope, Send
from shards.rate import TokenBucket
from shards.settings import Settings


async def plain_room(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a member; nothing but ASGI and the channel layer, and the limits that a `GroupConsumer` keeps by itself."""
    await receive()
    layer: Any = get_channel_layer()
    channel = await layer.new_channel()
    group = f"plain.{scope['url_route']['kwargs']['group']}"
    try:
        await layer.group_add(group, channel)
    except TypeError:  # no name for a group
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept"})

    async def pass_on() -> None:
        while True:
            message = await layer.receive(channel)
            await send({"type": "websocket.send", "text": message["text"]})

    passing = asyncio.create_task(pass_on())
    try:
        may = _Limits(scope["state"]["shards.worker"].settings)
        while (event := await receive())["type"] == "websocket.receive":
            text = event.get("text") or ""
            if not may.say(text):
                await send({"type": "websocket.close", "code": 1008, "reason": "too much"})
                break
            await layer.group_send(group, {"type": "said", "text": text})
    finally:
        passing.cancel()
        await layer.group_discard(group, channel)


class _Limits:
    """What one member may say: these clients would not understand an error, so who says more is closed."""

    def __init__(self, settings: Settings) -> None:
        self._frames = TokenBucket(settings.rate_limit, settings.rate_limit * 2)
        self._bytes = TokenBucket(settings.bytes_limit, settings.bytes_at_once)

    def say(self, text: str) -> bool:
        """Tell whether it may say this now."""
        now = time.monotonic()
        return self._frames.take(now) and self._bytes.take(now, len(text.encode()))

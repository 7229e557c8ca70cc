"""Rooms for clients that speak no protocol at all: what one says, everybody in the room gets as it is."""

from __future__ import annotations

import asyncio
from typing import Any

from channels.layers import get_channel_layer

from shards.consumers import Receive, Scope, Send


async def plain_room(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a member; nothing but ASGI and the channel layer."""
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
        while (event := await receive())["type"] == "websocket.receive":
            await layer.group_send(group, {"type": "said", "text": event.get("text") or ""})
    finally:
        passing.cancel()
        await layer.group_discard(group, channel)

"""Consumers of many kinds, whose sockets are handed over."""

from __future__ import annotations

import asyncio
import json

import django
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from django.conf import settings
from django.urls import path

from shards.consumers import GroupConsumer

settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "shards.layer.ShardedChannelLayer"}})
django.setup()


class Room(AsyncWebsocketConsumer):
    """Says to all in its group what it is told, and who says it."""

    async def connect(self):
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard("room", self.channel_name)

    async def receive(self, text_data):
        await self.channel_layer.group_send("room", {"type": "said", "text": text_data})

    async def said(self, event):
        await asyncio.sleep(0.001)
        await self.send(event["text"])


class SyncRoom(WebsocketConsumer):
    """The same, sync."""

    def connect(self):
        async_to_sync(self.channel_layer.group_add)("room", self.channel_name)
        self.accept()

    def disconnect(self, code):
        async_to_sync(self.channel_layer.group_discard)("room", self.channel_name)

    def receive(self, text_data):
        async_to_sync(self.channel_layer.group_send)("room", {"type": "said", "text": text_data})

    def said(self, event):
        self.send(event["text"])


class Stays(AsyncWebsocketConsumer):
    """Does not want to be handed over."""

    handoff = False


class Counts(AsyncWebsocketConsumer):
    """Answers with how many messages it has had, here and elsewhere."""

    count = 0

    async def receive(self, text_data):
        self.count += 1
        await self.send(json.dumps([self.count, "shards.handoff" in self.scope["extensions"]]))

    async def handoff_state(self):
        return {"count": self.count}

    async def handoff_restore(self, state):
        self.count = state["count"]


class TooMuch(AsyncWebsocketConsumer):
    """Wants to carry more than may be carried."""

    async def handoff_state(self):
        return "x" * 70_000


class Stuck(AsyncWebsocketConsumer):
    """Never comes to say what it wants to carry."""

    async def handoff_state(self):
        await asyncio.Event().wait()


class Broken(AsyncWebsocketConsumer):
    """Fails to say what it wants to carry."""

    async def handoff_state(self):
        raise KeyError("count")


class Late(AsyncWebsocketConsumer):
    """Takes longer to connect elsewhere than is waited for."""

    async def connect(self):
        if "shards.handoff" in self.scope["extensions"]:
            await asyncio.sleep(30)
        await self.accept()


class Picky(AsyncWebsocketConsumer):
    """Takes nobody who comes from elsewhere."""

    async def connect(self):
        if "shards.handoff" in self.scope["extensions"]:
            await self.close()
        else:
            await self.accept()

    async def receive(self, text_data):
        await self.send(text_data)


class Slow(AsyncWebsocketConsumer):
    """Takes a while to answer."""

    async def receive(self, text_data):
        await asyncio.sleep(0.2)
        await self.send(text_data)


class Busy(AsyncWebsocketConsumer):
    """Is never through with what it was told."""

    async def receive(self, text_data):
        await asyncio.sleep(60)


class Counted(GroupConsumer):
    """A group consumer with something of its own to carry."""

    def __init__(self, scope):
        super().__init__(scope)
        self.moves = 0

    async def may_publish(self, group):
        return group != f"moved:{self.moves}"

    async def handoff_state(self):
        return {"moves": self.moves}

    async def handoff_restore(self, state):
        self.moves = state["moves"] + 1


async def raw(scope, receive, send):
    """An app that knows ASGI and the channel layer only."""
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await receive()
    await layer.group_add("room", channel)
    await send({"type": "websocket.accept"})

    async def pass_on():
        while True:
            message = await layer.receive(channel)
            await send({"type": "websocket.send", "text": message["text"]})

    passing = asyncio.create_task(pass_on())
    try:
        while (event := await receive())["type"] == "websocket.receive":
            await layer.group_send("room", {"type": "said", "text": event["text"]})
    finally:
        passing.cancel()
        await layer.group_discard("room", channel)


application = URLRouter(
    [
        path("room/", Room.as_asgi()),
        path("sync/", SyncRoom.as_asgi()),
        path("raw/", raw),
        path("stays/", Stays.as_asgi()),
        path("counts/", Counts.as_asgi()),
        path("toomuch/", TooMuch.as_asgi()),
        path("stuck/", Stuck.as_asgi()),
        path("broken/", Broken.as_asgi()),
        path("late/", Late.as_asgi()),
        path("picky/", Picky.as_asgi()),
        path("slow/", Slow.as_asgi()),
        path("busy/", Busy.as_asgi()),
        path("ws/", Counted.as_asgi()),
    ]
)

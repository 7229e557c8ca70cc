"""A service without a garbage collector, which tells how many of its connections' objects are still there."""

import gc

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": "shards.layer.ShardedChannelLayer"}})

from shards.consumers import GroupConsumer  # noqa: E402

_OF_A_CONNECTION = {"SocketProtocol", "HttpProtocol", "ServerProtocol", "TCPTransport", "GroupConsumer", "Echo"}


class Echo(AsyncWebsocketConsumer):
    """Sends back what it gets."""

    groups = ("all",)

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data)


async def count(scope, receive, send):
    """Answer with the names of the objects of connections that are there, each once for each time."""
    gc.disable()
    there = [name for o in gc.get_objects() if (name := type(o).__name__) in _OF_A_CONNECTION]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": " ".join(there).encode()})


application = ProtocolTypeRouter(
    {
        "http": count,
        "websocket": URLRouter([path("ws/echo/", Echo.as_asgi()), path("ws/", GroupConsumer.as_asgi())]),
    }
)

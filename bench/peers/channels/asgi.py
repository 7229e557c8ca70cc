"""The app of the Channels peers: the consumer of the Channels tutorial, a group in the path.

``BENCH_LAYER`` names the channel layer, ``BENCH_REDIS`` its Redis.
"""

from __future__ import annotations

import os
from typing import Any

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    SECRET_KEY="of no use",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={
        "default": {"BACKEND": os.environ["BENCH_LAYER"], "CONFIG": {"hosts": [os.environ["BENCH_REDIS"]]}},
    },
)
django.setup()


class Relay(AsyncWebsocketConsumer):
    """Sends to its group what it receives."""

    async def connect(self) -> None:
        """Join the group of the path."""
        self.group = self.scope["url_route"]["kwargs"]["group"]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Leave it."""
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Take a message from the client."""
        await self.channel_layer.group_send(self.group, {"type": "relay", "text": text_data})

    async def relay(self, event: dict[str, Any]) -> None:
        """Take one from the group."""
        await self.send(text_data=event["text"])


async def ready(request: HttpRequest) -> HttpResponse:
    """Answer the edges' health check."""
    return HttpResponse("ok\n")


urlpatterns = [path("readyz", ready)]
sockets = URLRouter([path("ws/<str:group>/", Relay.as_asgi())])  # type: ignore[arg-type, list-item]
application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": sockets})

"""The service: Django for HTTP, one resumable consumer for WebSockets."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "app.settings")
django = get_asgi_application()

from app.routing import websocket_urlpatterns  # noqa: E402  (needs Django set up)

application = ProtocolTypeRouter({"http": django, "websocket": URLRouter(websocket_urlpatterns)})

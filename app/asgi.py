"""The service: Django for HTTP, one resumable consumer for WebSockets."""

from __future__ import annotations

import os
from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "app.settings")
django: Any = get_asgi_application()  # Django has ASGI's types otherwise than Channels and we

from app.pages import Remembered  # noqa: E402  (needs Django set up)
from app.routing import websocket_urlpatterns  # noqa: E402
from app.views import SAME_FOR_ALL  # noqa: E402

pages = Remembered(django, SAME_FOR_ALL)
application = ProtocolTypeRouter({"http": pages, "websocket": URLRouter(websocket_urlpatterns)})

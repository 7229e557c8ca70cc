"""Where the WebSockets are."""

from __future__ import annotations

from typing import Any

from django.urls import path, re_path

from app.consumers import Rooms, nowhere
from app.plain import plain_room

rooms: Any = Rooms.as_asgi()  # Django's own stubs know views only, not ASGI applications
plain: Any = plain_room
elsewhere: Any = nowhere
websocket_urlpatterns: Any = [
    path("ws/", rooms),
    path("ws/<str:group>/", rooms),
    path("plain/<str:group>/", plain),
    re_path("", elsewhere),
]

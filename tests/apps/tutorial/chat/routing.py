"""The chat's WebSockets: the same room served by a sync and by an async consumer."""

from django.urls import re_path

from chat import consumers

websocket_urlpatterns = [
    re_path(r"^ws/chat/(?P<room_name>\w+)/$", consumers.ChatConsumer.as_asgi()),
    re_path(r"^ws/sync/(?P<room_name>\w+)/$", consumers.SyncChatConsumer.as_asgi()),
]
channels = {name: consumers.ThumbnailConsumer.as_asgi() for name in ("thumbnails", "large-1", "large-2")}

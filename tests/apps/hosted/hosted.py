"""A service that knows by which name it is reached."""

from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings

from shards.consumers import GroupConsumer

settings.configure(ALLOWED_HOSTS=["fleet.example"])

application = AllowedHostsOriginValidator(GroupConsumer.as_asgi())

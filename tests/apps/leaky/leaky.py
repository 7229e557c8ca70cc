"""A service that never forgets: 1 KB of each message that a client publishes stays in memory."""

from shards.consumers import GroupConsumer

KEPT = []


class Leaky(GroupConsumer):
    """Looks at each publish, and keeps a note of it."""

    def __init__(self, scope):
        scope["url_route"] = {"kwargs": {"group": scope["path"].split("/")[2]}}
        super().__init__(scope)

    async def may_publish(self, group):
        KEPT.append(bytearray(1024))
        return True


application = Leaky.as_asgi()

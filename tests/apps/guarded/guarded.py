"""A service that lets clients into some groups only."""

from shards.consumers import GroupConsumer


class Guarded(GroupConsumer):
    """Says yes to groups called open-…, and lets nobody publish to open-notices."""

    async def may_subscribe(self, group):
        return group.startswith("open-")

    async def may_publish(self, group):
        return group.startswith("open-") and group != "open-notices"


application = Guarded.as_asgi()

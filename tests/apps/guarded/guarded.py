"""A service that lets clients into some groups only."""

from shards.consumers import GroupConsumer


class Guarded(GroupConsumer):
    """Says yes to groups called open-…, lets nobody publish to open-notices, and tells nobody who is in open-quiet."""

    async def may_subscribe(self, group):
        return group.startswith("open-")

    async def may_publish(self, group):
        return group.startswith("open-") and group != "open-notices"

    async def presence_events(self, group):
        return group != "open-quiet"


application = Guarded.as_asgi()

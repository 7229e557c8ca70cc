"""The reference service's consumer: anyone may talk in any group."""

from __future__ import annotations

from shards.consumers import GroupConsumer


class Rooms(GroupConsumer):
    """Open rooms. A service of your own would override `may_connect`, `may_subscribe` and `may_publish`."""

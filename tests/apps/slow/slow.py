"""A service that takes its time to say whether somebody may come in."""

import asyncio

from shards.consumers import GroupConsumer

SECONDS = 1.0


class Slow(GroupConsumer):
    """Lets everybody in, a second later."""

    async def may_connect(self):
        await asyncio.sleep(SECONDS)
        return True


application = Slow.as_asgi()

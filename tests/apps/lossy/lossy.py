"""A service that forgets one message: the first client of one replica to be given a fifth is not given it.

The replica is one of the second color, which lives from a promote to the rollback.
"""

import os
from itertools import count

from shards.consumers import GroupConsumer

LOSES = ["once"] if os.environ["SHARDS_REPLICA"] == "green-0" else []
LOST = 5


class Lossy(GroupConsumer):
    """Lets one socket miss one message."""

    def __init__(self, scope):
        scope["url_route"] = {"kwargs": {"group": scope["path"].split("/")[2]}}
        super().__init__(scope)

    async def serve(self, receive, send):
        socket = self.scope["extensions"]["shards.socket"]
        socket.write_message = forgetful(socket.write_message)
        await super().serve(receive, send)


def forgetful(write):
    """Write all messages, but for the one that is lost."""
    written = count(1)

    def write_message(message):
        if next(written) == LOST and LOSES:
            LOSES.pop()
        else:
            write(message)

    return write_message


application = Lossy.as_asgi()

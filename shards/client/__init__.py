"""A client that resumes: nothing lost, nothing twice, in order, over any number of connections.

    async with shards.client.connect("ws://127.0.0.1:8000/ws/") as client:
        async with client.subscribe("lobby") as messages:
            await client.publish("lobby", {"text": "hello"})
            async for message in messages:
                print(message)

`protocol` decides what to say and what to believe, without I/O; `connection` says it. docs/clients.md tells more.
"""

from shards.client.connection import Client, Subscription, connect
from shards.client.protocol import (
    Complained,
    Event,
    Gap,
    History,
    Joined,
    Left,
    Lost,
    Message,
    Place,
    Presence,
    Subscribed,
    Welcomed,
)
from shards.errors import ClientClosed, ConnectionFailed, OutboxFull, Refused, Unconfirmed

__all__ = [
    "Client",
    "ClientClosed",
    "Complained",
    "ConnectionFailed",
    "Event",
    "Gap",
    "History",
    "Joined",
    "Left",
    "Lost",
    "Message",
    "OutboxFull",
    "Place",
    "Presence",
    "Refused",
    "Subscribed",
    "Subscription",
    "Unconfirmed",
    "Welcomed",
    "connect",
]

"""Clients of our own protocol and plain ones in one run: groups of even number speak ours, the others none.

The plain ones are in ``/plain/<group>/``, where what one says all get as it is. They know no session and no offset, so
whatever they miss is lost for good.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from shards.load.client import Client, Room
from shards.load.connection import Connection, Shared
from shards.load.plain import PlainClient, PlainRoom


class HalfRoom(PlainRoom):
    """A group of plain clients."""

    __slots__ = ()


class HalfPlainClient(PlainClient):
    """A plain client; its group is beside those of our protocol."""

    __slots__ = ()

    def url(self) -> str:
        """Give the address of its group."""
        parts = urlsplit(super().url())
        return urlunsplit(parts._replace(path=f"/plain/{self.room.name}/"))


def room(name: str) -> Room | HalfRoom:
    """Make a group; its name ends with its number."""
    return Room(name) if int(name.rpartition("-")[2]) % 2 == 0 else HalfRoom(name)


def client(shared: Shared, group: Any, source: str | None) -> Connection:
    """Make a member of a group."""
    return (HalfPlainClient if isinstance(group, HalfRoom) else Client)(shared, group, source)

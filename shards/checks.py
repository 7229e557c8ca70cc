"""What is asked of a client's words, whether they come over a WebSocket or HTTP."""

from __future__ import annotations

from shards.log.log import Place
from shards.names import is_name
from shards.readable import why_unreadable

ID_LENGTH = 64
MOST_HISTORY = 1000
"""Messages one `history` answers with at most."""

_LARGEST_OFFSET = 10**18


class Refused(Exception):
    """A request that can't be carried out; the client is told why.

    Args:
        code: stable, see docs/design.md.
        message: what was wrong, for people.
        id: of the publish that is refused.
        group: which it was about.
    """

    def __init__(self, code: str, message: str, id: str | None = None, group: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.id = id
        self.group = group


def checked_group(group: str, id: str | None = None) -> str:
    """Give `group` back where it is a group's name."""
    if not is_name(group):
        raise Refused("bad_name", "a group has 1-100 characters of A-Z a-z 0-9 _ . : -", id)
    return group


def checked_id(id: str) -> str:
    """Give `id` back where it can be a message's."""
    if not 1 <= len(id) <= ID_LENGTH:
        raise Refused("bad_id", f"an id has 1-{ID_LENGTH} characters", id)
    return id


def checked_data(data: bytes, most: int, id: str | None = None) -> bytes:
    """Give `data`, which is JSON, back where it has `most` bytes at most, and any client can read it."""
    if len(data) > most:
        raise Refused("too_large", f"data may have {most} bytes", id)
    if (why := why_unreadable(data)) is not None:
        raise Refused("bad_message", f"not every client could read this: {why}", id)
    return data


def checked_limit(limit: int) -> int:
    """Give `limit` back where a history may be so long."""
    if not 1 <= limit <= MOST_HISTORY:
        raise Refused("bad_limit", f"limit is 1-{MOST_HISTORY}")
    return limit


def checked_place(epoch: str, offset: int) -> Place:
    """Make a place of what a client came back with."""
    if not 0 <= offset < _LARGEST_OFFSET:
        raise Refused("bad_place", "an offset is a whole number, 0 or more")
    return Place(epoch, offset)


def place_of_query(epoch: str | None, offset: str | None) -> Place | None:
    """Make a place of a URL's `epoch` and `offset`; None where neither is given."""
    if epoch is None and offset is None:
        return None
    if epoch is None or offset is None or not offset.isascii() or not offset.isdigit() or len(offset) > 18:
        raise Refused("bad_place", "epoch and offset go together; offset is a whole number, 0 or more")
    return Place(epoch, int(offset))

"""A group's past, as the socket and HTTP both give it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shards.errors import ShardUnavailable
from shards.log.log import Entry, GroupLog, Page, Place

READ_SECONDS = 5.0
"""What a shard has not answered by then is unavailable."""


@dataclass(frozen=True)
class Past:
    """A part of a group's past.

    Attributes:
        epoch: of its log.
        head: the log's last offset.
        entries: the messages, oldest first.
        gap: where history between the place asked for and the first message, or the head, is gone: the place up to
            which; else None.
    """

    epoch: str
    head: int
    entries: list[Entry]
    gap: Place | None

    @property
    def messages(self) -> bytes:
        """The messages as a JSON list."""
        return b"[%b]" % b",".join(b'{"offset":%d%b' % (entry.offset, entry.body) for entry in self.entries)


async def read(log: GroupLog, group: str, since: Place | None, limit: int, most_bytes: int) -> Past:
    """Read a group's past.

    Args:
        log: knows the group's shard.
        group: a valid name.
        since: the place after which to read; None: the last messages.
        limit: messages to give at most.
        most_bytes: what the messages may take; one is always given, so that a reader gets on.

    Raises:
        ShardUnavailable: the group's shard did not answer within `READ_SECONDS`.
    """
    answer: asyncio.Future[Page | None] = asyncio.get_running_loop().create_future()
    after = since.offset if since else -limit
    log.read(group, after, limit, lambda page: None if answer.done() else answer.set_result(page), most_bytes)
    try:
        async with asyncio.timeout(READ_SECONDS):
            page = await answer
    except TimeoutError:
        page = None
    if page is None:
        raise ShardUnavailable(log.owner(group) or "?", f"no answer for group {group}")
    return _past(page, since)


def _past(page: Page, since: Place | None) -> Past:
    lost = since is not None and (since.epoch != page.epoch or since.offset > page.head)
    entries = [] if lost else page.entries
    first = entries[0].offset if entries else page.head + 1
    skipped = since is not None and first > since.offset + 1
    gap = Place(page.epoch, first - 1) if lost or skipped else None
    return Past(page.epoch, page.head, entries, gap)

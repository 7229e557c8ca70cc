"""Who comes to a group and who goes, for those of its members that ask to hear of it.

Workers announce which groups' members they have reported (`shards.presence`). A worker with members that ask reads
such a group anew and compares: what is lost on the way is seen at the next look, and a worker that dies takes its
members with it. So a group costs a read a worker and change, and only where somebody asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from shards.errors import ShardUnavailable
from shards.hub import tell
from shards.log.log import GroupLog
from shards.presence import REPORTED, Presence, Present

logger = logging.getLogger(__name__)

MOST_NAMED = 20
"""Comings and goings of one look that are told by name; of more, only how many there are now is told."""

LEAVE_SECONDS = 1.0
"""Who is missed for so long has left; who reconnects sooner was never away."""

_LOOK_SECONDS = 0.25


class Watcher(Protocol):
    """Someone who wants to hear who comes and goes."""

    def on_attendance(self, about: str | None, frame: bytes) -> None:
        """Hear a frame of the wire protocol: of one member, by its public id, or of the group as a whole."""


@dataclass(frozen=True)
class News:
    """What has changed in a group: who came and went, or, where not all can be named, how many are there."""

    joined: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    count: int | None = None


class Roll:
    """Who is known to be in a group. Pure: the caller looks, and brings the time.

    Args:
        said: what each worker says at first; nobody is told of these.
    """

    def __init__(self, said: Iterable[Present]) -> None:
        self._here: frozenset[str]
        self._missed: dict[str, float]
        self._complete: bool
        self._count: int
        self._begin(list(said))

    @property
    def unsettled(self) -> bool:
        """Whether someone is missed who may yet come back: look again soon."""
        return bool(self._missed)

    def compare(self, said: Iterable[Present], now: float, patience: float = LEAVE_SECONDS) -> News:
        """Give what has changed.

        Args:
            said: what each worker that lives says now.
            now: in seconds.
            patience: how long someone must be missed before it has left, in seconds.
        """
        said = list(said)
        seen = _named(said)
        if seen is None or not self._complete:
            return self._counted(said)
        for member in [member for member in self._missed if member in seen]:
            del self._missed[member]
        for member in self._here - seen:
            self._missed.setdefault(member, now)
        left = frozenset(member for member, since in self._missed.items() if now - since >= patience)
        joined = seen - self._here
        if len(joined) + len(left) > MOST_NAMED:
            self._begin(said)
            return News(count=self._count)
        self._here = (self._here | joined) - left
        self._count = sum(present.count for present in said)
        for member in left:
            del self._missed[member]
        return News(joined, left)

    def _begin(self, said: list[Present]) -> None:
        named = _named(said)
        self._complete = named is not None
        self._here, self._missed = named or frozenset(), {}
        self._count = sum(present.count for present in said)

    def _counted(self, said: list[Present]) -> News:
        before = self._count
        self._begin(said)
        return News(count=self._count if self._count != before else None)


def _named(said: Iterable[Present]) -> frozenset[str] | None:
    """Give all members by name; None where a worker has more of them than it names."""
    said = list(said)
    if any(present.count > len(present.members) for present in said):
        return None
    return frozenset(member for present in said for member in present.members)


@dataclass(slots=True)
class _Watch:
    """A group that is watched: by whom, and who was there at the last look; None: nobody has looked yet."""

    watchers: dict[Watcher, None] = field(default_factory=dict)
    roll: Roll | None = None


class Attendance:
    """Tells members of this worker who comes to their groups and who goes.

    Args:
        presence: says who is in a group.
        log: hears what is announced.
    """

    def __init__(self, presence: Presence, log: GroupLog) -> None:
        self._presence = presence
        self._log = log
        self._watches: dict[str, _Watch] = {}
        self._to_look: set[str] = set()
        self._living: set[str] = set()
        self._listening = False
        self._first_looks: set[asyncio.Task[None]] = set()

    def watch(self, group: str, watcher: Watcher) -> None:
        """Tell `watcher` who comes and goes from now on."""
        if not self._listening:
            self._listening = True
            self._log.listen(REPORTED, self._heard)
        watch = self._watches.get(group)
        if watch is None:
            watch = self._watches[group] = _Watch()
            # At once: a presence that the watcher asks for is then read later, and nobody comes in between.
            look = asyncio.ensure_future(self._look(group, 0.0))
            self._first_looks.add(look)
            look.add_done_callback(self._first_looks.discard)
        watch.watchers[watcher] = None

    def unwatch(self, group: str, watcher: Watcher) -> None:
        """Tell it no more. Nothing happens where it did not watch."""
        watch = self._watches.get(group)
        if watch is not None:
            watch.watchers.pop(watcher, None)
            if not watch.watchers:
                del self._watches[group]

    def _heard(self, payload: bytes) -> None:
        self._to_look.update(group for group in payload.decode().split() if group in self._watches)

    async def run(self) -> None:
        """Look, whenever there is reason to, until cancelled."""
        try:
            while True:
                await asyncio.sleep(_LOOK_SECONDS)
                if self._watches:
                    await self._look_around()
        except asyncio.CancelledError:
            for look in self._first_looks:
                look.cancel()
            raise

    async def _look_around(self) -> None:
        living = await self._presence.living()
        dead, self._living = self._living - living, living
        groups = list(self._watches) if dead else [group for group in self._to_look if group in self._watches]
        self._to_look.clear()
        # A dead worker's members have been away for long, since nothing was heard of it for seconds.
        patience = 0.0 if dead else LEAVE_SECONDS
        await asyncio.gather(*(self._look(group, patience) for group in groups))

    async def _look(self, group: str, patience: float) -> None:
        try:
            said = await self._presence.by_worker(group)
        except ShardUnavailable:
            self._to_look.add(group)
            return
        except Exception:
            # Others look on: this task is all there is for them.
            logger.exception("presence of group %s", group)
            self._to_look.add(group)
            return
        watch = self._watches.get(group)
        if watch is None:
            return
        if watch.roll is None:
            watch.roll = Roll(said)
            return
        news = watch.roll.compare(said, asyncio.get_running_loop().time(), patience)
        if watch.roll.unsettled:
            self._to_look.add(group)
        _tell(group, watch, news)


def _tell(group: str, watch: _Watch, news: News) -> None:
    told: list[tuple[str | None, dict[str, object]]] = []
    for kind, members in (("join", news.joined), ("leave", news.left)):
        told += [(member, {"type": kind, "group": group, "member": member}) for member in sorted(members)]
    if news.count is not None:
        told.append((None, {"type": "presence", "group": group, "count": news.count, "members": []}))
    for about, said in told:
        frame = msgspec.json.encode(said)
        for watcher in list(watch.watchers):
            tell(watcher.on_attendance, about, frame)

"""A process's part of the message plane: the control Redis, the groups' logs, the hub; started and stopped as one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shards.aio import end, keep_on
from shards.attendance import Attendance
from shards.hub import Hub
from shards.log.log import GroupLog
from shards.log.login import login_at
from shards.presence import Presence
from shards.router.control import WORKER_DEAD_AFTER_MS, Control, WorkerRecord
from shards.settings import Settings

logger = logging.getLogger(__name__)

_WHERE_TO_LOOK = "MESSAGE_REDIS_URL says where a fleet's is, SHARDS_REDIS_PASSWORD_FILE where its password"

_POLL_SECONDS = 2.0
_REGISTRY_SECONDS = 0.5

_DOUBT_SECONDS = WORKER_DEAD_AFTER_MS / 1000
"""For how long after the registry was away, or heard nothing of us, those it does not know are taken to live."""


_serving: Plane | None = None


def serving_plane() -> Plane | None:
    """Give the plane of the server that this process runs; None where it runs none."""
    return _serving


def _serve_no_more() -> None:
    """A forked child has its parent's plane, but not the event loop that it lives in."""
    global _serving
    _serving = None


os.register_at_fork(after_in_child=_serve_no_more)


class Plane:
    """The message plane, as one process sees it; it lives in the event loop that starts it.

    Args:
        settings: where the control Redis is, and the limits.
        worker: this process's name in the registry; None: it is in none.
        observe_delivery: see `Hub`.
        observe_gap: see `Hub`.
    """

    def __init__(
        self,
        settings: Settings,
        worker: str | None = None,
        observe_delivery: Callable[[int, int | None], None] = lambda _members, _at_ms: None,
        observe_gap: Callable[[int], None] = lambda _members: None,
    ) -> None:
        self.settings = settings
        self.worker = worker or f"process/{os.getpid()}-{secrets.token_hex(3)}"
        url = settings.message_redis_url
        self._redis = Redis.from_url(
            url,
            credential_provider=login_at(url, settings.redis_credentials),
            socket_timeout=2,
            socket_connect_timeout=2,
        )
        parts = urlsplit(url)
        self._control_redis = f"{parts.hostname}:{parts.port}"
        self.control = Control(self._redis)
        self.hub = Hub(observe_delivery, observe_gap)
        self.log = GroupLog(settings, self.hub, self.refresh)
        self.hub.log = self.log
        # As long as publish.lua has a log's place live.
        life_seconds = max(settings.idle_seconds, 2 * settings.history_seconds)
        self.presence = Presence(self.worker, self.hub, self.log, self._living, life_seconds)
        self.attendance = Attendance(self.presence, self.log)
        self.session = secrets.token_urlsafe(12)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._refresh_wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._registry: tuple[float, list[WorkerRecord]] = (float("-inf"), [])
        self._doubted_at = float("-inf")

    async def start(self) -> None:
        """Begin to follow the slot table, and with it the shards; returns at once, see `ready`."""
        self.loop = asyncio.get_running_loop()
        self._tasks = [
            keep_on(self._follow_table, "slot table"),
            keep_on(self.presence.run, "presence"),
            keep_on(self.attendance.run, "attendance"),
        ]

    def serve(self) -> None:
        """Make this the plane of the server that this process runs, which channel layers then use too."""
        global _serving
        _serving = self

    async def stop(self) -> None:
        """Disconnect from everything."""
        global _serving
        if _serving is self:
            _serving = None
        await end(self._tasks)
        await self.log.stop()
        await self._redis.aclose()

    @property
    def ready(self) -> bool:
        """Whether groups can be published to and subscribed: the table is known, all shards are up."""
        return self.log.ready

    async def until_ready(self, seconds: float = 10) -> None:
        """Wait until `ready`.

        Raises:
            TimeoutError: it was not within `seconds`.
        """
        async with asyncio.timeout(seconds):
            while not self.ready:
                await asyncio.sleep(0.02)

    def refresh(self) -> None:
        """Read the slot table again soon."""
        self._refresh_wanted.set()

    async def workers(self) -> list[WorkerRecord]:
        """Read the registry, at most half a second old; the last one known where the control Redis is down.

        Where it does not know this worker any more either, nobody is dead for that: it was away, or takes no writes.
        """
        read_at, records = self._registry
        if time.monotonic() - read_at > _REGISTRY_SECONDS:
            try:
                records = self._believed(await self.control.workers(), records)
                self._registry = (time.monotonic(), records)
            except (RedisError, OSError):
                self._doubted_at = time.monotonic()
        return records

    def _believed(self, found: list[WorkerRecord], before: list[WorkerRecord]) -> list[WorkerRecord]:
        """Give those who live, by what the registry says now and what it said before."""
        missing = {record.name for record in before} - {record.name for record in found}
        if self.worker in missing:
            self._doubted_at = time.monotonic()
        if time.monotonic() - self._doubted_at > _DOUBT_SECONDS:
            return found
        return [*found, *(record for record in before if record.name in missing)]

    async def _living(self) -> set[str]:
        return {record.name for record in await self.workers()}

    async def _follow_table(self) -> None:
        while True:
            self._refresh_wanted.clear()
            try:
                table = await self.control.table()
                if table is not None:
                    self.log.use(table)
                else:
                    self.log.no_table = f"there is none in {self._control_redis}: is a fleet's MESSAGE_REDIS_URL"
            except (RedisError, OSError) as error:
                self.log.no_table = f"{self._control_redis}: {str(error).rstrip('.')}. {_WHERE_TO_LOOK}"
                logger.warning("control redis: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._refresh_wanted.wait(), _POLL_SECONDS if self.log.table else 0.1)
            await asyncio.sleep(0.01)  # many reasons to look at once are one look

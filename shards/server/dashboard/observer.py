"""Looks at the control Redis once a second while somebody watches, and tells all who do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from redis.exceptions import RedisError

from shards.aio import end
from shards.router.control import Control
from shards.server.dashboard.figures import Reading, counts_of, shown

_EVERY_SECONDS = 1.0
_READINGS = 6
"""Rates and latencies are of the last five seconds: workers say how they do once a second, none at the same moment."""

_REPORTS = 8
_REPORT_LOOKS = 10
"""Seconds between two looks at the reports."""

_AWAY = msgspec.json.encode({"away": "the control Redis does not answer"})
_UNREADABLE = msgspec.json.encode({"away": "what the control Redis says is not understood: see this replica's log"})

Down = Callable[[], Awaitable[Sequence[str]]]
"""Names the Redis servers that do not answer."""

logger = logging.getLogger(__name__)


async def _nobody_asks() -> Sequence[str]:
    return ()


class Observer:
    """Watches the fleet for any number of watchers of one process.

    Args:
        reports: directory of the load scenarios' reports; None: there are none to tell of.
    """

    def __init__(self, reports: Path | None = None) -> None:
        self._reports_dir = reports
        self._reports: list[dict[str, Any]] = []
        self._reports_at = float("-inf")
        self._readings: deque[Reading] = deque(maxlen=_READINGS)
        self._next: asyncio.Future[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self._understood = True
        self.watchers = 0

    async def watch(self, control: Control, down: Down = _nobody_asks) -> AsyncGenerator[bytes, None]:
        """Give the newest view, JSON, each time there is one; who is slow misses some."""
        self.watchers += 1
        if self._task is None:
            self._next = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._look_on(control, down), name="dashboard")
        try:
            while self._next is not None:
                yield await asyncio.shield(self._next)
        finally:
            self.watchers -= 1
            if not self.watchers:
                await self._stop()

    async def _stop(self) -> None:
        task, self._task, self._next = self._task, None, None
        self._readings.clear()
        await end([task])

    async def _look_on(self, control: Control, down: Down) -> None:
        while True:
            seen = await self._look(control, down)
            told, self._next = self._next, asyncio.get_running_loop().create_future()
            if told is not None and not told.done():
                told.set_result(seen)
            await asyncio.sleep(_EVERY_SECONDS)

    async def _look(self, control: Control, down: Down) -> bytes:
        """Give a view; whatever goes wrong with it is told, since those who watch would not know that it is old."""
        try:
            self._readings.append(await self._read(control, down))
            earlier = self._readings[0] if len(self._readings) > 1 else None
            seen = shown(self._readings[-1], earlier)
            seen["reports"] = await self._known_reports()
            self._understood = True
            return msgspec.json.encode(seen)
        except (RedisError, OSError):
            away = _AWAY
        except Exception:
            # A record of another release, for instance.
            if self._understood:
                logger.exception("the dashboard does not understand what the registry says")
            away = _UNREADABLE
        self._readings.clear()
        self._understood = away is not _UNREADABLE
        return away

    async def _read(self, control: Control, down: Down) -> Reading:
        workers = await control.workers()
        samples = await control.metrics([worker.name for worker in workers])
        return Reading(
            time.monotonic(),
            workers,
            counts_of(samples),
            await control.table(),
            await control.journal(),
            await control.journal("reshard") is not None,
            await control.events(),
            await down(),
        )

    async def _known_reports(self) -> list[dict[str, Any]]:
        if self._reports_dir is not None and time.monotonic() - self._reports_at > _REPORT_LOOKS:
            self._reports = await asyncio.to_thread(newest_reports, self._reports_dir)
            self._reports_at = time.monotonic()
        return self._reports


class _Run(msgspec.Struct):
    """Of what `shards.load.history` keeps of a run: what is shown."""

    scenario: str
    started: str
    verdict: str
    connections: int
    delivered_per_s: float
    p99_ms: float
    wrong: int


def newest_reports(directory: Path) -> list[dict[str, Any]]:
    """Sum up the newest runs of load scenarios; what can't be read is left out."""
    runs = []
    for path in directory.glob("history/*/*.run.json"):
        try:
            runs.append(msgspec.json.decode(path.read_bytes(), type=_Run))
        except (OSError, msgspec.DecodeError):
            continue
    newest = sorted(runs, key=lambda run: run.started, reverse=True)[:_REPORTS]
    return [msgspec.to_builtins(run) for run in newest]

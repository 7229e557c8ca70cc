"""Where the sockets are, and who owns the slots: read from the service's own `/metrics`, every two seconds.

One request tells of the whole fleet, so watching costs it little; whoever serves no such page is not watched.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from time import monotonic
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_SETTLE_SECONDS = 30.0
_NAMES = ("app_active_connections", "shards_slots", "shards_ring_version")


def read(text: str) -> dict[str, Any] | None:
    """Read a `/metrics` page.

    Returns:
        ``replicas`` (name → sockets), ``colors`` (color → sockets), ``slots`` (shard → slots), ``version`` of the slot
        table; None where it is no such page.
    """
    lines = "\n".join(line for line in text.splitlines() if line.startswith(_NAMES)) + "\n"
    replicas: Counter[str] = Counter()
    colors: Counter[str] = Counter()
    slots: dict[str, int] = {}
    version = 0
    try:
        samples = [sample for family in text_string_to_metric_families(lines) for sample in family.samples]
    except ValueError:
        return None
    for sample in samples:
        match sample.name:
            case "app_active_connections":
                replicas[sample.labels.get("replica", "")] += int(sample.value)
                colors[sample.labels.get("color", "")] += int(sample.value)
            case "shards_slots":
                slots[sample.labels.get("shard", "")] = int(sample.value)
            case "shards_ring_version":
                version = max(version, int(sample.value))
    if not replicas and not slots:
        return None
    return {"replicas": dict(replicas), "colors": dict(colors), "slots": slots, "version": version}


class Spread:
    """Samples of a fleet's `/metrics`.

    Args:
        url: its address; None: nothing is sampled.

    Attributes:
        samples: what `read` gave, each with its time ``t``.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self.samples: list[dict[str, Any]] = []

    async def sample_forever(self, clock: Callable[[], float]) -> None:
        """Take a sample every two seconds, `clock` telling its time, until cancelled."""
        while self._url is not None:
            await self.sample(clock)
            await asyncio.sleep(_SECONDS)

    async def sample(self, clock: Callable[[], float]) -> None:
        """Take one sample; none where the service does not answer, or has no such page."""
        if self._url is None:
            return
        try:
            text = await asyncio.to_thread(_get, self._url)
        except (OSError, ValueError, HTTPException):
            return
        if found := read(text):
            self.samples.append({"t": round(clock(), 1), **found})

    def ring(self) -> dict[str, Any] | None:
        """Give the ring ``before`` and ``after``: slots of each shard, and the table's version."""
        known = [sample for sample in self.samples if sample["slots"]]
        if not known:
            return None
        first, last = known[0], known[-1]
        return {
            name: {key: one[key] for key in ("version", "slots")} for name, one in (("before", first), ("after", last))
        }


async def settled(url: str) -> None:
    """Wait until the service at this address holds no socket any more, 30 seconds at most."""
    spread = Spread(url)
    with suppress(TimeoutError):
        async with asyncio.timeout(_SETTLE_SECONDS):
            while True:
                await spread.sample(monotonic)
                if not spread.samples or not any(spread.samples[-1]["replicas"].values()):
                    return
                await asyncio.sleep(0.5)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:
        return str(answer.read().decode())

"""What each process takes: memory and CPU, sampled every second, and the files it has open, every five."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import psutil

from shards.load import containers
from shards.load.spread import Spread

_FILES_EVERY = 5


class Resources:
    """Samples named processes. One that ends keeps its samples; a name that comes back with another pid goes on.

    Args:
        spread: what else shall be sampled at the same time, by the same clock.
    """

    def __init__(self, spread: Spread | None = None) -> None:
        self._spread = spread or Spread(None)
        self._processes: dict[str, psutil.Process] = {}
        self._samples: dict[str, list[dict[str, float]]] = {}

    def add(self, name: str, pid: int) -> None:
        """Sample this process too; one that is gone already is left out."""
        try:
            process = psutil.Process(pid)
            process.cpu_percent()
        except psutil.Error:
            return
        if self._processes.get(name) != process:
            self._processes[name] = process

    def add_fleet(self, status: dict[str, Any]) -> None:
        """Sample what `inv status --json` names, and their children (workers)."""
        parts = containers.found(status)
        for part in itertools.chain.from_iterable(parts[kind] for kind in containers.KINDS):
            if part["pid"]:
                self._add_tree(part["name"], part["pid"])

    def _add_tree(self, name: str, pid: int) -> None:
        self.add(name, pid)
        try:
            for number, child in enumerate(psutil.Process(pid).children(recursive=True)):
                self.add(f"{name}/{number}", child.pid)
        except psutil.Error:
            return

    async def sample_forever(self, clock: Callable[[], float]) -> None:
        """Take a sample each second, `clock` telling its time, until cancelled."""
        spread = asyncio.create_task(self._spread.sample_forever(clock))
        try:
            for number in itertools.count():
                await asyncio.sleep(1.0)
                self.sample(clock(), files=number % _FILES_EVERY == 0)
        finally:
            spread.cancel()

    def sample(self, t: float, files: bool = False) -> None:
        """Take one sample of each process; with the number of its open `files`, which costs more to learn."""
        for name, process in list(self._processes.items()):
            try:
                with process.oneshot():
                    sample = {
                        "t": round(t, 1),
                        "rss_bytes": process.memory_info().rss,
                        "cpu_percent": process.cpu_percent(),
                    }
                    if files:
                        # Of other users' processes that is for root to know; what they take, for all.
                        with contextlib.suppress(psutil.AccessDenied):
                            sample["files"] = process.num_fds()
            except psutil.Error:
                del self._processes[name]
                continue
            self._samples.setdefault(name, []).append(sample)

    def report(self) -> list[dict[str, Any]]:
        """Give each process's maxima and samples, in the order they came."""
        return [
            {
                "name": name,
                "rss_max_bytes": max(sample["rss_bytes"] for sample in samples),
                "cpu_max_percent": max(sample["cpu_percent"] for sample in samples),
                "cpu_mean_percent": round(sum(s["cpu_percent"] for s in samples) / len(samples), 1),
                "files_max": max((int(s["files"]) for s in samples if "files" in s), default=0),
                "samples": samples,
            }
            for name, samples in self._samples.items()
        ]

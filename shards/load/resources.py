"""What each process takes: memory and CPU, sampled every second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psutil


class Resources:
    """Samples named processes. One that ends keeps its samples; a name that comes back with another pid goes on."""

    def __init__(self) -> None:
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
        for kind in ("edges", "replicas", "shards", "redis"):
            for part in status.get(kind, []):
                if part.get("pid"):
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
        while True:
            await asyncio.sleep(1.0)
            self.sample(clock())

    def sample(self, t: float) -> None:
        """Take one sample of each process."""
        for name, process in list(self._processes.items()):
            try:
                with process.oneshot():
                    rss, cpu = process.memory_info().rss, process.cpu_percent()
            except psutil.Error:
                del self._processes[name]
                continue
            sample = {"t": round(t, 1), "rss_bytes": rss, "cpu_percent": cpu}
            self._samples.setdefault(name, []).append(sample)

    def report(self) -> list[dict[str, Any]]:
        """Give each process's maxima and samples, in the order they came."""
        return [
            {
                "name": name,
                "rss_max_bytes": max(sample["rss_bytes"] for sample in samples),
                "cpu_max_percent": max(sample["cpu_percent"] for sample in samples),
                "cpu_mean_percent": round(sum(s["cpu_percent"] for s in samples) / len(samples), 1),
                "samples": samples,
            }
            for name, samples in self._samples.items()
        ]

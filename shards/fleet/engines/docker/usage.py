"""Measures what containers use: asks their daemons twice for their counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from docker.models.containers import Container

from shards.fleet.engines.docker import figures
from shards.fleet.engines.docker.daemon import errors
from shards.fleet.processes import Usage

_SAMPLE_S = 0.3

Moment = tuple[float, figures.Sample]


async def measure(containers: Mapping[str, Container]) -> dict[str, Usage]:
    """Give what containers use; one that ends meanwhile uses nothing."""
    before = await _samples(containers)
    await asyncio.sleep(_SAMPLE_S)
    after = await _samples(containers)
    return {
        name: figures.usage(before[name][1], sample, at - before[name][0], _cpus(containers[name]))
        for name, (at, sample) in after.items()
        if name in before
    }


async def _samples(containers: Mapping[str, Container]) -> dict[str, Moment]:
    answers = await asyncio.gather(
        *(asyncio.to_thread(_sample, one) for one in containers.values()), return_exceptions=True
    )
    return {name: said for name, said in zip(containers, answers, strict=True) if isinstance(said, tuple)}


def _sample(container: Container) -> Moment:
    with errors():
        said = container.client.api.stats(str(container.id), stream=False, one_shot=True)  # type: ignore[union-attr]
    return time.monotonic(), said if isinstance(said, dict) else {}


def _cpus(container: Container) -> float | None:
    nano = container.attrs.get("HostConfig", {}).get("NanoCpus")
    return nano / 1e9 if nano else None

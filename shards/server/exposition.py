"""Metrics of many workers as one Prometheus page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector


class Family(msgspec.Struct, array_like=True):
    """A metric's name, help, type, and samples: name, labels, value."""

    name: str
    help: str
    type: str
    samples: list[tuple[str, dict[str, str], float]]


def encode(registry: CollectorRegistry, labels: dict[str, str]) -> bytes:
    """Encode a worker's metrics for `render`.

    Args:
        registry: has the metrics.
        labels: added to every sample: color, replica, worker.
    """
    families = [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [(s.name, {**labels, **s.labels}, s.value) for s in metric.samples if not s.name.endswith("_created")],
        )
        for metric in registry.collect()
    ]
    return msgspec.json.encode(families)


def samples_of(workers: Iterable[bytes]) -> Iterator[tuple[str, str, Mapping[str, str], float]]:
    """Walk through what `encode` made in many workers.

    Yields:
        Of each sample: the worker's name in the registry, the sample's own, its labels and its value.
    """
    for data in workers:
        for family in msgspec.json.decode(data, type=list[Family]):
            for name, labels, value in family.samples:
                yield f"{labels['replica']}/{labels['worker']}", name, labels, value


def render(workers: Iterable[bytes], extra: Iterable[Family] = ()) -> bytes:
    """Write what `encode` made in many workers as one page of Prometheus text.

    Args:
        workers: one worker's metrics each.
        extra: metrics of the fleet as a whole.
    """
    merged: dict[str, Family] = {}
    said = [family for data in workers for family in msgspec.json.decode(data, type=list[Family])]
    for family in [*said, *extra]:
        known = merged.setdefault(family.name, Family(family.name, family.help, family.type, []))
        known.samples.extend(family.samples)
    registry = CollectorRegistry()
    registry.register(_Merged(merged.values()))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.help, family.type)
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
            yield metric

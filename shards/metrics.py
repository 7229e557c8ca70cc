"""What a worker counts. Nothing is dropped anywhere without one of these saying so."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shards import cgroup

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SELDOM_SECONDS = 10.0


ERROR_CODES = (
    *("bad_json", "bad_message", "bad_name", "bad_id", "bad_place", "bad_limit", "too_large", "rate_limited"),
    *("too_many_groups", "already_subscribed", "not_subscribed", "forbidden", "unavailable"),
    *("unauthorized", "bad_method"),
)
"""Of error frames, and of what the HTTP API refuses; see docs/design.md."""


HANDOFF_RESULTS = (
    *("given", "taken"),  # by the worker that had it, and by the one that has it now
    *("unfit", "busy", "refused", "failed"),  # it stayed: may not move, did not settle, was not wanted, something broke
    *("turned_back", "lost"),  # offered to this worker: and not given; and given, but it could not open it
    *("hinted", "closed", "late"),  # asked to reconnect, closed with 1012, and closed so when the drain's time was over
)


Buckets = Mapping[float, float]
"""A histogram: how many samples were at most so many seconds, by that bound."""


def quantile(buckets: Buckets, share: float) -> float:
    """Estimate a quantile of a histogram that has samples, in seconds, straight between the bounds of its bucket."""
    below, least, wanted = 0.0, 0.0, share * max(buckets.values())
    for bound, count in sorted(buckets.items()):
        if count >= wanted:
            return least if bound == float("inf") else least + (bound - least) * (wanted - below) / (count - below)
        below, least = count, bound
    return least


class Count(Collector):
    """A counter for the hot path: one addition, and no lock, since only one event loop a process counts with it."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self.value = 0
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Give the count to Prometheus."""
        yield CounterMetricFamily(self._name, self._documentation, value=self.value)


class Durations(Collector):
    """A histogram of durations for the hot path, as `Count` is a counter."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """Count a duration, in seconds."""
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterable[Metric]:
        """Give the histogram to Prometheus."""
        bounds = [*(str(float(bound)) for bound in _SECONDS), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class _Seldom(Collector):
    """Collects at most every ten seconds what takes long: open files are counted one by one, and are thousands."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._collected: list[Metric] = []
        self._at = float("-inf")

    def collect(self) -> Iterable[Metric]:
        if time.monotonic() - self._at > _SELDOM_SECONDS:
            self._collected, self._at = list(self._collector.collect()), time.monotonic()
        return self._collected


class _Limits(Collector):
    """What this process's container may use; nothing where it is in none."""

    def collect(self) -> Iterable[Metric]:
        memory, cpus = cgroup.memory_limit(), cgroup.cpu_limit()
        if memory is not None:
            yield GaugeMetricFamily("app_memory_limit_bytes", "Memory that a replica's container may use", memory)
        if cpus is not None:
            yield GaugeMetricFamily("app_cpu_limit_cores", "Cores that a replica's container may use", cpus)


REFUSALS = ("full", "forbidden", "too_many")
"""Why a handshake was refused."""


class Span(Collector):
    """When something happened first and last, as Unix times; nothing until it has."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name, self._documentation = name, documentation
        self._first = self._last = 0.0
        registry.register(self)

    def mark(self) -> None:
        """It happens now."""
        self._last = time.time()
        self._first = self._first or self._last

    def collect(self) -> Iterable[Metric]:
        """Give both times to Prometheus."""
        if self._first:
            for which, moment in (("first", self._first), ("last", self._last)):
                name = f"{self._name}_{which}_timestamp_seconds"
                yield GaugeMetricFamily(name, f"{self._documentation}: the {which} one", value=moment)


class Metrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(_Seldom(ProcessCollector(registry=None)))
        registry.register(_Seldom(_Limits()))
        self.connections = Gauge("app_active_connections", "WebSockets open", registry=registry)
        self.connections_total = Counter("app_connections_total", "WebSockets accepted", registry=registry)
        self.refused = Counter("app_connections_refused_total", "WebSockets refused", ["reason"], registry=registry)
        self.published = Count("app_messages_published_total", "Messages put into logs", registry)
        self.delivered = Count("app_messages_delivered_total", "Messages written to sockets", registry)
        self.publish_seconds = Durations("app_publish_seconds", "From a publish's arrival to its ack", registry)
        self.delivery_seconds = Durations(
            "app_delivery_seconds",
            "From the shard's clock at the publish to the write to the last local socket, once a message and worker",
            registry,
        )
        self.slow = Counter(
            "app_slow_consumers_closed_total", "Sockets closed since they read too slowly", registry=registry
        )
        self.gaps = Counter("app_gaps_total", "Gap frames: history a subscriber wanted was gone", registry=registry)
        self.errors = Counter(
            "app_errors_total", "Error frames and refused API requests, by code", ["code"], registry=registry
        )
        self.failures = Counter(
            "app_failures_total",
            "Exceptions of the app, and its HTTP answers of 500 and more",
            ["kind"],
            registry=registry,
        )
        for kind in ("http", "websocket"):
            self.failures.labels(kind)
        self.handoffs = Counter(
            "app_handoff_total",
            "Sockets that changed, or should have changed, their worker, by result",
            ["result"],
            registry=registry,
        )
        self.handoff_seconds = Durations(
            "app_handoff_seconds",
            "Of a socket taken from another worker: for how long nobody read from it, tries that failed included",
            registry,
        )
        self.handoff_span = Span("app_handoff", "When a socket was taken from another worker", registry)
        # A counter that is first seen at 1 has never risen, as Prometheus sees it.
        for reason in REFUSALS:
            self.refused.labels(reason)
        for code in ERROR_CODES:
            self.errors.labels(code)
        for result in HANDOFF_RESULTS:
            self.handoffs.labels(result)
        self.layer_dropped = Counter(
            "app_layer_dropped_total",
            "Channel-layer messages dropped or refused: at capacity, expired, to a channel that is gone, or not known "
            "to have reached the named channels of a group",
            registry=registry,
        )
        self.shard_losses = Counter("shards_connection_losses_total", "Lost connections to shards", registry=registry)
        self.ring_version = Gauge("shards_ring_version", "Version of the slot table in use", registry=registry)


METRICS = Metrics()
"""This process's metrics."""

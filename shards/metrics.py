"""What a worker counts. Nothing is dropped anywhere without one of these saying so."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


ERROR_CODES = (
    *("bad_json", "bad_message", "bad_name", "bad_id", "bad_place", "bad_limit", "too_large", "rate_limited"),
    *("too_many_groups", "already_subscribed", "not_subscribed", "forbidden", "unavailable"),
    *("unauthorized", "bad_method"),
)
"""Of error frames, and of what the HTTP API refuses; see docs/design.md."""


class Metrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.connections = Gauge("app_active_connections", "WebSockets open", registry=registry)
        self.connections_total = Counter("app_connections_total", "WebSockets accepted", registry=registry)
        self.refused = Counter("app_connections_refused_total", "WebSockets refused", ["reason"], registry=registry)
        self.published = Counter("app_messages_published_total", "Messages put into logs", registry=registry)
        self.delivered = Counter("app_messages_delivered_total", "Messages written to sockets", registry=registry)
        self.publish_seconds = Histogram(
            "app_publish_seconds", "From a publish's arrival to its ack", buckets=_SECONDS, registry=registry
        )
        self.delivery_seconds = Histogram(
            "app_delivery_seconds",
            "From the shard's clock at the publish to the write to the last local socket, once a message and worker",
            buckets=_SECONDS,
            registry=registry,
        )
        self.slow = Counter(
            "app_slow_consumers_closed_total", "Sockets closed since they read too slowly", registry=registry
        )
        self.gaps = Counter("app_gaps_total", "Gap frames: history a subscriber wanted was gone", registry=registry)
        self.errors = Counter(
            "app_errors_total", "Error frames and refused API requests, by code", ["code"], registry=registry
        )
        self.handoffs = Counter(
            "app_handoff_total", "Sockets sent elsewhere by a drain, by result", ["result"], registry=registry
        )
        for code in ERROR_CODES:
            self.errors.labels(code)
        for result in ("hinted", "closed"):
            self.handoffs.labels(result)
        self.layer_dropped = Counter(
            "app_layer_dropped_total",
            "Channel-layer messages dropped: at capacity, expired, or sent to a channel that is gone",
            registry=registry,
        )
        self.shard_losses = Counter("shards_connection_losses_total", "Lost connections to shards", registry=registry)
        self.ring_version = Gauge("shards_ring_version", "Version of the slot table in use", registry=registry)


METRICS = Metrics()
"""This process's metrics."""

"""Is a canary well? Compares what two colors did in the same time. Pure.

A criterion fails where the new color's figure is above ``factor`` times the old one's plus an allowance, so that
a color which does next to nothing is not judged by the noise of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shards.metrics import Buckets, quantile

ENOUGH_SAMPLES = 100
"""Of a histogram of fewer, nobody knows the 99th percentile."""

ENOUGH_FAILURES = 3

SOCKET_BYTES = 64 * 1024
"""What a replica may grow by for each socket that it gained."""


@dataclass(frozen=True)
class Limits:
    """What a canary is judged by.

    Attributes:
        seconds: for how long it is watched.
        factor: how many times the old color's figure the new one's may be,
        failed: plus this share of requests that failed,
        p99_ms: plus so many milliseconds of a publish or a delivery at the 99th percentile,
        grown_mb: plus so many MiB that a replica grew by, beyond what its new sockets explain.
    """

    seconds: float = 30.0
    factor: float = 2.0
    failed: float = 0.01
    p99_ms: float = 25.0
    grown_mb: float = 64.0


@dataclass(frozen=True)
class Figures:
    """What a color did since the canary began.

    Attributes:
        opened: sockets accepted.
        published: messages.
        failures: error frames, refused handshakes, exceptions of the app, HTTP answers of 500 and more.
        latencies: histograms, by what they measure.
        grown_bytes: what the replica that grew most has grown by, beyond `SOCKET_BYTES` for each socket gained.
    """

    opened: float = 0
    published: float = 0
    failures: float = 0
    latencies: Mapping[str, Buckets] = field(default_factory=dict)
    grown_bytes: float = 0

    @property
    def failed(self) -> float:
        """The share of what was asked of it that failed."""
        return self.failures / max(1.0, self.opened + self.published + self.failures)

    def p99_ms(self, what: str) -> float | None:
        """The 99th percentile of a latency, in milliseconds; None: too few samples."""
        buckets = self.latencies.get(what, {})
        if max(buckets.values(), default=0) < ENOUGH_SAMPLES:
            return None
        return quantile(buckets, 0.99) * 1000


def ailment(old: Figures, new: Figures, limits: Limits) -> str | None:
    """Say in what the new color is worse than it may be; None: in nothing."""
    if new.failures >= ENOUGH_FAILURES and new.failed > limits.factor * old.failed + limits.failed:
        return f"{new.failed:.1%} of what it was asked failed, and {old.failed:.1%} of what the old color was"
    for what in sorted(new.latencies):
        mine, other = new.p99_ms(what), old.p99_ms(what)
        if mine is not None and other is not None and mine > limits.factor * other + limits.p99_ms:
            return f"the p99 of a {what} is {mine:.0f} ms, and {other:.0f} ms in the old color"
    if new.grown_bytes > limits.factor * max(0.0, old.grown_bytes) + limits.grown_mb * 2**20:
        return (
            f"a replica grew by {new.grown_bytes / 2**20:.0f} MiB beyond what its sockets take, and by "
            f"{max(0.0, old.grown_bytes) / 2**20:.0f} MiB in the old color"
        )
    return None


def summary(new: Figures) -> str:
    """Say what there was to judge by."""
    if not new.opened and not new.published:
        return "no socket came to it, so that there was little to judge by"
    known = [f"p99 of a {what} {p99:.0f} ms" for what in sorted(new.latencies) if (p99 := new.p99_ms(what)) is not None]
    return ", ".join(
        [f"{new.opened:,.0f} sockets, {new.published:,.0f} publishes, {new.failed:.1%} of them failed", *known]
    )

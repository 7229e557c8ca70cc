"""What the server counted: its own counters, read from each replica while a tool loads it.

Each replica is asked itself (``/metrics?scope=replica``): what one tells of the others may be two seconds old, which is
much beside a rate that shall be right to a few percent.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Sequence
from types import TracebackType

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from shards.errors import ShardsError

_EVERY_SECONDS = 0.2
_ANSWER_SECONDS = 5.0
_QUIET_SECONDS = 30.0
_FROM, _TO = 0.1, 0.9
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_FIELDS = {
    "app_active_connections": "open",
    "app_connections_total": "connected",
    "app_messages_published_total": "published",
    "app_messages_delivered_total": "delivered",
    "app_publish_seconds_sum": "publish_s",
    "app_publish_seconds_count": "publishes",
}


class Counts(msgspec.Struct):
    """The counters of all replicas together.

    Attributes:
        t: when they were read, in seconds.
        open: sockets open then.
        connected, published, delivered: since the replicas started.
        publish_s: seconds from a publish's arrival to its ack, summed over `publishes`.
    """

    t: float
    open: float = 0
    connected: float = 0
    published: float = 0
    delivered: float = 0
    publish_s: float = 0
    publishes: float = 0


def read(t: float, pages: Sequence[str]) -> Counts:
    """Sum up the `/metrics` pages of all replicas.

    Raises:
        ShardsError: one lacks a counter, so that it is no page of ours.
    """
    counts = Counts(t)
    for page in pages:
        lines = "\n".join(line for line in page.splitlines() if line.startswith(tuple(_FIELDS))) + "\n"
        found = {
            sample.name: sample.value for family in text_string_to_metric_families(lines) for sample in family.samples
        }
        if missing := _FIELDS.keys() - found.keys():
            raise ShardsError(f"/metrics does not tell {', '.join(sorted(missing))}")
        for name, field in _FIELDS.items():
            setattr(counts, field, getattr(counts, field) + found[name])
    return counts


def pace(points: Sequence[tuple[float, float]]) -> float:
    """Give a counter's rate a second while it went from a tenth to nine tenths of its way; 0: it stood still.

    So neither the beginning nor the end has a say in it, nor how long was waited before and after. Between two
    readings it is taken to be straight.

    Args:
        points: (seconds, count), in order.
    """
    first, last = points[0][1], points[-1][1]
    low, high = (first + part * (last - first) for part in (_FROM, _TO))
    if high <= low:
        return 0.0
    return (high - low) / (_reached(points, high) - _reached(points, low))


def _reached(points: Sequence[tuple[float, float]], count: float) -> float:
    """Tell when a counter reached `count`."""
    before = points[0]
    for point in points[1:]:
        if point[1] >= count:
            part = (count - before[1]) / (point[1] - before[1]) if point[1] > before[1] else 0.0
            return before[0] + part * (point[0] - before[0])
        before = point
    raise ValueError(f"{count} was never reached")


def figures(readings: Sequence[Counts]) -> dict[str, float]:
    """Give `plan.FIGURES` of one tool's turn."""
    first, last = readings[0], readings[-1]

    def rate(field: str) -> float:
        return round(pace([(one.t, getattr(one, field)) for one in readings]), 2)

    return {
        "sockets": last.connected - first.connected,
        "sockets_at_once": max(one.open for one in readings),
        "connects_per_s": rate("connected"),
        "published": last.published - first.published,
        "published_per_s": rate("published"),
        "delivered": last.delivered - first.delivered,
        "delivered_per_s": rate("delivered"),
    }


def publish_ms(readings: Sequence[Counts]) -> float:
    """Give the mean time from a publish's arrival at the server to its ack, in milliseconds."""
    first, last = readings[0], readings[-1]
    publishes = last.publishes - first.publishes
    return round(1000 * (last.publish_s - first.publish_s) / publishes, 3) if publishes else 0.0


class Referee:
    """Reads the counters again and again, from a thread. Use as a context manager around a tool's turn.

    Args:
        ports: of the replicas.

    Attributes:
        readings: in order; the first from before the turn, the last from after it.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="referee")
        self._failed: BaseException | None = None
        self.readings: list[Counts] = []

    def __enter__(self) -> Referee:
        self.readings.append(self._quiet())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if value is not None:
            return
        if self._failed is not None:
            raise self._failed
        self.readings.append(self._quiet())

    def _quiet(self) -> Counts:
        """Wait until the sockets of whoever was there before are gone; give the counters then.

        Raises:
            ShardsError: they do not go.
        """
        deadline = time.monotonic() + _QUIET_SECONDS
        while (counts := self._read()).open:
            if time.monotonic() > deadline:
                raise ShardsError(f"{counts.open:.0f} sockets are still open {_QUIET_SECONDS:.0f} s after the load")
            time.sleep(_EVERY_SECONDS)
        return counts

    def _run(self) -> None:
        try:
            while not self._over.wait(_EVERY_SECONDS):
                self.readings.append(self._read())
        except Exception as error:
            self._failed = error

    def _read(self) -> Counts:
        return read(time.monotonic(), [self._page(port) for port in self._ports])

    def _page(self, port: int) -> str:
        try:
            with _OPENER.open(f"http://127.0.0.1:{port}/metrics?scope=replica", timeout=_ANSWER_SECONDS) as answer:
                return str(answer.read(), "utf-8")
        except OSError as error:
            raise ShardsError(f"the replica on port {port} does not tell what it counted: {error}") from error

"""One load on a peer that runs: what the generator saw, and what each tier took meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterable

import msgspec
import psutil

from bench.peers.base import TIERS, Started
from shards.fleet.processes import cpu_seconds, rss
from shards.load.coordinator import Coordinator, Load, Outcome, Second
from shards.load.report import delivered_per_s, saturated
from shards.load.resources import Resources


class Tier(msgspec.Struct):
    """What a tier took.

    Attributes:
        cpu_us: from the first publish until the last message had come, for each that was delivered.
        idle_bytes: memory when all sockets were connected, less what it took before; for each socket.
    """

    cpu_us: float
    idle_bytes: float


class Seen(msgspec.Struct):
    """What a load came to.

    Attributes:
        rate: messages delivered a second that were asked for; 0: as many as go, in a closed loop.
        connections: that were asked for, and `opened`, that came about.
        connect_per_s: of these, a second.
        delivered_per_s: in the load's whole seconds.
        published: messages sent; `unacked` of these were refused, or not answered, where the peer's protocol has acks.
        expected: deliveries that were to be made; `lost` of these were not.
        saturated: the generator was at its end, so that the figures may be its own.
        errors: what went wrong, in words.
        tiers: name → what it took.
        passed: whether that is what was asked for; `missed` says what was not, in words.
    """

    rate: float
    connections: int
    opened: int
    connect_per_s: float
    delivered_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    published: int
    unacked: int
    expected: int
    lost: int
    duplicated: int
    reordered: int
    saturated: bool
    errors: list[str]
    tiers: dict[str, Tier]
    passed: bool = True
    missed: str = ""


class Meter:
    """A `Watch` that reads each tier's CPU time and memory where the phases of a load meet."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._memory = {tier: rss(_tree(started.tiers[tier])) for tier in TIERS}
        self._cpu: dict[str, dict[str, float]] = {}
        self.idle = dict.fromkeys(TIERS, 0.0)

    def phase(self, name: str) -> None:
        """A phase begins."""
        trees = {tier: _tree(self._started.tiers[tier]) for tier in TIERS}
        self._cpu[name] = {tier: cpu_seconds(tree) for tier, tree in trees.items()}
        if name == "load":
            self.idle = {tier: float(rss(tree) - self._memory[tier]) for tier, tree in trees.items()}

    def second(self, number: int, second: Second) -> None:
        """A second is complete."""

    def event(self, text: str) -> None:
        """Something happened."""

    async def look(self) -> None:
        """All has come, or was given up; the sockets are still open."""
        self.phase("end")

    def cpu_seconds(self, tier: str) -> float:
        """Give the CPU time that a tier took from the first publish until the last message had come."""
        if "load" not in self._cpu or "end" not in self._cpu:
            return 0.0
        return max(0.0, self._cpu["end"][tier] - self._cpu["load"][tier])


def _tree(pids: Iterable[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            found += [root, *root.children(recursive=True)]
    return found


def measure(load: Load, started: Started) -> Seen:
    """Run a load.

    Raises:
        KeyboardInterrupt: someone stopped it.
        ShardsError: the generator did not start.
    """
    meter = Meter(started)
    before = signal.getsignal(signal.SIGTERM)
    try:
        outcome = asyncio.run(_run(load, meter))
    except asyncio.CancelledError:
        # Stopped while the generator was still starting: there is no outcome yet.
        raise KeyboardInterrupt from None
    finally:
        # The loop leaves it at the system's default, which would end us and nothing that we started.
        signal.signal(signal.SIGTERM, before)
    if outcome.aborted:
        raise KeyboardInterrupt
    return _seen(load, outcome, meter)


async def _run(load: Load, meter: Meter) -> Outcome:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await Coordinator(load, Resources(), meter, meter.look).run()


def _seen(load: Load, outcome: Outcome, meter: Meter) -> Seen:
    tally, latency = outcome.tally, outcome.latency
    p50, p99 = latency.percentiles_ms([50, 99])
    failures = [f"{count} connections: {reason}" for reason, count in outcome.failures.most_common(3)]
    errors = [f"{count} x {kind} {outcome.examples.get(kind, '')}" for kind, count in outcome.errors.most_common(3)]
    return Seen(
        rate=0 if load.looping else load.rate,
        connections=load.connections,
        opened=outcome.opened,
        connect_per_s=_per(outcome.opened, outcome.connect_s),
        delivered_per_s=delivered_per_s(outcome) or 0.0,
        p50_ms=p50,
        p99_ms=p99,
        max_ms=latency.max_ms,
        published=tally.published,
        unacked=tally.published - tally.acked - tally.ackless,
        expected=tally.expected,
        lost=tally.lost + tally.skipped,
        duplicated=tally.duplicated,
        reordered=tally.reordered,
        saturated=bool(saturated(outcome, load.lag_ms)),
        errors=[*outcome.problems, *failures, *errors],
        tiers={
            tier: Tier(
                cpu_us=_per(1e6 * meter.cpu_seconds(tier), tally.delivered),
                idle_bytes=_per(meter.idle[tier], outcome.opened),
            )
            for tier in TIERS
        },
    )


def _per(amount: float, units: float) -> float:
    return round(amount / units, 3) if units else 0.0

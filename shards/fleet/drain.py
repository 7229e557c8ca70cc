"""Moving sockets off replicas: the order to drain, and the wait until the registry says that none is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from shards.errors import ShardsError
from shards.fleet.engines.base import Engine, Running
from shards.fleet.fleet import Fleet
from shards.fleet.health import lives
from shards.fleet.probe import insist, until
from shards.router.control import Control, Orders, WorkerRecord
from shards.server.exposition import Family

MARGIN_S = 10.0
"""What a drain may take beyond its window: orders travel with heartbeats, and so does the count that is left."""

SPEAKS_S = 5.0
"""Within which a worker that lives says so, also after the control Redis was away."""


class TakerDied(ShardsError):
    """A worker died that sockets were moved to: the rest stays where it is.

    Args:
        died: its last word to the registry.
        left: sockets that have not moved.
    """

    def __init__(self, died: WorkerRecord, left: int) -> None:
        super().__init__(
            f"{died.replica} died while sockets moved to it, and up to {died.connections:,} of them with it (their "
            f"clients come back); {left:,} stay where they are: see `inv logs {died.replica}`"
        )


@dataclass(frozen=True)
class Drained:
    """How a drain ended.

    Attributes:
        given: sockets that were handed over alive.
        hinted: sockets whose clients were asked to reconnect.
        closed: sockets that were closed; some of these clients had been asked before.
        late: sockets that were closed at once, since the window was over.
        left: sockets that are still there.
        cut: sockets, at the most, that ended with a worker that died meanwhile.
    """

    given: int = 0
    hinted: int = 0
    closed: int = 0
    late: int = 0
    left: int = 0
    cut: int = 0

    @property
    def summary(self) -> str:
        """Say what became of the sockets."""
        return (
            f"{self.given:,} sockets handed over alive, {self.hinted:,} asked to reconnect, "
            f"{self.closed + self.late:,} closed"
        )

    def told(self, whom: str) -> str | None:
        """Say what was not done in time; None: nothing.

        Args:
            whom: has drained.
        """
        said = []
        if self.late or self.left:
            said.append(f"{self.late:,} sockets were closed at once when the window was over")
        if self.left:
            said.append(f"{self.left:,} did not leave: they end with it")
        if self.cut:
            said.append(f"a worker died meanwhile, and up to {self.cut:,} sockets with it: their clients come back")
        return f"{whom}: {', and '.join(said)}" if said else None


def draining(seconds: float, to: Collection[str]) -> Orders:
    """Give the order to drain within `seconds`, and to hand over to the replicas `to` what can be."""
    return Orders("draining", round(seconds * 1000), tuple(to))


def is_followed(worker: WorkerRecord, others: Iterable[WorkerRecord]) -> bool:
    """Tell whether its process has ended since another of the same number began, as happens in a container."""
    number = (worker.replica, worker.pid)
    return any((one.replica, one.pid) == number and one.started > worker.started for one in others)


@dataclass
class _Gauge:
    """What is known of the workers that drain.

    The registry forgets a worker that is silent for some seconds, and is empty for a moment where the control Redis was
    away for so long. Neither means that it has no sockets any more.

    Attributes:
        replicas: names of those that drain.
        known: the last that each of their workers said, by its name.
        silent: of these, those that live and say nothing now.
        left: sockets that are still there, by the last that was said of them.
        cut: sockets of those that have died, by the last that they said.
        since: when it began, by the monotonic clock.
    """

    replicas: Collection[str]
    known: dict[str, WorkerRecord] = field(default_factory=dict)
    silent: list[WorkerRecord] = field(default_factory=list)
    left: int = 0
    cut: int = 0
    since: float = field(default_factory=time.monotonic)

    def read(self, records: Collection[WorkerRecord], running: Mapping[str, Running]) -> bool:
        """Take note of what the registry and the engine say; gives whether no socket is left for certain."""
        records = [record for record in records if record.replica in self.replicas]
        speak = {record.name: record for record in records}
        self.known |= speak
        quiet = [one for one in self.known.values() if one.name not in speak]
        self.silent = [one for one in quiet if lives(one, running) and not is_followed(one, self.known.values())]
        self.left = sum(one.connections for one in (*records, *self.silent))
        self.cut = sum(one.connections for one in quiet) - sum(one.connections for one in self.silent)
        if self.left or self.silent or self._yet_to_speak(running):
            return False
        # One that has not read its orders yet may still take a socket; one that never got ready has none.
        return all(record.state in {"draining", "starting"} for record in records)

    def _yet_to_speak(self, running: Mapping[str, Running]) -> bool:
        """Tell whether a replica runs of which nothing was heard, and it is too soon to say that it has nothing."""
        heard = {record.replica for record in self.known.values()}
        unheard = [name for name in self.replicas if name not in heard and name in running and running[name].up]
        return bool(unheard) and time.monotonic() - self.since < SPEAKS_S


@dataclass
class _Takers:
    """Those who get the sockets.

    Attributes:
        replicas: their names.
        known: the last that each of their workers said that was seen alive, by its name.
    """

    replicas: Collection[str]
    known: dict[str, WorkerRecord] = field(default_factory=dict)

    def dead(self, records: Collection[WorkerRecord], running: Mapping[str, Running]) -> WorkerRecord | None:
        """Give one that has died since it was first seen, as far as this host can tell; the registry knows it later."""
        # Of a container that was started again the registry may still name the last process.
        there = [one for one in records if one.replica in self.replicas and not is_followed(one, records)]
        self.known |= {one.name: one for one in there if lives(one, running)}
        speak = {one.name for one in there}
        return next((one for one in self.known.values() if _is_dead(one, one.name in speak, there, running)), None)


def _is_dead(
    worker: WorkerRecord, speaks: bool, there: Collection[WorkerRecord], running: Mapping[str, Running]
) -> bool:
    """Tell whether a worker has died; where that can't be seen from here, it has once it says nothing either."""
    part = running.get(worker.replica, Running(False))
    seen = part.up and part.container is None and not lives(worker, running)
    return seen or is_followed(worker, there) or not (speaks or lives(worker, running))


async def drain(
    fleet: Fleet,
    engine: Engine,
    control: Control,
    orders: Mapping[str, Orders | None],
    drained: Collection[str],
    seconds: float,
    back: Mapping[str, Orders | None],
) -> Drained:
    """Give orders and wait until the replicas that drain have no socket any more.

    Args:
        fleet: is told how many are left.
        engine: knows which of them run.
        control: where orders are given and counts are read.
        orders: what to order.
        drained: names of the replicas that must become empty.
        seconds: the window of the drain.
        back: what to order so that it stops.

    Raises:
        TakerDied: what the sockets go to does not bear them. It has stopped then.
    """
    before = await _results(control, await _workers(control, drained))
    await insist(lambda: control.order(orders))
    gauge = _Gauge(drained)
    takers = _Takers({name for order in orders.values() if order for name in order.to})
    any_to_move = False

    async def empty() -> bool:
        nonlocal any_to_move
        records, running = await insist(control.workers), await engine.running()
        done = gauge.read(records, running)
        any_to_move |= gauge.left > 0
        fleet.say(f"draining: {gauge.left:,} sockets left on {len(drained)} replicas")
        if (died := takers.dead(records, running)) and any_to_move:
            # Each further one might be cut as well.
            await insist(lambda: control.order(back))
            raise TakerDied(died, gauge.left)
        return done

    await until(empty, seconds + MARGIN_S, every_s=0.2)
    # What a worker counted is gone with it: a difference of counters leaves such results out.
    results = await _results(control, await _workers(control, drained)) - before
    return Drained(results["given"], results["hinted"], results["closed"], results["late"], gauge.left, gauge.cut)


async def _workers(control: Control, replicas: Collection[str]) -> list[WorkerRecord]:
    return [record for record in await insist(control.workers) if record.replica in replicas]


async def _results(control: Control, workers: Collection[WorkerRecord]) -> Counter[str]:
    """Count what became of these workers' sockets so far."""
    results: Counter[str] = Counter()
    for data in await insist(lambda: control.metrics([worker.name for worker in workers])):
        for family in msgspec.json.decode(data, type=list[Family]):
            for name, labels, value in family.samples:
                if name == "app_handoff_total":
                    results[labels["result"]] += int(value)
    return results

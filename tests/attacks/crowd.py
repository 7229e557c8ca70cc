"""Ordinary clients: groups of ten that talk all the while, and notice what is wrong. A process of its own.

Beside them, newcomers: some a second that connect, join a group, and are gone again, as a service's clients do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvloop
import websockets

from shards.client import Client, Event, Gap, Lost, Subscribed, connect

GROUP_SIZE = 10
SETTLE_S = 5.0
"""How long messages may be on their way at the end of a window."""

NEWCOMERS = 5
"""How many connect each second."""

CONNECT_S = 4.0
"""Within which they have to be in their group; less than a window waits for them."""


@dataclass
class Window:
    """What clients saw of the messages that were due in a stretch of time.

    Attributes:
        latencies_ms: of each delivery, from when its message was due.
        lags_ms: how late this process itself was with each publish.
        acked: the messages that are in a log.
        pending: those that nobody knows of yet.
        connects_ms: how long each newcomer took until it was in its group, from when it was due.
        connecting: newcomers who are on their way.
        heard: deliveries of each.
        count: of what was wrong.
    """

    latencies_ms: list[float] = field(default_factory=list)
    lags_ms: list[float] = field(default_factory=list)
    acked: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    connects_ms: list[float] = field(default_factory=list)
    connecting: int = 0
    heard: Counter[str] = field(default_factory=Counter)
    count: Counter[str] = field(default_factory=Counter)

    def lost(self) -> int:
        """Count deliveries of acked messages that did not come."""
        return sum(max(0, GROUP_SIZE - self.heard[id]) for id in self.acked)

    def settled(self) -> bool:
        """Tell whether nothing is on its way."""
        return not self.pending and not self.connecting and not self.lost()

    def wrong(self) -> dict[str, int]:
        """Count what went wrong with messages and sockets."""
        return {
            "lost": self.lost(),
            "doubled": sum(max(0, times - GROUP_SIZE) for times in self.heard.values()),
            "unacked": len(self.pending),
            **{name: self.count[name] for name in ("reconnects", "gaps", "refused")},
        }

    def told(self) -> dict[str, Any]:
        """Sum it up."""
        return {
            "published": len(self.acked),
            "delivered": len(self.latencies_ms),
            **self.wrong(),
            "p50_ms": quantile(self.latencies_ms, 0.50),
            "p99_ms": quantile(self.latencies_ms, 0.99),
            "max_ms": quantile(self.latencies_ms, 1.0),
            "lag_p99_ms": quantile(self.lags_ms, 0.99),
            "connects": len(self.connects_ms) + self.count["connects_failed"],
            "connects_failed": self.count["connects_failed"],
            "connect_p99_ms": quantile(self.connects_ms, 0.99),
        }


def quantile(values: list[float], share: float) -> float | None:
    """Give the value that this share of all is not above; None where there is none."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


class Crowd:
    """So many clients, of which one after the other publishes.

    Args:
        url: of the fleet's WebSocket.
        number: of clients, a multiple of `GROUP_SIZE`.
        rate: publishes a second.
        groups: in which they talk, one for each ten; empty: any.
    """

    def __init__(self, url: str, number: int, rate: float, groups: Sequence[str] = ()) -> None:
        self.url, self.number, self.rate = url, number, rate
        self.groups = groups or [f"crowd-{number}" for number in range(number // GROUP_SIZE)]
        self.windows = [Window()]
        self.clients: dict[int, Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Connect and say so; then tell of a window at each line that comes, and begin another one, until the end."""
        for number in range(self.number):
            self._start(self._follow(number))
        while len(self.clients) < self.number:
            await asyncio.sleep(0.05)
        self._start(self._publish())
        self._start(self._come_anew())
        _say({"ready": self.number})
        while await orders.readline():
            window = self.windows[-1]
            self.windows.append(Window())
            until = time.monotonic() + SETTLE_S
            while not window.settled() and time.monotonic() < until:
                await asyncio.sleep(0.02)
            _say(window.told() | {"ever": self._ever()})
        for task in self._tasks:
            task.cancel()

    def _ever(self) -> dict[str, int]:
        """Count what went wrong since the beginning: of messages that waited too, and came later or not at all."""
        ever: Counter[str] = Counter()
        for window in self.windows[:-1]:
            ever.update(window.wrong())
        return dict(ever)

    def _group(self, number: int) -> str:
        return self.groups[number // GROUP_SIZE]

    def _start(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, number: int) -> None:
        def observe(event: Event) -> None:
            if isinstance(event, Subscribed):
                self.clients[number] = client
            self.windows[-1].count["reconnects"] += isinstance(event, Lost)

        client = connect(self.url, observe=observe, open_seconds=30)
        async with client, client.subscribe(self._group(number)) as items:
            async for item in items:
                if isinstance(item, Gap):
                    self.windows[-1].count["gaps"] += 1
                else:
                    window = self.windows[item.data["window"]]
                    window.latencies_ms.append(time.monotonic() * 1000 - item.data["due_ms"])
                    window.heard[item.id] += 1

    async def _publish(self) -> None:
        """Open loop: what is due is published, whether the last one is acked or not."""
        began = time.monotonic()
        for count in itertools.count():
            due = began + count / self.rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self.windows[-1].lags_ms.append((time.monotonic() - due) * 1000)
            self._start(self._publish_one(count * 7919 % self.number, str(count), due * 1000))

    async def _publish_one(self, number: int, id: str, due_ms: float) -> None:
        window, index = self.windows[-1], len(self.windows) - 1
        window.pending.add(id)
        try:
            await self.clients[number].publish(self._group(number), {"due_ms": due_ms, "window": index}, id=id)
        except Exception:
            window.count["refused"] += 1
        else:
            window.acked.add(id)
        window.pending.discard(id)

    async def _come_anew(self) -> None:
        """Open loop as well: who is let wait keeps nobody else from coming."""
        began = time.monotonic()
        for count in itertools.count():
            due = began + count / NEWCOMERS
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._start(self._newcomer(self.groups[count % len(self.groups)], due))

    async def _newcomer(self, group: str, due: float) -> None:
        window = self.windows[-1]
        window.connecting += 1
        try:
            async with asyncio.timeout(CONNECT_S), websockets.connect(self.url) as socket:
                await socket.send(json.dumps({"type": "subscribe", "group": group}))
                while json.loads(await socket.recv())["type"] != "subscribed":
                    pass
                took = time.monotonic() - due
        except (OSError, websockets.WebSocketException):
            window.count["connects_failed"] += 1
        else:
            window.connects_ms.append(took * 1000)
        finally:
            window.connecting -= 1


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)


async def _main(url: str, number: str, rate: str, *groups: str) -> None:
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await Crowd(url, int(number), float(rate), groups).run(orders)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))

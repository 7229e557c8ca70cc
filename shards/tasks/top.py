"""`inv top`: what the dashboard shows, on a terminal, and whether every part answers."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from invoke.context import Context
from invoke.tasks import task
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shards.aio import end
from shards.errors import ShardsError
from shards.fleet import layout
from shards.fleet import status as looking
from shards.fleet.fleet import Fleet
from shards.host.running import silent
from shards.load.watch import sparkline
from shards.server.dashboard.observer import Observer
from shards.tasks import view as showing
from shards.tasks.console import Kept, run
from shards.tasks.fleet import DEBUG, PROJECT, fleet_of

_KEPT = 60
"""Seconds of rates and latencies that are drawn."""

_EVENTS = 8
_LOOK_S = 1.0

View = Mapping[str, Any]
"""What `shards.server.dashboard.figures.shown` gives."""


@task(auto_shortflags=False, help={"project": PROJECT, "debug": DEBUG})
def top(context: Context, project: str | None = None, debug: bool = False) -> None:
    """Watch rates, latencies, replicas, ring and events live, until Ctrl-C; what the dashboard at /fleet/ shows."""

    async def work() -> None:
        kept = Kept()
        with fleet_of(context, project, kept) as fleet:
            await _watch(fleet, Condition(fleet, kept), Console())

    run(work(), debug=debug)


class Condition:
    """What `inv status` says, looked at beside the views: these know only what the control Redis is told by workers.

    Args:
        fleet: which.
        kept: what the fleet's commands would tell meanwhile.

    Attributes:
        status: the newest; empty: it was not looked at yet.
    """

    def __init__(self, fleet: Fleet, kept: Kept) -> None:
        self.status: looking.Status = {}
        self._watch, self._kept = looking.Watch(fleet), kept

    @asynccontextmanager
    async def looked_at(self) -> AsyncIterator[None]:
        """Look each second, meanwhile."""
        task = asyncio.create_task(self._look_on(), name="condition")
        try:
            yield
        finally:
            await end([task])

    async def _look_on(self) -> None:
        while True:
            try:
                found = await self._watch.look()
            except ShardsError as error:
                found = {"state": "unknown", "warnings": [str(error)]}
            self.status = showing.noted(found, self._kept.taken())
            await asyncio.sleep(_LOOK_S)


async def _watch(fleet: Fleet, condition: Condition, console: Console) -> None:
    state = await fleet.require()
    past: deque[View] = deque(maxlen=_KEPT)
    async with fleet.control(state) as control, condition.looked_at():
        views = Observer().watch(control)
        if not console.is_terminal:
            async for seen in views:
                past.append(json.loads(seen))
                print(line(past[-1], condition.status), flush=True)
        with Live(console=console, auto_refresh=False, screen=True) as live:
            async for seen in views:
                past.append(json.loads(seen))
                live.update(panel(past, f"{state.spec.project} at {layout.url(state)}", condition.status), refresh=True)


def line(view: View, status: looking.Status) -> str:
    """Sum a view up for a log.

    Args:
        view: the newest.
        status: what `inv status` says; empty: that is not known yet.
    """
    names = silent(status)
    said = [_state(view, status) + (f" ({', '.join(names)})" if names else "")]
    if "away" in view:
        return ", ".join([*said, str(view["away"])])
    rates, latency = view["rates"] or {}, view["latency_ms"] or {}
    figures = [*said, f"{view['connections']:,} sockets", *(f"{rate:,.0f}/s {what}" for what, rate in rates.items())]
    figures += [f"{name} {ms:g} ms" for name, ms in latency.items()]
    figures += [f"{int(count):,} {what}" for what, count in view["trouble"].items() if count]
    return ", ".join(figures)


def panel(past: Sequence[View], title: str, status: looking.Status) -> Group:
    """Draw the newest view, and how rates and latencies were until now.

    Args:
        past: views, a second apart, the newest last.
        title: which fleet.
        status: what `inv status` says; empty: that is not known yet.
    """
    view = past[-1]
    head = [Text(f"fleet {title}: {_state(view, status)}", style="bold"), *_ailing(status)]
    if "away" in view:
        return Group(*head, Text(view["away"], style="red"))
    return Group(
        *head,
        _figures(past),
        _replicas(view, status),
        _ring(view),
        _trouble(view),
        _events(view),
    )


def _state(view: View, status: looking.Status) -> str:
    cutover = view.get("cutover")
    if cutover:
        return f"{cutover['verb']} to {cutover['new']} at {cutover['step']}"
    return "slots move" if view.get("resharding") else str(status.get("state", "not looked at yet"))


def _ailing(status: looking.Status) -> list[Text]:
    names = silent(status)
    said = [f"no answer: {', '.join(names)}"] if names else []
    return [Text(text, style="red") for text in (*said, *status.get("warnings", ()))]


def _figures(past: Sequence[View]) -> Table:
    known = [view for view in past if "away" not in view]
    grid = Table(box=None, show_header=False)
    rows: list[tuple[str, list[float | None]]] = [("sockets", [view["connections"] for view in known])]
    for what in known[-1]["rates"] or {}:
        rows.append((f"{what} a second", [(view["rates"] or {}).get(what) for view in known]))
    for name in known[-1]["latency_ms"] or {}:
        rows.append((f"{name}, ms", [(view["latency_ms"] or {}).get(name) for view in known]))
    for head, values in rows:
        grid.add_row(
            head, Text(f"{values[-1]:,.6g}", style="bold"), Text(sparkline([value or 0.0 for value in values]), "cyan")
        )
    return grid


def _replicas(view: View, status: looking.Status) -> Table:
    grid = Table("replica", "state", "release", "workers", "sockets", "memory", "cpu %", box=None, header_style="bold")
    for one in view["replicas"]:
        figures = (f"{one['connections']:,}", f"{one['rss_bytes'] / 2**20:.0f} MB", f"{one['cpu_percent']:g}")
        grid.add_row(one["name"], one["state"], one["release"], str(one["workers"]), *figures)
    known = {one["name"] for one in view["replicas"]}
    for one in status.get("replicas", ()):
        # Those of which no worker speaks: they are down, or are being started.
        if one["name"] not in known:
            grid.add_row(one["name"], one["state"], *(["-"] * (len(grid.columns) - 2)), style="red")
    return grid


def _ring(view: View) -> Text:
    ring = view["ring"]
    if ring is None:
        return Text("no slot table yet")
    slots = dict.fromkeys(ring["shards"], 0)
    for shard, length in ring["runs"]:
        slots[ring["shards"][shard]] += length
    return Text(
        f"ring version {ring['version']}: {', '.join(f'{name} {count}' for name, count in slots.items())} slots"
    )


def _trouble(view: View) -> Text:
    found = [f"{int(count):,} {what}" for what, count in view["trouble"].items() if count]
    return Text("since the workers began: " + ", ".join(found), "red") if found else Text("no trouble counted", "green")


def _events(view: View) -> Table:
    grid = Table(box=None, show_header=False)
    for event in view["events"][:_EVENTS]:
        at = datetime.fromtimestamp(event["at_ms"] / 1000)
        grid.add_row(f"{at:%H:%M:%S}", event["kind"], event["text"])
    return grid

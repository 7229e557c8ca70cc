"""How the status of a fleet is shown: tables on a terminal, plain lines with tabs otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from shards.fleet.status import Status

_COLUMNS = {
    "edges": ("name", "healthy", "pid", "rss_bytes", "cpu_percent"),
    "replicas": (
        "name",
        "state",
        "healthy",
        "connections",
        "workers",
        "port",
        "pid",
        "rss_bytes",
        "cpu_percent",
        "release",
    ),
    "shards": ("name", "state", "healthy", "slots", "clients", "pid", "rss_bytes", "cpu_percent"),
    "servers": ("name", "role", "healthy", "pid", "rss_bytes", "cpu_percent"),
    "sentinels": ("name", "healthy", "pid", "rss_bytes", "cpu_percent"),
    "redis": ("name", "healthy", "clients", "pid", "rss_bytes", "cpu_percent"),
}
_LIMITS = {"rss_bytes": "memory_limit_bytes", "cpu_percent": "cpu_limit_percent"}
_HEADS = {"rss_bytes": "memory", "cpu_percent": "cpu %"}


def beside(others: Sequence[str]) -> str:
    """Say which other fleets run; empty: none does."""
    return f"; those that run: {', '.join(others)} (say --project)" if others else ""


def headline(status: Status) -> str:
    """Sum a fleet up in one line."""
    if status["state"] == "down":
        project = status["project"]
        return f"fleet {project} does not run: `inv up --project {project}` starts it{beside(status['others'])}"
    ring = status["ring"]
    cutover = status.get("cutover")
    at = f" ({cutover['verb']} to {cutover['new']} at {cutover['step']})" if cutover else ""
    return (
        f"fleet {status['project']} is {status['state']}{at} at {status['url']}: {status['active_color']} active, "
        f"{_cell('', status['connections'])} connections, ring version {_cell('', ring['version'])}"
    )


def noted(status: Status, notes: Sequence[str]) -> Status:
    """Give a fleet's status with what else must not be missed among its warnings."""
    return {**status, "warnings": [*status.get("warnings", ()), *notes]} if notes else status


def show(status: Status, at: datetime | None = None) -> None:
    """Print a fleet's status on stdout.

    Args:
        status: what `shards.fleet.status.status` gives.
        at: when that was, where it is one of many: they are told apart by it, and by an empty line. None: it is the
            only one.
    """
    console = Console()
    if console.is_terminal:
        console.print(table(status))
        return
    print(f"{at:%Y-%m-%d %H:%M:%S} {headline(status)}" if at else headline(status))
    for rows in _rows(status):
        for row in rows:
            print("\t".join(row), flush=True)
    for warning in status.get("warnings", ()):
        print(f"warning: {warning}", flush=True)
    if at:
        print(flush=True)


def table(status: Status) -> Group:
    """Give a fleet's status for a terminal."""
    tables = []
    for heads, *rows in _rows(status):
        grid = Table(*heads, box=None, header_style="bold")
        for row in rows:
            grid.add_row(*(Text(cell, style="red" if cell == "NO" else "") for cell in row))
        tables.append(grid)
    warnings = [Text(f"warning: {warning}", style="red") for warning in status.get("warnings", ())]
    return Group(Text(headline(status), style="bold"), *tables, *warnings)


def _rows(status: Status) -> list[list[Sequence[str]]]:
    tables: list[list[Sequence[str]]] = []
    servers = [server for shard in status.get("shards", ()) for server in shard.get("servers", ())]
    for kind, always in _COLUMNS.items():
        if parts := {**status, "servers": servers}.get(kind):
            columns = (*always, "node") if any("node" in part for part in parts) else always
            heads = [kind if name == "name" else _HEADS.get(name, name) for name in columns]
            tables.append([heads, *([_shown(name, part) for name in columns] for part in parts)])
    return tables


def _shown(name: str, part: Status) -> str:
    """Show a figure, and beside it its limit where there is one."""
    limit = part.get(_LIMITS.get(name, ""))
    shown = _cell(name, part.get(name))
    return f"{shown} of {_cell(name, limit)}" if limit else shown


def _cell(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if name == "rss_bytes" and isinstance(value, int):
        return f"{value / 2**20:.0f} MB"
    return str(value)

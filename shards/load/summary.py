"""What a run came to, on stdout: a table of targets, and a line for each thing worth one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from shards.load.page import disrupted, duration, least_leaks, saturated, shown, wronged

_CLIENTS_NAMED = 3


def show(document: dict[str, Any], path: Path) -> None:
    """Say how it went, and where the report is."""
    table = Table(box=None, pad_edge=False)
    for heading in ("figure", "target", "measured", ""):
        table.add_column(heading)
    for row in document["targets"]:
        table.add_row(row["name"], row["target"], shown(row["measured"]), "ok" if row["ok"] else "MISSED")
    Console(soft_wrap=True).print(table)
    print(_in_short(document))
    for line in [*_wrong(document), *_seen(document)]:
        print(line)
    print(f"{document['scenario']}: {document['verdict']} — {path} and {path.with_suffix('.html').name}")


def _in_short(document: dict[str, Any]) -> str:
    connections, messages, latency = document["connections"], document["messages"], document["latency_ms"]
    return (
        f"{connections['opened']:,} of {connections['wanted']:,} sockets, {connections['rate_per_s']:,.0f} connects a "
        f"second; {messages['delivered']:,} deliveries, {messages['per_s']:,.0f} a second; p50 "
        f"{duration(latency['p50'])}, p99 {duration(latency['p99'])}, max {duration(latency['max'])}"
    )


def _wrong(document: dict[str, Any]) -> Iterator[str]:
    for name, why in document["left_out"].items():
        yield f"left out: {name}: {why}"
    for problem in document["problems"]:
        yield f"problem: {problem}"
    for failure in document["connections"]["failures"]:
        yield f"connections failed: {failure['count']:,} x {failure['reason']}"
    clients = wronged(document["clients"])
    for client in clients[:_CLIENTS_NAMED]:
        yield f"client {client['client']} of {client['group']}: {'; '.join(client['examples'])}"
    if clients[_CLIENTS_NAMED:]:
        yield "and more clients with whom something went wrong: their books are in the report"
    for error in document["errors"]:
        yield f"error: {error['count']:,} x {error['kind']} {error['example']}"


def _seen(document: dict[str, Any]) -> Iterator[str]:
    for one in document["disruptions"]:
        yield f"{one['name']}: {disrupted(one)}"
    if bend := document.get("bend"):
        yield f"it bends at: {bend['connections'] or 'none of these'} ({bend['why']})"
    if told := least_leaks(document):
        yield told
    if told := saturated(document["generator"]):
        yield told

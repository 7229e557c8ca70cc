"""What this host can hold, what stops it, and what a number of sockets takes: as one object, and as lines to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from shards.descriptors import sockets_per_edge, sockets_per_replica
from shards.host.capacity import (
    Costs,
    Fleet,
    Limit,
    carried,
    limits,
    needed,
    sockets_per_port,
)
from shards.host.checks import NOT_THERE, Check, Facts, checks
from shards.host.symptoms import Symptom
from shards.mailbox import MOST_CONNECTIONS, MOST_LISTENED
from shards.server.backlog import BACKLOG

_MARKS = {"ok": "ok", "warn": "WARN", "fail": "FAIL", "unknown": "?"}

_EACH = MOST_CONNECTIONS + MOST_LISTENED
"""Connections that a worker opens to its color's Redis at most."""

_ASIDE = {"clock"}
"""What has no bearing on whether sockets fit."""


def holds(connections: int, fleet: Fleet, costs: Costs, facts: Facts) -> list[Limit]:
    """Count what each resource of a host allows, the one that allows fewest first; see `capacity.limits`."""
    return limits(connections, fleet, costs, facts.host, facts.memory_left, facts.conntrack_room)


def warnings(connections: int, fleet: Fleet, costs: Costs, facts: Facts) -> list[str]:
    """Say, each in a line with what mends it, why sockets will not fit, or will with less comfort.

    Not what `inv up` refuses by itself: programs that are not there.

    Raises:
        UsageError: a process of this host cannot hold a single socket.
    """
    takes = needed(connections, connections, costs, facts.host)
    found = [
        f"{check.name}: {check.have}; needed: {check.need} → {check.mend}"
        for check in checks(connections, fleet, _EACH, BACKLOG, facts, takes)
        if check.verdict in {"fail", "warn"} and check.name not in _ASIDE and check.have != NOT_THERE
    ]
    least = holds(connections, fleet, costs, facts)[0]
    if connections > least.sockets:
        found.insert(0, _too_few(connections, least, facts))
    return found


def _too_few(connections: int, least: Limit, facts: Facts) -> str:
    return (
        f"{_where(facts)} can hold {least.sockets:,} of {connections:,} sockets ({least.name}: {least.of}): "
        "`inv doctor` says what to do"
    )


def _where(facts: Facts) -> str:
    return "this swarm" if facts.engine == "swarm" else "this host"


def examine(
    connections: int,
    delivered_per_s: float,
    costs: Costs,
    facts: Facts,
    fleet: Fleet,
    running: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Say what a host holds and what the sockets take, as `inv doctor --json` prints it.

    Args:
        connections: sockets.
        delivered_per_s: messages delivered a second, to all together.
        costs: see `measured_costs`.
        facts: of the host.
        fleet: the parts that run there, or would.
        running: the fleet that runs, and what ails it; None: none does.

    Raises:
        UsageError: a process of this host cannot hold a single socket.
    """
    host = facts.host
    answer = needed(connections, delivered_per_s, costs, host)
    allowed = holds(connections, fleet, costs, facts)
    most_messages = carried(connections, fleet, costs, host)
    found = checks(connections, fleet, _EACH, BACKLOG, facts, answer)
    edges = fleet.edges_for(connections, host)
    fits = (
        connections <= allowed[0].sockets
        and delivered_per_s <= most_messages
        and all(check.verdict != "fail" for check in found)
    )
    return {
        "answer": f"{_where(facts)} can hold "
        + _answer(connections, delivered_per_s, edges, allowed[0], most_messages, found, fits),
        "fits": fits,
        "connections": connections,
        "edges": edges,
        "limit": allowed[0].name,
        "holds": {
            "sockets": allowed[0].sockets,
            "messages_per_s": most_messages,
            "limits": [asdict(limit) for limit in allowed],
            "sockets_per_edge": sockets_per_edge(host.descriptors),
            "sockets_per_replica": min(sockets_per_replica(host.descriptors), sockets_per_port(host.ports)),
        },
        "checks": [asdict(check) for check in found],
        "engine": facts.engine,
        "host": asdict(host),
        "needed": asdict(answer),
        "measured": {"on": costs.host, "at": costs.measured, "sockets": costs.most_sockets},
        "fleet": running,
    }


def _answer(
    connections: int,
    delivered_per_s: float,
    edges: int,
    least: Limit,
    most_messages: int,
    found: Sequence[Check],
    fits: bool,
) -> str:
    with_edges = f"{edges} edge{'' if edges == 1 else 's'}"
    text = f"{least.sockets:,} sockets with {with_edges}; the limit is {least.name}"
    if fits:
        return f"{text}: {connections:,} fit"
    if connections > least.sockets:
        return f"{text}: {connections:,} do not fit"
    if delivered_per_s > most_messages:
        return (
            f"{text}; {connections:,} would fit, but not with {delivered_per_s:,.0f} messages a second: "
            f"it carries {most_messages:,}, the limit is cpu"
        )
    failing = ", ".join(check.name for check in found if check.verdict == "fail")
    return f"{text}; {connections:,} do not fit yet, see to {failing}"


def seen(status: dict[str, Any], symptoms: Sequence[Symptom]) -> dict[str, Any]:
    """Describe a fleet that runs, and what ails it."""
    kept = ("project", "engine", "state", "connections")
    return {
        **{name: status[name] for name in kept},
        "warnings": status["warnings"],
        "symptoms": [asdict(one) for one in symptoms],
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Give what `examine` found as lines to read, the answer first."""
    return [
        found["answer"],
        "",
        *_table(found["checks"]),
        "",
        *_takes(found),
        *_ails(found["fleet"]),
    ]


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    columns = ("name", "have", "need")
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    head = "      " + "  ".join(f"{name:<{widths[name]}}" for name in columns).rstrip()
    return [head, *(_row(row, widths) for row in rows)]


def _row(row: dict[str, Any], widths: dict[str, int]) -> str:
    cells = "  ".join(f"{row[name]:<{width}}" for name, width in widths.items())
    mend = f"  → {row['mend']}" if row["mend"] else ""
    return f"{_MARKS[row['verdict']]:<4}  {cells}{mend}".rstrip()


def _takes(found: dict[str, Any]) -> list[str]:
    needed, kind = found["needed"], "swarms" if found["engine"] == "swarm" else "hosts"
    tiers = [
        f"  {name}: {tier['count']:,} ({_because(tier['because'])}; {tier['cores']:,.1f} cores, "
        f"{tier['memory_bytes'] / 1e9:,.1f} GB together)"
        for name, tier in needed["tiers"].items()
    ]
    return [
        f"{needed['connections']:,} sockets that are given {needed['delivered_per_s']:,.0f} messages a second take:",
        *tiers,
        f"  {kind} like this one: {needed['hosts']:,} (for their {needed['hosts_because']})",
        _origin(found),
    ]


def _because(limit: str) -> str:
    return limit if limit == "at least one" else f"for their {limit}"


def _origin(found: dict[str, Any]) -> str:
    measured, needed = found["measured"], found["needed"]
    fold = needed["extrapolated"]
    reach = f", {fold:,.0f} times fewer: a linear extrapolation" if fold > 1 else ""
    return (
        f"counted from costs measured without TLS and with up to {measured['sockets']:,} sockets{reach}; "
        f"the CPU's standard error is {needed['cpu_error']:.0%}"
    )


def _ails(fleet: dict[str, Any] | None) -> list[str]:
    if fleet is None:
        return []
    told = ["", f"fleet {fleet['project']} is {fleet['state']}, with {fleet['connections']} connections:"]
    told += [f"{_MARKS['warn']:<4}  {warning}" for warning in fleet["warnings"]]
    for symptom in fleet["symptoms"]:
        told.append(f"{_MARKS[symptom['verdict']]:<4}  {symptom['name']}")
        told += [f"        {line}" for line in symptom["evidence"]]
        told += [f"        → {symptom['mend']}"] if symptom["mend"] else []
    return told

"""What came of attacks: whether each held, and a table of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.attacks.attacker import Attack

MOST_P99_MS = 100.0
MOST_LAG_MS = 50.0
"""Of the crowd's own process: where it was later than that itself, it has measured itself."""

_DOINGS = {"connections", "sent"}
"""What an attacker counts of his own doing: nothing that he was told."""

KINDS = ("replica", "edge", "redis")

Found = Mapping[str, Any]
"""What was found of an attack, as `tests.attacks.__main__.one` gives it."""


def kind_of(name: str) -> str:
    """Tell of which kind a part is, by its name."""
    if name.startswith("edge-"):
        return "edge"
    return "redis" if name.startswith(("shared-", "redis_")) else "replica"


def parts(status: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Give process and memory of each part of a fleet that runs here, Redis servers too: both of each pair."""
    shards = [server for shard in status["shards"] for server in shard["servers"] or (shard,)]
    found = (*status["replicas"], *status["edges"], *shards, *status["redis"])
    return {part["name"]: (part["pid"], part["rss_bytes"]) for part in found if part.get("pid")}


def grown(
    before: Mapping[str, tuple[int, int]], most: Mapping[str, int], after: Mapping[str, tuple[int, int]]
) -> dict[str, dict[str, Any]]:
    """Give, of each kind of part, the one that grew most: bytes before, at most, and after.

    Args:
        before: processes and memory, by name.
        most: memory at most.
        after: as `before`.
    """
    found = {}
    for kind in KINDS:
        of_kind = {name: rss for name, (_, rss) in before.items() if kind_of(name) == kind}
        if of_kind:
            name = max(of_kind, key=lambda name: most[name] - of_kind[name])
            now = after[name][1] if name in after else 0
            found[kind] = {"name": name, "before": of_kind[name], "most": most[name], "after": now}
    return found


def why_not(found: Found, attack: Attack) -> list[str]:
    """Say what was not as it should be.

    Args:
        found: what came of it.
        attack: what had to.
    """
    crowd, why = found["crowd"], []
    if crowd["p99_ms"] is None or crowd["p99_ms"] >= MOST_P99_MS:
        why.append(f"p99 {crowd['p99_ms']} ms")
    if crowd["lag_p99_ms"] is None or crowd["lag_p99_ms"] >= MOST_LAG_MS:
        why.append(f"the crowd itself was late: {crowd['lag_p99_ms']} ms")
    names = ("lost", "doubled", "unacked", "gaps", "refused", "reconnects")
    why += [f"{crowd[name]} {name}" for name in names if crowd[name]]
    for part in found["memory"].values():
        if (more := part["most"] - part["before"]) >= attack.growth:
            why.append(f"{part['name']} grew by {more >> 20} MB")
    why += [f"{name} died" for name in found["died"]]
    if not found["steady"]:
        why.append("not steady afterwards")
    return why + _told_wrong(found["told"], attack)


def _told_wrong(told: Mapping[str, int], attack: Attack) -> list[str]:
    """Say what an attacker was not told that he should have been, or was told that nobody is."""
    missed = sorted(name for name in attack.must if not told.get(name))
    odd = sorted(told.keys() - attack.must - attack.may - _DOINGS)
    return [*(f"nobody was told: {name}" for name in missed), *(f"{told[name]:,} were told: {name}" for name in odd)]


def judged(found: Found, attack: Attack) -> dict[str, list[str]]:
    """Give why an attack has not held, and apart from that what is known to go wrong."""
    why = why_not(found, attack)
    known = [one for one in why if attack.known and one.startswith(attack.known)]
    return {"why_not": [one for one in why if one not in known], "known": known}


def outcome(found: Found) -> str:
    """Say in a few words whether it held."""
    known = f"; known: {', '.join(found['known'])}" if found["known"] else ""
    return (", ".join(found["why_not"]) or "held") + known


def verdict(rows: Iterable[Found]) -> str:
    """Say it of all."""
    return "fail" if any(row["why_not"] for row in rows) else "pass"


COLUMNS = (
    *("attack", "for", "p50 / p99 / max ms", "lost / reconnects", "replica MB", "edge MB", "Redis MB"),
    *("the attacker was told", "outcome", "run"),
)


def cells(found: Found, run: int) -> list[str]:
    """Give a line of the table; `run` is the number of the run that it is of."""
    crowd = found["crowd"]
    told = ", ".join(f"{count:,} x {name}" for name, count in found["told"].items())
    memory = [_memory(found["memory"].get(kind)) for kind in KINDS]
    p99 = f"{crowd['p50_ms']} / {crowd['p99_ms']} / {crowd['max_ms']}"
    lost = f"{crowd['lost']} / {crowd['reconnects']}"
    return [found["attack"], f"{found['seconds']:g} s", p99, lost, *memory, told, outcome(found), str(run)]


def _memory(part: Mapping[str, int] | None) -> str:
    return "" if part is None else f"{part['before'] >> 20} → {part['most'] >> 20} → {part['after'] >> 20}"


def _run(found: Found) -> str:
    of = found["run"]
    return (
        f"{of['date']}, commit {of['commit']}: {of['replicas']} replicas, {of['edges']} edges, "
        f"{of['clients']} ordinary clients in groups of ten, {of['rate']:g} deliveries a second"
    )


def markdown(result: Mapping[str, Any]) -> str:
    """Write the result as a page."""
    rows = result["attacks"]
    runs = {text: number for number, text in enumerate(dict.fromkeys(map(_run, rows)), 1)}
    held, known = sum(not row["why_not"] for row in rows), sum(bool(row["known"]) for row in rows)
    but = f", {known} of them but for what is known to go wrong" if known else ""
    lines = [
        f"Of {len(rows)} attacks {held} held{but}. Latency is of the ordinary clients,",
        "from when a message was due. Memory is of the part of its kind that grew most: before → at most → two seconds",
        "after.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(cells(row, runs[_run(row)]))} |" for row in rows),
        "",
        *(f"Run {number}: {text}." for text, number in runs.items()),
        "",
        *(f"- **{row['attack']}**: {row['what']}" for row in rows),
        "",
    ]
    return "\n".join(lines)

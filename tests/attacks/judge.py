"""What came of attacks: whether each held, and a table of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.attacks.attacker import Attack

MOST_MS: Mapping[str, float] = {"p99_ms": 100.0, "lag_p99_ms": 50.0, "connect_p99_ms": 500.0}
"""How long things may take: a delivery, a publish to be begun by the crowd's own process (where that is later, it has
measured itself), a newcomer to be in its group."""

_WORDS = {"p99_ms": "p99", "lag_p99_ms": "the crowd itself was late:", "connect_p99_ms": "connect p99"}

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


def why_not(found: Found, attack: Attack, most_ms: Mapping[str, float] = MOST_MS) -> list[str]:
    """Say what was not as it should be.

    Args:
        found: what came of it.
        attack: what had to.
        most_ms: how long things may take, as `MOST_MS`; empty: on a machine that does other things too, it is chance.
    """
    crowd = found["crowd"]
    why = [f"{_WORDS[name]} {_ms(crowd[name])}" for name, most in most_ms.items() if not _within(crowd[name], most)]
    if crowd["connects_failed"] or not crowd["connects"]:
        why.append(f"connects: {crowd['connects_failed']} of {crowd['connects']} failed")
    names = ("lost", "doubled", "unacked", "gaps", "refused", "reconnects")
    why += [f"{crowd[name]} {name}" for name in names if crowd[name]]
    if attack.well_again_s:
        why += _after(found["well_again_s"], crowd["ever"])
    for part in found["memory"].values():
        if (more := part["most"] - part["before"]) >= attack.growth:
            why.append(f"{part['name']} grew by {more >> 20} MB")
    why += [f"{name} died" for name in found["died"]]
    if not found["steady"]:
        why.append("not steady afterwards")
    return why + _told_wrong(found["told"], attack)


def _ms(time: float | None) -> str:
    return "of none" if time is None else f"{time} ms"


def _within(time: float | None, most: float) -> bool:
    return time is not None and time < most


def _after(seconds: float | None, ever: Mapping[str, int]) -> list[str]:
    """Say what was wrong once an attack was over: it may have had them wait, and must not have cost them anything."""
    why = [] if seconds is not None else ["not as before, long after the end"]
    return why + [f"{ever[name]} {name} in the end" for name in ("lost", "doubled", "unacked", "gaps") if ever[name]]


def well(crowd: Mapping[str, Any]) -> bool:
    """Tell whether ordinary clients notice nothing any more."""
    return _within(crowd["p99_ms"], MOST_MS["p99_ms"]) and not (
        crowd["unacked"] or crowd["refused"] or crowd["connects_failed"]
    )


def _told_wrong(told: Mapping[str, int], attack: Attack) -> list[str]:
    """Say what an attacker was not told that he should have been, or was told that nobody is."""
    missed = sorted(name for name in attack.must if not told.get(name))
    odd = sorted(told.keys() - attack.must - attack.may - _DOINGS)
    return [*(f"nobody was told: {name}" for name in missed), *(f"{told[name]:,} were told: {name}" for name in odd)]


def judged(found: Found, attack: Attack) -> dict[str, list[str]]:
    """Give why an attack has not held, and apart from that what is known to go wrong."""
    why = why_not(found, attack)
    known = [one for one in why if _is_known(one, found, attack)]
    return {"why_not": [one for one in why if one not in known], "known": known}


def _is_known(why: str, found: Found, attack: Attack) -> bool:
    if why.endswith("in the end") or not why.lstrip("0123456789 ").startswith(attack.known):
        return False
    return not why.startswith("p99") or _within(found["crowd"]["p99_ms"], attack.worst_p99_ms)


def outcome(found: Found) -> str:
    """Say in a few words whether it held."""
    known = [f"known: {', '.join(found['known'])}"] if found["known"] else []
    after = [_again(found)] if found.get("well_again_s") is not None else []
    new = [", ".join(found["why_not"])] if found["why_not"] else []
    return "; ".join(["not held", *new, *known, *after]) if new or known else "; ".join(["held", *after])


def _again(found: Found) -> str:
    refused = found["crowd"]["ever"]["refused"]
    return f"as before {found['well_again_s']:g} s after the end, when {refused:,} publishes had been refused for good"


def verdict(rows: Iterable[Found]) -> str:
    """Say it of all: ``known`` where some have not held, in ways that are known."""
    rows = list(rows)
    if any(row["why_not"] for row in rows):
        return "fail"
    return "known" if any(row["known"] for row in rows) else "pass"


def headline(rows: Sequence[Found]) -> str:
    """Count those that held, and name those that did not."""
    new = [row["attack"] for row in rows if row["why_not"]]
    known = [row["attack"] for row in rows if row["known"] and not row["why_not"]]
    said = [f"Of {len(rows)} attacks {len(rows) - len(new) - len(known)} held"]
    said += [f"{len(known)} did not, in ways that are known: {', '.join(known)}"] if known else []
    said += [f"{len(new)} did not: {', '.join(new)}"] if new else []
    return f"{'; '.join(said)}."


COLUMNS = (
    *("attack", "for", "p99 ms before", "p50 / p99 / max ms", "connect p99 ms / failed", "lost / reconnects"),
    *("replica MB", "edge MB", "Redis MB", "the attacker was told", "outcome", "run"),
)


def cells(found: Found, run: int) -> list[str]:
    """Give a line of the table; `run` is the number of the run that it is of."""
    crowd = found["crowd"]
    told = ", ".join(f"{count:,} x {name}" for name, count in found["told"].items())
    memory = [_memory(found["memory"].get(kind)) for kind in KINDS]
    p99 = f"{crowd['p50_ms']} / {crowd['p99_ms']} / {crowd['max_ms']}"
    connects = f"{crowd['connect_p99_ms'] or ''} / {crowd['connects_failed']} of {crowd['connects']}"
    lost = f"{crowd['lost']} / {crowd['reconnects']}"
    noticed = [f"{found['quiet']['p99_ms']}", p99, connects, lost]
    return [found["attack"], f"{found['seconds']:g} s", *noticed, *memory, told, outcome(found), str(run)]


def _memory(part: Mapping[str, int] | None) -> str:
    return "" if part is None else f"{part['before'] >> 20} → {part['most'] >> 20} → {part['after'] >> 20}"


def _run(found: Found) -> str:
    of = found["run"]
    return (
        f"{of['date']}, commit {of['commit']}: {of['replicas']} replicas, {of['edges']} edges, "
        f"{of['clients']} ordinary clients in groups of ten, {of['rate']:g} deliveries a second; {of['fleet']}"
    )


def markdown(result: Mapping[str, Any]) -> str:
    """Write the result as a page."""
    rows = result["attacks"]
    runs = {text: number for number, text in enumerate(dict.fromkeys(map(_run, rows)), 1)}
    lines = [
        headline(rows),
        "",
        "Latency is of the ordinary clients, from when a message was due; *before* is without an attack, just before",
        "this one. *Connect* is of newcomers, until they are in their group. Memory is of the part of its kind that",
        "grew most: before → at most → two seconds after.",
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

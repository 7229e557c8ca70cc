"""Attack a fleet while a crowd of ordinary clients goes on: what do they notice, and what does it cost?

``python -m tests.attacks``: a fleet of its own, 200 clients in groups of ten, 1,000 deliveries a second, open loop; and
each attack of `tests.attacks.attacks` in turn, from several addresses. Prints a table, and leaves ``attacks.json`` and
``attacks.md`` in ``reports``; of attacks that were left out this time, with what was found last. Exit status: 0 all
held, 1 one did not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from shards.ports import free_port
from tests.attacks.attacks import ATTACKS
from tests.fleet.runner import ROOT, Commands, steady

MOST_P99_MS = 100.0
MOST_GROWTH = 256 << 20
MOST_LAG_MS = 50.0
"""Of the crowd's own process: where it was later than that itself, it has measured itself."""

_SETTLE_S = 2.0
_SAMPLE_S = 0.5


class Crowd:
    """`tests.attacks.crowd` in its process."""

    def __init__(self, url: str, clients: int, rate: float) -> None:
        self._plan = [f"{url}/ws/", str(clients), str(rate)]

    async def __aenter__(self) -> Crowd:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.attacks.crowd", *self._plan), cwd=ROOT, stdin=PIPE, stdout=PIPE
        )
        await self._heard()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the crowd of clients ended by itself: {await self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told

    async def tell(self) -> dict[str, Any]:
        """Have it tell what it noticed since the last time."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await self._heard()


class Watch:
    """What the parts of a fleet use: memory at most, and whether they are still those that were there."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.before = parts(status)
        self.most = {name: rss for name, (_, rss) in self.before.items()}

    async def run(self) -> None:
        """Look again and again."""
        while True:
            for name, (pid, _) in self.before.items():
                try:
                    self.most[name] = max(self.most[name], psutil.Process(pid).memory_info().rss)
                except psutil.Error:
                    continue
            await asyncio.sleep(_SAMPLE_S)

    def told(self, status: dict[str, Any]) -> dict[str, Any]:
        """Sum it up, with the status of now."""
        after, found = parts(status), {}
        for kind in ("replica", "edge"):
            grown = {
                n: self.most[n] - rss for n, (_, rss) in self.before.items() if n.startswith("edge") == (kind == "edge")
            }
            name = max(grown, key=lambda name: grown[name])
            before, now = self.before[name][1], after[name][1] if name in after else 0
            found[kind] = {"name": name, "before": before, "most": self.most[name], "after": now}
        died = [name for name, (pid, _) in self.before.items() if name not in after or after[name][0] != pid]
        return {"memory": found, "died": died, "steady": steady(status)}


def parts(status: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Give process and memory of each replica and edge."""
    return {part["name"]: (part["pid"], part["rss_bytes"]) for part in (*status["replicas"], *status["edges"])}


def why_not(found: dict[str, Any]) -> list[str]:
    """Say what was not as it should be."""
    crowd, why = found["crowd"], []
    if crowd["p99_ms"] is None or crowd["p99_ms"] >= MOST_P99_MS:
        why.append(f"p99 {crowd['p99_ms']} ms")
    if crowd["lag_p99_ms"] is None or crowd["lag_p99_ms"] >= MOST_LAG_MS:
        why.append(f"the crowd itself was late: {crowd['lag_p99_ms']} ms")
    names = ("lost", "doubled", "unacked", "gaps", "refused", "reconnects")
    why += [f"{crowd[name]} {name}" for name in names if crowd[name]]
    for part in found["memory"].values():
        if (grown := part["most"] - part["before"]) >= MOST_GROWTH:
            why.append(f"{part['name']} grew by {grown >> 20} MB")
    why += [f"{name} died" for name in found["died"]]
    if not found["steady"]:
        why.append("not steady afterwards")
    if not any(name != "sent" for name in found["told"]):
        why.append("the attack did nothing")
    return why


async def one(name: str, fleet: Commands, crowd: Crowd, seconds: float) -> dict[str, Any]:
    """Run an attack; gives what came of it."""
    watch = Watch(await asyncio.to_thread(fleet.status))
    await crowd.tell()
    watching = asyncio.create_task(watch.run())
    attacker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.attacks.attacks", name, fleet.host, str(fleet.port), str(seconds)),
        cwd=ROOT,
        stdin=DEVNULL,
        stdout=PIPE,
    )
    try:
        said, _ = await attacker.communicate()
    finally:
        if attacker.returncode is None:
            attacker.kill()
            await attacker.wait()
    noticed = await crowd.tell()
    await asyncio.sleep(_SETTLE_S)
    watching.cancel()
    status = await asyncio.to_thread(fleet.status)
    told = json.loads(said) if said else {"told": {}, "cpu_s": None}
    what = (ATTACKS[name].__doc__ or "").strip().rstrip(".")
    found = {"attack": name, "what": what, "seconds": seconds, "crowd": noticed, **told, **watch.told(status)}
    found["why_not"] = why_not(found)
    return found


async def all_of(names: list[str], asked: argparse.Namespace, fleet: Commands) -> list[dict[str, Any]]:
    """Run attacks one after the other on a fleet that runs."""
    found = []
    async with Crowd(fleet.url, asked.clients, asked.rate / 10) as crowd:
        await asyncio.sleep(_SETTLE_S)
        for name in names:
            found.append(await one(name, fleet, crowd, asked.seconds))
            print(f"{name}: {outcome(found[-1])}", file=sys.stderr)
    return found


def outcome(found: dict[str, Any]) -> str:
    """Say in a few words whether it held."""
    return ", ".join(found["why_not"]) or "held"


def cells(found: dict[str, Any]) -> list[str]:
    """Give a line of the table."""
    crowd = found["crowd"]
    told = ", ".join(f"{count:,} x {name}" for name, count in found["told"].items())
    memory = [f"{m['before'] >> 20} → {m['most'] >> 20} → {m['after'] >> 20}" for m in found["memory"].values()]
    p99 = f"{crowd['p50_ms']} / {crowd['p99_ms']} / {crowd['max_ms']}"
    lost = f"{crowd['lost']} / {crowd['reconnects']}"
    return [found["attack"], f"{found['seconds']:g} s", p99, lost, *memory, told, outcome(found)]


COLUMNS = (
    *("attack", "for", "p50 / p99 / max ms", "lost / reconnects", "replica MB", "edge MB", "the attacker was told"),
    "outcome",
)


def markdown(result: dict[str, Any]) -> str:
    """Write the result as a page."""
    lines = [
        "# Attacks, tried",
        "",
        f"{result['clients']} ordinary clients in groups of ten, {result['rate']:g} deliveries a second, open loop;",
        "latency from when a message was due. Memory of the part that grew most: before → at most → two seconds after.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(cells(found))} |" for found in result["attacks"]),
        "",
        *(f"- **{found['attack']}**: {found['what']}" for found in result["attacks"]),
        "",
    ]
    return "\n".join(lines)


def show(result: dict[str, Any], console: Console) -> None:
    """Print the result as a table."""
    table = Table(*COLUMNS, title="attacks")
    for found in result["attacks"]:
        table.add_row(*cells(found), style="red" if found["why_not"] else None)
    console.print(table, "pass" if result["verdict"] == "pass" else "[bold red]fail")


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each attack")
    parser.add_argument("--clients", type=int, default=200, help="ordinary clients, in groups of ten")
    parser.add_argument("--rate", type=float, default=1000, help="messages delivered to them a second")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--only", default="", help=f"some, with commas: {', '.join(ATTACKS)}")
    parser.add_argument("--reports", type=Path, default=ROOT / "reports", help="where to leave attacks.json and .md")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    asked = parser.parse_args()
    asked.names = asked.only.split(",") if asked.only else list(ATTACKS)
    if unknown := set(asked.names) - set(ATTACKS):
        parser.error(f"no attack is called {', '.join(sorted(unknown))}")
    if asked.seconds <= 0 or asked.clients < 10 or asked.clients % 10 or asked.rate <= 0:
        parser.error("seconds and rate are more than 0, and clients 10, 20, 30, …")
    return asked


def kept(path: Path, names: list[str]) -> list[dict[str, Any]]:
    """Read what was found last of other attacks."""
    last = json.loads(path.read_text())["attacks"] if path.exists() else []
    return [found for found in last if found["attack"] not in names and found["attack"] in ATTACKS]


def main() -> int:
    """Start a fleet, attack it, take it down."""
    asked = parsed()
    began = time.time()
    with tempfile.TemporaryDirectory() as directory:
        fleet = Commands(Path(directory), free_port(()), "attacked")
        try:
            fleet.ok("up", "--replicas", str(asked.replicas))
            found = asyncio.run(all_of(asked.names, asked, fleet))
        except KeyboardInterrupt:
            return 1
        finally:
            fleet("down")
    path = asked.reports / "attacks.json"
    everything = {one["attack"]: one for one in (*kept(path, asked.names), *found)}
    attacks = [everything[name] for name in ATTACKS if name in everything]
    verdict = "fail" if any(one["why_not"] for one in found) else "pass"
    result = {"scenario": "attacks", "verdict": verdict, "started": began, "attacks": attacks}
    result |= {"clients": asked.clients, "rate": asked.rate}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
    path.with_suffix(".md").write_text(markdown(result))
    show(result, Console(stderr=True))
    if asked.json:
        print(json.dumps(result))
    return 0 if verdict == "pass" else 1


if __name__ == "__main__":
    sys.exit(main())

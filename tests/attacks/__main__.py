"""Attack a fleet while a crowd of ordinary clients goes on: what do they notice, and what does it cost?

``python -m tests.attacks``: a fleet of its own, 200 clients in groups of ten, 1,000 deliveries a second, open loop, and
five newcomers a second; and each attack of `tests.attacks.attacks` in turn, from several addresses. Then a fleet that
shows a certificate, one whose shards may keep little, and one that has a shard that lies. Prints a table, and leaves
``attacks.json`` and ``attacks.md`` in ``reports``; of attacks that were left out this time, with what was found last,
and in which run. Exit status: 0 all held, but for what is known; 1 one did not; 2 wrong usage.
``python -m tests.attacks.page`` puts the table into docs/security.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from subprocess import run
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from shards.ports import free_port
from tests.attacks import attacks, liar
from tests.attacks.attacker import ATTACKS, Stage
from tests.attacks.judge import COLUMNS, cells, grown, headline, judged, markdown, outcome, parts, verdict, well
from tests.certificates import certificate
from tests.fleet.runner import ROOT, Commands, steady

__all__ = ["attacks", "liar"]

_SETTLE_S = 2.0
_QUIET_S = 3.0
"""For how long it is looked, before each attack, how all goes without one."""

_STEADY_S = 30.0
_SAMPLE_S = 0.5
_WELL_S = 3.0

LITTLE = {"INVOKE_FLEET_REDIS_MEMORY": "64M", "SHARDS_HISTORY_SECONDS": "60"}
"""A fleet whose shards are full in seconds, and have room again 75 s later; 375 s by default."""

Told = tuple[Counter[str], float | None]
"""What an attacker was told, and the CPU seconds that it took him; None: it is not known."""


class Crowd:
    """`tests.attacks.crowd` in its process.

    Args:
        url: of the fleet.
        clients: how many.
        rate: publishes a second.
        groups: in which they talk; empty: in any.
        environment: what the process is told beside that.
    """

    def __init__(
        self, url: str, clients: int, rate: float, groups: Sequence[str] = (), environment: Mapping[str, str] = {}
    ) -> None:
        self._plan = [f"{url}/ws/", str(clients), str(rate), *groups]
        self._environment = {**os.environ, **environment}

    async def __aenter__(self) -> Crowd:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.attacks.crowd", *self._plan),
            cwd=ROOT,
            env=self._environment,
            stdin=PIPE,
            stdout=PIPE,
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
        after = parts(status)
        died = [name for name, (pid, _) in self.before.items() if name not in after or after[name][0] != pid]
        return {"memory": grown(self.before, self.most, after), "died": died, "steady": steady(status)}


class Session:
    """A fleet that is attacked, and its crowd.

    Args:
        fleet: which.
        crowd: who.
        asked: what the command line says.
        described: what each row of the table says of this run.
    """

    def __init__(self, fleet: Commands, crowd: Crowd, asked: argparse.Namespace, described: dict[str, Any]) -> None:
        self.fleet, self.crowd = fleet, crowd
        self.found: list[dict[str, Any]] = []
        self._asked, self._described = asked, described

    async def attack(self, names: Sequence[str], by: Callable[[str, float], Awaitable[Told]]) -> None:
        """Run attacks one after the other; `by` does one, for so many seconds."""
        await asyncio.sleep(_SETTLE_S)
        for name in names:
            self.found.append(await self._one(name, by))
            print(f"{name}: {outcome(self.found[-1])}", file=sys.stderr)

    async def _one(self, name: str, by: Callable[[str, float], Awaitable[Told]]) -> dict[str, Any]:
        attack = ATTACKS[name]
        seconds = max(self._asked.seconds, attack.least_s)
        watch = Watch(await asyncio.to_thread(self.fleet.status))
        await self.crowd.tell()
        await asyncio.sleep(_QUIET_S)
        quiet = await self.crowd.tell()
        watching = asyncio.create_task(watch.run())
        told, cpu_s = await by(name, seconds)
        noticed = await self.crowd.tell()
        again = {}
        if attack.well_again_s:
            again["well_again_s"], noticed["ever"] = await self._well_again(attack.well_again_s)
        await asyncio.sleep(_SETTLE_S)
        watching.cancel()
        status = await asyncio.to_thread(self._settled)
        found = {"attack": name, "what": attack.what, "run": self._described, "seconds": seconds, "crowd": noticed}
        found |= {"quiet": quiet, **again, "told": dict(told), "cpu_s": cpu_s, **watch.told(status)}
        return {**found, **judged(found, attack)}

    async def _well_again(self, within_s: float) -> tuple[float | None, dict[str, int]]:
        """Wait until ordinary clients notice nothing any more; give after how long, and what went wrong in all."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(_WELL_S)
            noticed = await self.crowd.tell()
            took = time.monotonic() - began
            if well(noticed) or took > within_s:
                return (round(took) if well(noticed) else None), noticed["ever"]

    def _settled(self) -> dict[str, Any]:
        """Look how the fleet is, once it is well again or has had the time for it."""
        with contextlib.suppress(AssertionError):
            return self.fleet.until(steady, _STEADY_S)
        return self.fleet.status()

    async def by_processes(self, name: str, seconds: float) -> Told:
        """Have as many processes attack as it takes."""
        told: Counter[str] = Counter()
        cpu_s = 0.0
        attackers = [await self._attacker(name, seconds, number) for number in range(ATTACKS[name].processes)]
        try:
            for said in await asyncio.gather(*(attacker.communicate() for attacker in attackers)):
                heard = json.loads(said[0]) if said[0] else {"told": {"? ended by itself": 1}, "cpu_s": 0.0}
                told.update(heard["told"])
                cpu_s += heard["cpu_s"]
        finally:
            for attacker in attackers:
                if attacker.returncode is None:
                    attacker.kill()
                    await attacker.wait()
        return told, round(cpu_s, 2)

    async def _attacker(self, name: str, seconds: float, number: int) -> asyncio.subprocess.Process:
        plan = (name, self.fleet.host, str(self.fleet.port), str(seconds), str(number))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.attacks.attacks", *plan), cwd=ROOT, stdin=DEVNULL, stdout=PIPE
        )


@contextlib.asynccontextmanager
async def started(fleet: Commands, asked: argparse.Namespace, what: str, *flags: str) -> AsyncIterator[dict[str, Any]]:
    """Start a fleet; gives what each row of the table says of it. It is taken down afterwards.

    Args:
        fleet: which.
        asked: what the command line says.
        what: it is, in words.
        flags: of `inv up`.
    """
    try:
        await asyncio.to_thread(fleet.ok, "up", "--replicas", str(asked.replicas), "--edges", asked.edges, *flags)
        edges = len((await asyncio.to_thread(fleet.status))["edges"])
        described = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(), "replicas": asked.replicas}
        yield described | {"edges": edges, "clients": asked.clients, "rate": asked.rate, "fleet": what}
    finally:
        await asyncio.to_thread(fleet, "down")


def commit() -> str:
    """Name what is attacked: git's short commit, with a + where files differ from it."""
    done = run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


async def attack_all(asked: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    """Run the attacks that are asked for, each on what it attacks."""
    found: list[dict[str, Any]] = []
    for stage, attacked in STAGES.items():
        if asked.of[stage]:
            fleet = Commands(directory / stage, free_port(()), f"attacked-{stage}")
            fleet.state_dir.mkdir()
            found += await attacked(asked, fleet)
    return found


def _crowd(asked: argparse.Namespace, url: str, **more: Any) -> Crowd:
    return Crowd(url, asked.clients, asked.rate / 10, **more)


async def attack_plain(asked: argparse.Namespace, fleet: Commands) -> list[dict[str, Any]]:
    """Attack a fleet as it is by default."""
    async with started(fleet, asked, "the defaults") as described, _crowd(asked, fleet.url) as crowd:
        session = Session(fleet, crowd, asked, described)
        await session.attack(asked.of["plain"], session.by_processes)
        return session.found


async def attack_by_tls(asked: argparse.Namespace, fleet: Commands) -> list[dict[str, Any]]:
    """Attack a fleet whose edges show a certificate; the ordinary clients come by TLS as well, and look at it."""
    shown = str(certificate(fleet.state_dir))
    url, trusting = f"wss://localhost:{fleet.port}", {"SSL_CERT_FILE": shown}
    flags = ("--tls-certificate", shown, "--tls-key", shown)
    async with (
        started(fleet, asked, "all by TLS", *flags) as described,
        _crowd(asked, url, environment=trusting) as crowd,
    ):
        session = Session(fleet, crowd, asked, described)
        await session.attack(asked.of["tls"], session.by_processes)
        return session.found


async def attack_what_keeps_little(asked: argparse.Namespace, fleet: Commands) -> list[dict[str, Any]]:
    """Attack a fleet whose shards are full soon."""
    fleet.environment = LITTLE
    what = "each Redis server may fill 64 MB, and keeps messages for 75 s"
    async with started(fleet, asked, what) as described, _crowd(asked, fleet.url) as crowd:
        session = Session(fleet, crowd, asked, described)
        await session.attack(asked.of["full"], session.by_processes)
        return session.found


async def attack_with_a_liar(asked: argparse.Namespace, fleet: Commands) -> list[dict[str, Any]]:
    """Have one of a fleet's shards lie while the crowd is on the other one."""
    async with liar.two_shards(fleet.state_dir) as (honest, lying):
        shards = f"{honest.url},{lying.redis}"
        async with started(fleet, asked, "its shards run elsewhere", "--shards", shards) as described:
            groups = await asyncio.to_thread(_groups_on_the_first_shard, fleet, asked.clients // 10)
            async with _crowd(asked, fleet.url, groups=groups) as crowd:
                session = Session(fleet, crowd, asked, described)

                async def lie(_name: str, seconds: float) -> Told:
                    return await lying.lie(seconds), None

                await session.attack(asked.of["liar"], lie)
                return session.found


STAGES: dict[Stage, Callable[[argparse.Namespace, Commands], Awaitable[list[dict[str, Any]]]]] = {
    "plain": attack_plain,
    "tls": attack_by_tls,
    "full": attack_what_keeps_little,
    "liar": attack_with_a_liar,
}


def _groups_on_the_first_shard(fleet: Commands, count: int) -> list[str]:
    first = fleet.status()["shards"][0]["name"]
    found: list[str] = []
    number = 0
    while len(found) < count:
        name, number = f"crowd-{number}", number + 1
        url = f"{fleet.url.replace('ws', 'http', 1)}/api/route?{urllib.parse.urlencode({'group': name})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            if json.load(answer)["shard"] == first:
                found.append(name)
    return found


def show(result: dict[str, Any], console: Console) -> None:
    """Print the result as a table."""
    table = Table(*COLUMNS[:-1], title="attacks")
    for found in result["attacks"]:
        table.add_row(*cells(found, 0)[:-1], style="red" if found["why_not"] else "yellow" if found["known"] else None)
    console.print(table, headline(result["attacks"]))


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each attack that does not take longer anyway")
    parser.add_argument("--clients", type=int, default=200, help="ordinary clients, in groups of ten")
    parser.add_argument("--rate", type=float, default=1000, help="messages delivered to them a second")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--edges", default="auto")
    parser.add_argument("--only", default="", help=f"some, with commas: {', '.join(ATTACKS)}")
    parser.add_argument("--reports", type=Path, default=ROOT / "reports", help="where to leave attacks.json and .md")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(ATTACKS)
    if unknown := set(names) - set(ATTACKS):
        parser.error(f"no attack is called {', '.join(sorted(unknown))}")
    if asked.seconds <= 0 or asked.clients < 10 or asked.clients % 10 or asked.rate <= 0:
        parser.error("seconds and rate are more than 0, and clients 10, 20, 30, …")
    asked.of = {stage: [name for name in names if ATTACKS[name].stage == stage] for stage in STAGES}
    return asked


def with_earlier(path: Path, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put what was found last of other attacks beside what was found now; each says of which run it is."""
    last = json.loads(path.read_text())["attacks"] if path.exists() else []
    everything = {one["attack"]: one for one in (*last, *found) if "quiet" in one}
    return [everything[name] for name in ATTACKS if name in everything]


def main() -> int:
    """Attack, and leave what was found."""
    asked = parsed()
    # Whoever ends it that way means no less that the fleet shall be taken down.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as directory:
        try:
            found = asyncio.run(attack_all(asked, Path(directory)))
        except KeyboardInterrupt:
            return 1
    path = asked.reports / "attacks.json"
    rows = with_earlier(path, found)
    result = {"scenario": "attacks", "verdict": verdict(rows), "attacks": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(f"# Attacks, tried\n\n{markdown(result)}")
    show(result, Console(stderr=True))
    if asked.json:
        print(json.dumps(result))
    return 1 if verdict(found) == "fail" else 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m bench``: this project beside its peers, as ratios, in one run.

Exit status: 0 it was measured, 1 it was stopped or a peer that is there could not be measured, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench import page, table
from bench.peers import PEERS
from bench.peers.base import Missing, Peer
from bench.workloads import ROOM_MEMBERS, WORKLOADS, Host, Options, Result, Workload
from shards.descriptors import raise_descriptor_limit
from shards.errors import ShardsError
from shards.load.arguments import Parser, amount, count
from shards.load.command import carry_out
from shards.load.limits import Limits
from shards.load.report import host
from shards.load.schedule import even_groups

_ROOMS = "5000,10000,20000,30000,40000,45000,50000"
_BROADCAST = "5000,20000,35000,50000"


def _names(known: Iterable[str]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        wanted = text.split(",")
        if unknown := [name for name in wanted if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return tuple(name for name in known if name in wanted)

    return parse


def _rates(text: str) -> tuple[float, ...]:
    return tuple(sorted({amount(part) for part in text.split(",")}))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m bench", description="Measure this project beside its peers.")
    add, environ = parser.add_argument, os.environ
    add("--peers", type=_names(PEERS), default=tuple(PEERS), help=f"of {','.join(PEERS)}; default: all")
    add("--workloads", type=_names(WORKLOADS), default=tuple(WORKLOADS), help=f"of {','.join(WORKLOADS)}; default: all")
    add("--connections", type=count, default=environ.get("N", "5000"), help="sockets; also N=… in the environment")
    add("--duration", type=amount, default=environ.get("DURATION", "10"), help="seconds a step; also DURATION=…")
    rates = environ.get("RATE")
    add("--rooms", type=_rates, default=rates or _ROOMS, help="rates to try, messages delivered a second; also RATE=…")
    add("--broadcast", type=_rates, default=rates or _BROADCAST, help="likewise, for one group of all; also RATE=…")
    add("--common-rate", type=amount, default=20_000.0, help="at which CPU is compared (default: %(default).0f)")
    add("--echo-clients", type=count, default=64, help="that echo in parallel (default: %(default)s)")
    add("--repeats", type=count, default=1, help="of the whole; the report gives median and spread")
    add("--cache", type=Path, default=Path("build/bench"), help="where peers are installed (default: %(default)s)")
    add("--report", type=Path, default=Path("reports/bench.json"), help="default: %(default)s; .html and .md beside it")
    return parser


def _options(chosen: argparse.Namespace) -> Options:
    """Give the options.

    Raises:
        UsageError: this host can't hold so many sockets.
    """
    Limits.of_this_host().check(even_groups(chosen.connections, ROOM_MEMBERS, 1.0), 1, loopback=True)
    return Options(
        connections=chosen.connections,
        echo_clients=min(chosen.echo_clients, chosen.connections),
        duration_s=chosen.duration,
        rooms=chosen.rooms,
        broadcast=chosen.broadcast,
        common_rate=chosen.common_rate,
    )


class Bench:
    """One run of the bench.

    Args:
        peers: to compare; those that can't be had are left out of it, and the table says so.
        options: of the workloads.
        cache: where peers are installed.
        repeats: of the whole.
        path: of the report, which is written after each workload.
    """

    def __init__(self, peers: Sequence[Peer], options: Options, cache: Path, repeats: int, path: Path) -> None:
        self._options = options
        self._cache = cache
        self._repeats = repeats
        self._path = path
        self._started = datetime.now(UTC)
        self._missing: dict[str, str] = {}
        self._peers = peers
        self.results: list[Result] = []

    def prepare(self) -> None:
        """Install the peers."""
        for peer in self._peers:
            try:
                peer.prepare(self._cache)
            except Missing as error:
                self._missing[peer.name] = str(error)
                _say(f"{peer.name}: not measured: {error}")

    def run(self, workloads: Sequence[str]) -> None:
        """Run each workload on each peer in turn, and all of that again."""
        there = [peer for peer in self._peers if peer.name not in self._missing]
        for repeat in range(self._repeats):
            for workload in workloads:
                for peer in there:
                    self.results.append(self._measured(workload, peer, repeat))
                    self.write()

    def _measured(self, workload: str, peer: Peer, repeat: int) -> Result:
        _say(f"== {workload}: {peer.what}")
        result = Result(workload, peer.name, repeat, [])
        try:
            with Host(peer, self._cache) as held:
                work = Workload(self._options, peer, held, _say)
                result.tries = work.tries
                WORKLOADS[workload](work)
        except (ShardsError, OSError, subprocess.SubprocessError) as error:
            result.failed = str(error)
            _say(f"failed: {error}")
        return result

    def document(self) -> dict[str, Any]:
        """Give the report as it stands."""
        return {
            "started": self._started.isoformat(timespec="seconds"),
            "duration_s": round((datetime.now(UTC) - self._started).total_seconds()),
            "host": host(),
            "options": msgspec.to_builtins(self._options),
            "repeats": self._repeats,
            "peers": {p.name: {"what": p.what, "missing": self._missing.get(p.name, "")} for p in self._peers},
            "summary": table.summary(self.results, self._options),
            "missed": table.missed(self.results),
            "results": msgspec.to_builtins(self.results),
        }

    def write(self) -> None:
        """Write the report's three files.

        Raises:
            ShardsError: they could not be written; says why.
        """
        document = self.document()
        content = msgspec.json.format(msgspec.json.encode(document), indent=1).decode()
        texts = {".json": content, ".html": page.render(document), ".md": table.markdown(document)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for suffix, text in texts.items():
                self._path.with_suffix(suffix).write_text(text)
        except OSError as error:
            raise ShardsError(f"cannot write the report {self._path}: {error.strerror or error}") from error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print(document: dict[str, Any], path: Path) -> None:
    """Show the table, on stdout."""
    shown = Table(box=None, pad_edge=False)
    for heading in table.header():
        shown.add_column(heading)
    for cells in table.rows(document):
        shown.add_row(*cells)
    Console(width=200 if not sys.stdout.isatty() else None).print(shown, markup=False)
    for note in table.notes(document):
        print(note)
    print(f"{path}, {path.with_suffix('.html').name} and {path.with_suffix('.md').name}")


def run(arguments: list[str]) -> int:
    """Run the command line; give the exit status.

    Raises:
        ShardsError: it could not be run; says why.
    """
    chosen = _parser().parse_args(arguments)
    options = _options(chosen)
    raise_descriptor_limit()
    bench = Bench([PEERS[name] for name in chosen.peers], options, chosen.cache, chosen.repeats, chosen.report)
    bench.prepare()
    bench.run(chosen.workloads)
    bench.write()
    _print(bench.document(), chosen.report)
    return 1 if any(result.failed for result in bench.results) else 0


if __name__ == "__main__":
    carry_out(run)

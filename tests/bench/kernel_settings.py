"""What the kernel's settings change for a whole fleet: each alone, and all of docker/sysctl.conf together.

Not a test: ``python -m tests.bench.kernel_settings``, as root, keeps what it found in docs/tuning.json, and makes
the table of docs/tuning.md of it. Each run is a fleet of its own in a network namespace of its own, which begins with
the kernel's defaults, so nothing of the host's is changed. Where a setting belongs to the host, its counter tells
whether it could have mattered: nothing was dropped for want of it, or so much was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from shards.host.tuning import read_settings
from shards.load.scenarios import repository
from tests.made_pages import with_made

BEFORE_LINUX_5_4 = {"net.core.somaxconn": "128"}
OF_THE_HOST = ("net.core.netdev_max_backlog", "net.netfilter.nf_conntrack_max")
COUNTED = ("ListenOverflows", "ListenDrops", "TCPReqQFullDoCookies", "TCPReqQFullDrop", "TCPTimeouts")
_DROPPED = "softnet dropped"
KEPT, PAGE = repository() / "docs" / "tuning.json", repository() / "docs" / "tuning.md"
_COUNTED_TOO = {
    "TCPReqQFullDoCookies": "queues of half-done handshakes that were full, and cookies sent (`TCPReqQFullDoCookies`)",
    "TCPReqQFullDrop": "likewise, and dropped (`TCPReqQFullDrop`)",
    _DROPPED: "packets for which a CPU's queue had no place (the second column of `/proc/net/softnet_stat`)",
}
_LOAD_S = 10
_INSIDE = "--inside"
_RUN_S = 240

Settings = Mapping[str, str]


def wanted(text: str) -> dict[str, str]:
    """Give what docker/sysctl.conf, whose text this is, wants of a network namespace."""
    named = {one.key: one.value for one in read_settings(text)}
    return {key: value for key, value in named.items() if key.startswith("net.") and key not in OF_THE_HOST}


def variants(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Give what is tried: the defaults, those of old kernels, each setting alone, and all of them."""
    yield "the kernel's defaults", {}
    yield "somaxconn 128, before Linux 5.4", BEFORE_LINUX_5_4
    for key, value in settings.items():
        yield key.rpartition(".")[2], {key: value}
    yield "all of them", settings


def counters(netstat: str, softnet: str) -> dict[str, int]:
    """Read what the kernel has counted.

    Args:
        netstat: /proc/net/netstat, of this namespace.
        softnet: /proc/net/softnet_stat, of the host: its second column are packets for which a CPU's queue was full.
    """
    rows = [line.split() for line in netstat.splitlines() if line.startswith("TcpExt:")]
    found = dict(zip(rows[0][1:], map(int, rows[1][1:]), strict=True))
    dropped = sum(int(line.split()[1], 16) for line in softnet.splitlines())
    return {name: found.get(name, 0) for name in COUNTED} | {_DROPPED: dropped}


def _counted() -> dict[str, int]:
    return counters(Path("/proc/net/netstat").read_text(), Path("/proc/net/softnet_stat").read_text())


def inside(settings: Settings, load: Sequence[str]) -> dict[str, Any]:
    """Set what is tried, in a namespace that is ours alone, run the load, and tell what came of it."""
    for key, value in settings.items():
        Path("/proc/sys", *key.split(".")).write_text(value)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    before = _counted()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "run.json")
        command = [sys.executable, "-m", "shards.load", "run", *load, "--report", str(report)]
        done = subprocess.run(command, cwd=repository(), capture_output=True, text=True, timeout=_RUN_S, check=False)
        if not report.exists():
            raise SystemExit(f"the load left no report: {done.stderr.strip()[-500:]}")
        found = json.loads(report.read_text())
    connections, latency = found["connections"], found["latency_ms"]
    return {
        "edges": len(found["fleet"]["edges"]),
        "replicas": len(found["fleet"]["replicas"]),
        "opened": connections["opened"],
        "failed": connections["failed"],
        "connect_p50_ms": connections["took_p50_ms"],
        "connect_p99_ms": connections["took_p99_ms"],
        "per_s": connections["rate_per_s"],
        "p99_ms": latency["p99"],
        "lost": found["messages"]["lost"],
        "saturated": found["generator"]["saturated"],
        "counted": {name: count - before[name] for name, count in _counted().items()},
    }


def _measured(settings: Settings, load: Sequence[str]) -> dict[str, Any]:
    command = ["unshare", "--net", "--mount", sys.executable, "-m", __spec__.name, _INSIDE, json.dumps(settings)]
    done = subprocess.run([*command, *load], capture_output=True, text=True, timeout=_RUN_S + 30, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip() or f"a run ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def markdown(found: Mapping[str, Any]) -> str:
    """Make a table of all runs, those of one setting beside each other.

    Args:
        found: what `main` leaves.
    """
    lines = [
        f"{found['connections']:,} clients at once, which then get {found['rate']:,} messages/s for {_LOAD_S} s:",
        "",
        "| setting | failed | connect p99, ms | connects a second | messages' p99, ms | backlog full | TCP timeouts |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in found["runs"].items():
        cells = [
            ", ".join(str(run["failed"]) for run in runs),
            ", ".join(f"{run['connect_p99_ms']:,.0f}" for run in runs),
            ", ".join(f"{run['per_s']:,.0f}" for run in runs),
            ", ".join(f"{run['p99_ms']:.1f}" for run in runs),
            ", ".join(str(run["counted"]["ListenOverflows"]) for run in runs),
            ", ".join(str(run["counted"]["TCPTimeouts"]) for run in runs),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    every = [run for runs in found["runs"].values() for run in runs]
    lines += ["", f"In all {len(every)} runs together:", ""]
    lines += [f"- {what}: {sum(run['counted'][key] for run in every)}" for key, what in _COUNTED_TOO.items()]
    lines += [f"- messages lost: {sum(run['lost'] for run in every)}"]
    return "\n".join(lines)


def page(text: str, kept: str) -> str:
    """Put the table into docs/tuning.md, whose text this is, of what is kept, JSON."""
    return with_made(text, "docs/tuning.json", "python -m tests.bench.kernel_settings", markdown(json.loads(kept)))


def main() -> None:
    """Measure, in as many rounds as asked for, the variants in turn in each."""
    if sys.argv[1:2] == [_INSIDE]:
        print(json.dumps(inside(json.loads(sys.argv[2]), sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(prog="python -m tests.bench.kernel_settings", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--connections", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--rate", type=int, default=4000, help="messages a second (default: %(default)s)")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("namespaces of their own take root: sudo")
    most = str(chosen.connections)
    load = ["--connections", most, "--connect-rate", most, "--rate", str(chosen.rate), "--duration", str(_LOAD_S)]
    runs: dict[str, list[dict[str, Any]]] = {}
    console = Console()
    for number in range(chosen.rounds):
        for name, settings in variants(wanted((repository() / "docker" / "sysctl.conf").read_text())):
            found = _measured(settings, load)
            runs.setdefault(name, []).append(found)
            console.print(f"round {number + 1}, {name}: {found}")
    KEPT.write_text(json.dumps({"connections": chosen.connections, "rate": chosen.rate, "runs": runs}, indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(), KEPT.read_text()))


if __name__ == "__main__":
    main()

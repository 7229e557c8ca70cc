"""Does `inv tune --revert` bring back all that `--apply` has changed? Tried on the host on which this runs.

``python -m tests.host.sysctl_proof``, as root: reads every setting below /proc/sys (what ``sysctl -a`` shows) and the
files that `inv tune` writes, applies, reads, takes back, and reads again. What counts by itself is left out and named.
`--yes` does not ask first, `--json` prints one object. Exit status: 0 all is as it was, 1 it is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shards.host.tune import Places
from shards.load.scenarios import repository

COUNTERS = re.compile(
    r"fs/(dentry-state|file-nr|inode-nr|inode-state|aio-nr|quota/.*)"
    r"|kernel/(ns_last_pid|pty/nr|random/(uuid|entropy_avail)|perf_event_max_sample_rate)"
    r"|net/(netfilter/)?nf_conntrack_count"
)
"""What the kernel counts there, and nobody sets."""

_IDLE_S = 2.0

Seen = Mapping[str, str]
"""Settings by their paths below /proc/sys, and files by theirs, as they were at one moment."""


@dataclass(frozen=True)
class Proof:
    """What came of it.

    Attributes:
        verdict: ``pass``: all is as it was, and what was to be changed was changed in between.
        settings: how many were read, files among them.
        changed: what was different in between.
        left: what was not as before at the end, as it was and as it is.
        not_done: what `--apply` or `--revert` failed at, or said it would change and did not.
        refused: what can't be set here, with the verdict and why.
        counting: what was left out, since it changes by itself.
    """

    verdict: str
    settings: int
    changed: list[str]
    left: dict[str, tuple[str | None, str | None]]
    not_done: list[str]
    refused: list[dict[str, str]]
    counting: list[str]


def different(one: Seen, other: Seen) -> set[str]:
    """Name what differs, or is in one of them only."""
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def judged(
    idle: tuple[Seen, Seen], between: Seen, after: Seen, wanted: Collection[str], failed: Collection[str] = ()
) -> Proof:
    """Judge what was read.

    Args:
        idle: before anything was done, twice, with some seconds in between.
        between: after `--apply`.
        after: after `--revert`.
        wanted: the settings that should be changed: they are never taken for something that counts by itself.
        failed: what the commands said they failed at.
    """
    _, before = idle
    names = before.keys() | between.keys() | after.keys()
    counting = ({name for name in names if COUNTERS.fullmatch(name)} | different(*idle)) - set(wanted)
    changed = different(before, between) - counting
    left = {name: (before.get(name), after.get(name)) for name in sorted(different(before, after) - counting)}
    not_done = [*failed, *sorted(set(wanted) - changed)]
    verdict = "fail" if left or not_done else "pass"
    return Proof(verdict, len(before), sorted(changed), left, not_done, [], sorted(counting))


def seen(places: Places, root: Path = Path("/proc/sys")) -> dict[str, str]:
    """Read every setting that can be read, and the files of `inv tune`; one that is refused as what that says."""
    found = {str(path): _text(path) for path in (places.sysctl, places.limits, places.record)}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.stat().st_mode & 0o444:
            found[str(path.relative_to(root))] = _text(path)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        return str(error)


def _tune(*flags: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "invoke", "tune", *flags, "--json"]
    done = subprocess.run(command, cwd=repository(), stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"`inv tune {' '.join(flags)}` says nothing, and ended with {done.returncode}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def prove(places: Places) -> Proof:
    """Apply and take back, and look at it all before, in between and afterwards."""
    first = seen(places)
    time.sleep(_IDLE_S)
    idle = first, seen(places)
    applied: dict[str, Any] = {"settings": [], "failed": ["--apply"]}
    try:
        applied = _tune("--apply", "--yes")
        between = seen(places)
    finally:
        reverted = _tune("--revert")
    wanted = {
        one["key"].replace(".", "/") if one["key"] != "nofile" else str(places.limits)
        for one in applied["settings"]
        if one["verdict"] == "change"
    }
    proof = judged(idle, between, seen(places), wanted, [*applied["failed"], *reverted["failed"]])
    refused = [
        {name: one[name] for name in ("key", "verdict", "note")}
        for one in applied["settings"]
        if one["verdict"] in {"absent", "forbidden"}
    ]
    return Proof(**{**vars(proof), "refused": refused})


def _lines(proof: Proof) -> list[str]:
    return [
        f"{proof.verdict}: {proof.settings:,} settings and files, {len(proof.changed)} of them changed and "
        f"{len(proof.left)} not as they were",
        *(f"  changed and taken back  {name}" for name in proof.changed if name not in proof.left),
        *(f"  NOT AS IT WAS           {name}: {was!r}, now {is_now!r}" for name, (was, is_now) in proof.left.items()),
        *(f"  NOT DONE                {name}" for name in proof.not_done),
        *(f"  {one['verdict']:<22}  {one['key']}: {one['note']}" for one in proof.refused),
        *(f"  counts by itself        {name}" for name in proof.counting),
    ]


def main() -> int:
    """Run the command line; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.host.sysctl_proof", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print one object")
    options, places = parser.parse_args(), Places()
    if os.geteuid() != 0:
        parser.error("only root can set what is to be taken back")
    if places.record.exists():
        parser.error("this host is tuned: `inv tune --revert` first, for that brings back what was before all of it")
    if not options.yes and input("change the settings of this host, and take that back? [y/N] ").lower() != "y":
        return 2
    proof = prove(places)
    print(json.dumps(asdict(proof)) if options.json else "\n".join(_lines(proof)))
    return 0 if proof.verdict == "pass" else 1


if __name__ == "__main__":
    sys.exit(main())

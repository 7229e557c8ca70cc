"""What containers use: from the daemon's counters to memory and CPU. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shards.fleet.engines.docker.stack import COMPOSE_LABEL
from shards.fleet.processes import Usage

Sample = Mapping[str, Any]
"""One answer of the daemon's `stats`."""

_NANO = 1e9
_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_NO_LIMIT = 1 << 60
"""The kernel writes "no limit" as a number no machine has."""


def memory(sample: Sample) -> int:
    """Give the memory of a container in bytes, as `docker stats` has it: without the cache that can be dropped."""
    said = sample.get("memory_stats", {})
    details = said.get("stats", {})
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return max(0, int(said.get("usage", 0)) - int(cache))


def cpu_seconds(sample: Sample) -> float:
    """Give the CPU time a container has used, in seconds."""
    return int(sample.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0)) / _NANO


def usage(before: Sample, after: Sample, elapsed_s: float, cpus: float | None) -> Usage:
    """Give what a container uses.

    Args:
        before: its counters.
        after: the same, later.
        elapsed_s: how much later, in seconds.
        cpus: how many cores it may use; None: all.
    """
    limit = int(after.get("memory_stats", {}).get("limit", 0))
    used = max(0.0, cpu_seconds(after) - cpu_seconds(before))
    return Usage(
        memory(after),
        round(used / elapsed_s * 100, 1) if elapsed_s else 0.0,
        limit if 0 < limit < _NO_LIMIT else None,
        cpus * 100 if cpus else None,
    )


def befell(attributes: Mapping[str, Any]) -> str:
    """Say in a few words what befell a container since it was made.

    Args:
        attributes: what the daemon says of it.
    """
    found = []
    if restarts := int(attributes.get("RestartCount", 0)):
        found.append(f"Docker started it again {restarts} time{'s' if restarts > 1 else ''}")
    if attributes.get("State", {}).get("OOMKilled"):
        memory = attributes["HostConfig"]["Memory"] / 2**20
        found.append(f"the kernel killed a process of it, which took more than the {memory:,.0f} MB it may")
    if stays_away := _stays_away(attributes):
        found.append(stays_away)
    return ", ".join(found)


def _stays_away(attributes: Mapping[str, Any]) -> str:
    """Say why a container does not run and is not started again by Docker, and what starts it; empty: it runs."""
    state = attributes.get("State", {})
    error = " ".join(str(state.get("Error") or "").split())
    if state.get("Running") or not (error or state.get("Status") == "exited"):
        return ""
    by_compose = COMPOSE_LABEL in ((attributes.get("Config") or {}).get("Labels") or {})
    again = "docker compose -f FILE up -d" if by_compose else "inv up"
    if not error:
        return f"it has ended (exit code {state.get('ExitCode')}), and Docker leaves it so: `{again}` starts it"
    # The daemon names other containers in full, which is longer than all the rest.
    said = _ID.sub(r"\1", error)[:300]
    return f"Docker could not start it ({said}): `{again}` tries again"

"""What the container that a process runs in may use, as the kernel writes it: cgroup, version 2 or 1."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/sys/fs/cgroup")

_NO_LIMIT = 1 << 60
"""Version 1 writes "no limit" as a number no machine has."""


def memory_limit(root: Path = ROOT) -> int | None:
    """Give the memory that may be used, in bytes; None: there is no limit, or none can be seen."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(root / name)
        if text.isdigit():
            return int(text) if int(text) < _NO_LIMIT else None
    return None


def cpu_limit(root: Path = ROOT) -> float | None:
    """Give how many cores' worth of time may be used; None: there is no limit, or none can be seen."""
    said = _read(root / "cpu.max") or f"{_read(root / 'cpu/cpu.cfs_quota_us')} {_read(root / 'cpu/cpu.cfs_period_us')}"
    quota, _, period = said.partition(" ")
    # "max", or -1 in version 1: none.
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

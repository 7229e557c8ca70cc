"""What a container may use, read as the kernel writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards import cgroup

V1 = {"memory/memory.limit_in_bytes": "{memory}", "cpu/cpu.cfs_quota_us": "{quota}", "cpu/cpu.cfs_period_us": "100000"}
V2 = {"memory.max": "{memory}", "cpu.max": "{quota} 100000"}


def written(root: Path, names: dict[str, str], **values: object) -> Path:
    for name, text in names.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text.format(**values) + "\n")
    return root


@pytest.mark.parametrize("names", [V1, V2], ids=["v1", "v2"])
def test_limits_are_read(tmp_path: Path, names: dict[str, str]) -> None:
    root = written(tmp_path, names, memory=4 << 30, quota=250_000)
    assert (cgroup.memory_limit(root), cgroup.cpu_limit(root)) == (4 << 30, 2.5)


@pytest.mark.parametrize("names,memory,quota", [(V1, (1 << 63) - 4096, -1), (V2, "max", "max"), ({}, "", "")])
def test_no_limit_is_none(tmp_path: Path, names: dict[str, str], memory: object, quota: object) -> None:
    root = written(tmp_path, names, memory=memory, quota=quota)
    assert (cgroup.memory_limit(root), cgroup.cpu_limit(root)) == (None, None)

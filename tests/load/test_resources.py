"""What is known of a process that may not be asked everything, and of one that is gone."""

from __future__ import annotations

import os
import subprocess

import psutil
import pytest

from shards.load.resources import Resources


def refused(process: psutil.Process) -> int:
    raise psutil.AccessDenied(process.pid)


def sampled() -> Resources:
    """Give three samples of this process, the first and the last with its files."""
    resources = Resources()
    resources.add("this", os.getpid())
    for number in range(3):
        resources.sample(number, files=number != 1)
    return resources


def test_files_are_counted_where_they_are_asked_for() -> None:
    [process] = sampled().report()
    assert ["files" in sample for sample in process["samples"]] == [True, False, True]
    assert process["files_max"] > 0


def test_where_the_files_may_not_be_counted_memory_and_cpu_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "num_fds", refused)
    [process] = sampled().report()
    assert [set(sample) for sample in process["samples"]] == [{"t", "rss_bytes", "cpu_percent"}] * 3
    assert process["rss_max_bytes"] > 0
    assert process["files_max"] == 0


def test_a_process_that_is_gone_is_sampled_no_more_and_keeps_its_samples() -> None:
    resources = Resources()
    with subprocess.Popen(["sleep", "60"]) as process:
        resources.add("gone", process.pid)
        resources.sample(0, files=True)
        process.kill()
        process.wait()
    resources.sample(1, files=True)
    [found] = resources.report()
    assert [sample["t"] for sample in found["samples"]] == [0]

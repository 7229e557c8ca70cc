"""What keeps the parts alive outlives a disk that is full; `/dev/full` is one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from shards.fleet.engines.supervisord import Program, Supervisor, render_keeper, render_program

FULL = Path("/dev/full")

# The part lives for as long as somebody reads what it prints, and then says that nobody does.
PART = """
import pathlib, sys, time
while True:
    pathlib.Path("printed").write_text("")
    print("a line", flush=True)
    time.sleep(0.05)
"""


def test_a_full_disk_ends_neither_the_keeper_nor_a_part(tmp_path: Path) -> None:
    for folder in ("parts", "logs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "part.py").write_text(PART)
    part = Program("part-0", [sys.executable, "part.py"], tmp_path, tmp_path / "logs" / "part-0.log")
    (tmp_path / "parts" / "part-0.conf").write_text(_into_nothing(render_program(part)))
    supervisor = Supervisor(tmp_path / "sock")
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(_into_nothing(render_keeper(supervisor.socket_path, tmp_path, None)))
    with (
        FULL.open("w") as nowhere,
        subprocess.Popen(
            [sys.executable, "-m", "shards.fleet.engines.keeper", "-c", str(configuration)],
            stdout=nowhere,
            stderr=nowhere,
        ) as keeper,
    ):
        try:
            pid = _pid(supervisor, keeper)
            for _ in range(3):
                _until_printed(tmp_path, keeper)
            assert _pid(supervisor, keeper) == pid, "the part that printed all this was never started again"
        finally:
            keeper.terminate()
            keeper.wait(60)


def _into_nothing(configuration: str) -> str:
    """Have all logs go to a disk that is full."""
    lines = [f"{line.partition('=')[0]}={FULL}" if "logfile=" in line else line for line in configuration.splitlines()]
    return "\n".join(
        [line.replace("maxbytes=10MB", "maxbytes=0").replace("maxbytes=5MB", "maxbytes=0") for line in lines]
    )


def _pid(supervisor: Supervisor, keeper: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert keeper.poll() is None, "the keeper has ended"
        if supervisor.alive():
            (info,) = supervisor.call("getAllProcessInfo")
            if info["pid"]:
                return int(info["pid"])
        time.sleep(0.05)
    raise AssertionError("the keeper did not start its part")


def _until_printed(directory: Path, keeper: subprocess.Popen[bytes]) -> None:
    """Wait until the part prints once more."""
    (directory / "printed").unlink(missing_ok=True)
    end = time.monotonic() + 60
    while not (directory / "printed").exists():
        assert keeper.poll() is None, "the keeper has ended"
        assert time.monotonic() < end, "the part prints no more"
        time.sleep(0.05)

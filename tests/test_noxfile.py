"""A nox session that is stopped has time to report and to take its fleet down; nox itself gives it half a second."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

NOXFILE = Path(__file__).parents[1] / "noxfile.py"
# It takes two seconds over its end, as a load does that gathers its figures.
CHILD = """
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(2)
    pathlib.Path("report").write_text("all of it")
    sys.exit(1)
signal.signal(signal.SIGINT, stop)
pathlib.Path("started").touch()
time.sleep(60)
"""
SESSION = """
import importlib.util, nox
nox.options.default_venv_backend = "none"
spec = importlib.util.spec_from_file_location("ours", {noxfile!r})
ours = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ours)

@nox.session
def slow(session):
    ours._to_its_end(session, "python", "child.py")
"""


def test_a_session_that_is_stopped_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "noxfile.py").write_text(SESSION.format(noxfile=str(NOXFILE)))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    nox = subprocess.Popen(
        [sys.executable, "-m", "nox", "-s", "slow"],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "started").exists() and time.monotonic() < end:
            time.sleep(0.05)
        # A terminal sends it to all of them.
        os.killpg(nox.pid, signal.SIGINT)
        nox.wait(60)
    finally:
        nox.kill()
        nox.wait()
    assert (tmp_path / "report").read_text() == "all of it"


def test_every_session_that_starts_processes_ends_by_itself() -> None:
    """Only what checks files, or pins what is installed, is run in the ordinary way."""
    ordinary = set(re.findall(r'session\.run\(\s*"([\w-]+)"', NOXFILE.read_text()))
    assert ordinary <= {"ruff", "lint-imports", "mypy", "uv", "pip-audit"}

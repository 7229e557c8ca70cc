"""The JavaScript client's decisions, and how the dashboard draws, in Node's own test runner."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = ["shards.test.mjs", "shards.model.test.mjs", "dashboard.test.mjs"]


@pytest.mark.skipif(shutil.which("node") is None, reason="no node: `apt-get install nodejs`, 20 or later")
@pytest.mark.parametrize("name", TESTS)
def test_what_the_pages_decide_is_as_it_should_be(name: str) -> None:
    tests = Path(__file__).with_name(name)
    done = subprocess.run(["node", "--test", str(tests)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]

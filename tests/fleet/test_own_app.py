"""Somebody else's app: deployed from its own directory, promoted when it changes, kept when the new one is broken."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import pytest

from tests.fleet.runner import Commands

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(600)]

APP = """
VERSION = {version!r}

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": VERSION.encode()}})
"""

DOES_NOT_IMPORT = "import no_such_thing\n"

# It imports where the commands run, and not in the replica.
DOES_NOT_START = """
import os
if os.environ["SHARDS_PORT"] != "1":
    raise RuntimeError("no license")

async def app(*a): ...
"""


class Site:
    """A directory with an app of one file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir()

    def write(self, code: str) -> None:
        (self.directory / "mysite.py").write_text(code)

    def version(self, commands: Commands) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{commands.port}/", timeout=30) as answer:
            return str(answer.read().decode())


async def test_new_code_is_promoted_and_broken_code_is_not(commands: Commands, tmp_path: Path) -> None:
    site = Site(tmp_path / "my site")
    site.write(APP.format(version="one"))
    small = ("--replicas", "2", "--shards", "1", "--edges", "1")
    commands.ok("up", *small, "--app", "mysite:app", "--app-dir", str(site.directory))
    assert site.version(commands) == "one"
    first = commands.status()["replicas"][0]["release"]

    site.write(APP.format(version="two"))
    assert site.version(commands) == "one", "code is deployed by a promote, not by itself"
    await asyncio.to_thread(commands.ok, "promote")
    assert site.version(commands) == "two"

    for broken, words in {DOES_NOT_IMPORT: "no_such_thing", DOES_NOT_START: "no license"}.items():
        site.write(broken)
        failed = commands("promote")
        assert failed.code == 1
        assert words in failed.last
        assert failed.last.endswith("green serves as before, blue was taken away")
        assert site.version(commands) == "two"
        status = commands.status()
        assert (status["state"], status["active_color"]) == ("steady", "green")
        assert [replica["color"] for replica in status["replicas"]] == ["green", "green"]

    site.write(APP.format(version="three"))
    refused = commands("rollback")
    assert (refused.code, site.version(commands)) == (1, "two")
    assert f"the release before is {first}, and the app's directory holds" in refused.last

    site.write(APP.format(version="one"))
    commands.ok("rollback")
    status = commands.until(lambda status: status["state"] == "steady")
    assert (status["active_color"], status["replicas"][0]["release"]) == ("blue", first)
    assert site.version(commands) == "one"

"""A page becomes a picture where there is a browser, and where there is none the report says so and goes on."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import pytest

from shards.load import picture

PAGE = "<!doctype html><title>t</title><body style='background:#123456'>a report</body>"


@pytest.mark.skipif(picture.chromium() is None, reason="there is no chromium on PATH")
@pytest.mark.parametrize("dark", [False, True])
def test_a_page_is_drawn_in_its_size(tmp_path: Path, dark: bool) -> None:
    page, drawn = tmp_path / "r.html", tmp_path / "r.png"
    page.write_text(PAGE)
    assert picture.draw(page, drawn, dark=dark, size="320,200") == f"picture: {drawn}"
    head = drawn.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (320, 200)


def test_without_a_browser_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = picture.draw(tmp_path / "r.html", tmp_path / "r.png")
    assert said.startswith("no picture of ")
    assert "there is no chromium on PATH" in said


def browser(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Make a shell script the browser."""
    program = folder / "bin" / "chromium"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


HALF = 'for word; do case "$word" in --screenshot=*) echo half > "${word#--screenshot=}";; esac; done; exit 4'
OLD = b"of an earlier run"


@pytest.mark.parametrize("script", ["exit 3", "exit 0", HALF], ids=["fails", "draws nothing", "fails half-way"])
@pytest.mark.parametrize("old", [False, True], ids=["new", "where there was one before"])
def test_a_browser_that_draws_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, old: bool
) -> None:
    program = browser(tmp_path, monkeypatch, script)
    page, drawn = tmp_path / "r.html", tmp_path / "r.png"
    if old:
        drawn.write_bytes(OLD)
    assert picture.draw(page, drawn) == f"no picture of {page}: {program} gave {script[-1]}"
    assert list(tmp_path.glob("**/*.png")) == [], "an older one would be taken for this report's"


def test_a_new_picture_takes_the_place_of_an_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser(tmp_path, monkeypatch, HALF.replace("exit 4", "exit 0"))
    drawn = tmp_path / "r.png"
    drawn.write_bytes(OLD)
    assert picture.draw(tmp_path / "r.html", drawn) == f"picture: {drawn}"
    assert [(path, path.read_bytes()) for path in tmp_path.glob("**/*.png")] == [(drawn, b"half\n")]


def test_where_there_is_no_room_for_a_profile_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser(tmp_path, monkeypatch, "exit 0")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    said = picture.draw(tmp_path / "r.html", tmp_path / "r.png")
    assert said.startswith(f"no picture of {tmp_path / 'r.html'}: ")
    assert "nowhere" in said

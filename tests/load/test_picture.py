"""A page becomes a picture where there is a browser, and where there is none the report says so and goes on."""

from __future__ import annotations

import struct
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


@pytest.mark.parametrize("script", ["exit 3", "exit 0"], ids=["fails", "draws nothing"])
def test_a_browser_that_draws_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "chromium"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = picture.draw(tmp_path / "r.html", tmp_path / "r.png")
    assert said == f"no picture of {tmp_path / 'r.html'}: {program} gave {script[-1]}"

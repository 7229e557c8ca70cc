"""Runs are kept, the oldest forgotten, and the index compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shards.load import history
from tests.load.test_report import document, outcome, references


def made(started: str, **changes: object) -> dict[str, Any]:
    return {**document(outcome()), "started": started, **changes}


def test_runs_are_compared_and_each_is_kept(tmp_path: Path) -> None:
    history.keep(made("2026-01-01T10:00:00+00:00"), tmp_path / "loadtest-10k.json")
    missed = [{"name": "p99_ms", "target": "< 50", "measured": 70.0, "ok": False}]
    history.keep(made("2026-01-02T10:00:00+00:00", verdict="fail", targets=missed), tmp_path / "loadtest-10k.json")
    index = (tmp_path / "index.html").read_text()
    assert "passed 1 of 2" in index
    assert index.index("2026-01-02") < index.index("2026-01-01")
    assert "p99_ms" in index
    pages = [f"history/loadtest-10k/{stamp}.html" for stamp in ("20260102T100000Z", "20260101T100000Z")]
    assert references(index) == [f'href="{page}"' for page in pages], "it opens offline, and so do they"
    for page in pages:
        assert references((tmp_path / page).read_text()) == []


def test_a_page_of_somebody_elses_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("my own page")
    said = history.keep(made("2026-01-01T10:00:00+00:00"), tmp_path / "r.json")
    assert said
    assert "somebody else's" in said
    assert (tmp_path / "index.html").read_text() == "my own page"
    assert list((tmp_path / "history" / "loadtest-10k").glob("*.html"))


def test_the_oldest_runs_are_forgotten(tmp_path: Path) -> None:
    for day in range(1, 29):
        for month in (1, 2):
            history.keep(made(f"2026-{month:02}-{day:02}T10:00:00+00:00"), tmp_path / "r.json")
    kept = sorted(path.name for path in (tmp_path / "history" / "loadtest-10k").glob("*.html"))
    assert len(kept) == history.KEPT
    assert kept[0] == "20260127T100000Z.html"


def test_what_cannot_be_read_does_not_spoil_the_index(tmp_path: Path) -> None:
    history.keep(made("2026-01-01T10:00:00+00:00"), tmp_path / "r.json")
    (tmp_path / "history" / "loadtest-10k" / "x.run.json").write_text("{")
    history.keep(made("2026-01-02T10:00:00+00:00"), tmp_path / "r.json")
    assert "of 2" in (tmp_path / "index.html").read_text()

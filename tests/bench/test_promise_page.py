"""The page says of the promise what is kept of its runs."""

from __future__ import annotations

from shards.load.promise import document
from tests.bench.promise_page import KEPT, PAGE, markdown, page, row, with_rows
from tests.load.test_promise import load, said


def test_of_a_report_is_kept_what_the_page_says() -> None:
    report = document(said(9_750, 0), load(9_750, 9_750), said(11_700, 1), load(11_700, 9_990), 99.0, "abc")
    report["host"] = {"descriptors": 20_000}
    found = row(report)
    assert "| 1 | 20,000 | 9,750 | 9,750 | 11,700 | 9,990 | pass | abc, 2026-01-01 |" in markdown([found])
    before = {**found, "commit": None, "held_of_more": 9_994}
    other = {**before, "edges": 2}
    assert with_rows([before, other], [found]) == [found, other]
    assert "| not kept |" in markdown([before])


def test_the_documentation_has_the_table_of_what_is_kept() -> None:
    assert page(PAGE.read_text(), KEPT.read_text()) == PAGE.read_text(), "run `python -m tests.bench.promise_page`"

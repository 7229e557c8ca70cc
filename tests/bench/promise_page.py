"""``python -m tests.bench.promise_page [REPORT…]``: puts what `nox -s promise` found into the documentation.

Each report (default: reports/promise.json) takes the place of the kept one with as many edges and files, in
docs/promise.json, and the table of docs/tuning.md is made anew of all that is kept. So: run it after each of the
sessions, or once with the reports of all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.load.promise import held
from shards.load.scenarios import repository
from tests.made_pages import with_made

KEPT, PAGE = repository() / "docs" / "promise.json", repository() / "docs" / "tuning.md"
_FOUND = repository() / "reports" / "promise.json"
_COMMAND = "python -m tests.bench.promise_page"
_HEAD = "| edges | files each | promised | held | a fifth more | held of it | verdict | commit, date |"

Row = Mapping[str, Any]


def row(report: Mapping[str, Any]) -> Row:
    """Give what is kept of a report, see `shards.load.promise.document`."""
    (promised, beyond), (kept, broken) = report["doctor"], report["loads"]
    return {
        "edges": promised["edges"],
        "files": report["host"]["descriptors"],
        "promised": promised["connections"],
        "held": held(kept),
        "more": beyond["connections"],
        "held_of_more": held(broken),
        "verdict": report["verdict"],
        "commit": report["commit"],
        "date": report["started"][:10],
    }


def with_rows(kept: Sequence[Row], found: Iterable[Row]) -> list[Row]:
    """Put rows in the place of those with as many edges and files."""
    rows = {(one["edges"], one["files"]): one for one in (*kept, *found)}
    return sorted(rows.values(), key=lambda one: (-one["files"], one["edges"]))


def markdown(rows: Iterable[Row]) -> str:
    """Make the table; what was not kept of a run is not known."""
    return "\n".join([_HEAD, "|---" * 8 + "|", *map(_line, rows)])


def _line(one: Row) -> str:
    figures = " | ".join(f"{one[name]:,}" for name in ("edges", "files", "promised", "held", "more", "held_of_more"))
    when = f"{one['commit']}, {one['date']}" if one["commit"] else "not kept"
    return f"| {figures} | {one['verdict'] or 'not kept'} | {when} |"


def page(text: str, kept: str) -> str:
    """Put the table of what is kept, JSON, in the place of the one that a page has."""
    return with_made(text, "docs/promise.json", _COMMAND, markdown(json.loads(kept)))


def main(reports: Sequence[str]) -> None:
    """Keep what reports say, and make the table anew."""
    sources = [Path(one) for one in reports] or [one for one in (_FOUND,) if one.exists()]
    rows = with_rows(json.loads(KEPT.read_text()), [row(json.loads(one.read_text())) for one in sources])
    KEPT.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(), KEPT.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])

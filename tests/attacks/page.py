"""``python -m tests.attacks.page``: puts what `nox -s attacks` found into docs/attacks.json and docs/security.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.attacks.judge import markdown
from tests.fleet.runner import ROOT
from tests.made_pages import with_made

FOUND, KEPT, PAGE = ROOT / "reports" / "attacks.json", ROOT / "docs" / "attacks.json", ROOT / "docs" / "security.md"


def with_table(page: str, result: str) -> str:
    """Put a result's table in the place of the one that a page has.

    Args:
        page: its text.
        result: what a session has left, JSON.
    """
    return with_made(page, "docs/attacks.json", "python -m tests.attacks.page", markdown(json.loads(result)))


def main() -> int:
    """Keep it, where a session has left one; else make the table anew of what is kept."""
    source: Path = FOUND if FOUND.exists() else KEPT
    if not source.exists():
        print("nothing was found yet: `nox -s attacks`", file=sys.stderr)
        return 1
    result = source.read_text()
    KEPT.write_text(result)
    PAGE.write_text(with_table(PAGE.read_text(), result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

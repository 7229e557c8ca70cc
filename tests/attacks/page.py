"""``python -m tests.attacks.page``: puts what `nox -s attacks` found into docs/attacks.json and docs/security.md."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tests.attacks.judge import markdown
from tests.fleet.runner import ROOT

FOUND, KEPT, PAGE = ROOT / "reports" / "attacks.json", ROOT / "docs" / "attacks.json", ROOT / "docs" / "security.md"

_BEGIN, _END = "<!-- made of docs/attacks.json by `python -m tests.attacks.page` -->", "<!-- end -->"


def with_table(page: str, result: str) -> str:
    """Put a result's table in the place of the one that a page has.

    Args:
        page: its text.
        result: what a session has left, JSON.
    """
    made = f"{_BEGIN}\n{markdown(json.loads(result))}\n{_END}"
    return re.sub(rf"{re.escape(_BEGIN)}.*?{re.escape(_END)}", lambda _: made, page, flags=re.S)


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

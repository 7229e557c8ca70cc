"""Tables in the documentation that are made of what was measured, and kept beside it as JSON."""

from __future__ import annotations

import re

_END = "<!-- end -->"


def with_made(page: str, source: str, command: str, made: str) -> str:
    """Put what was made of a file in the place of what a page has of it.

    Args:
        page: its text.
        source: the file, as the page names it.
        command: that makes it anew.
        made: the text.

    Raises:
        ValueError: the page has no such place, or several.
    """
    begin = f"<!-- made of {source} by `{command}` -->"
    anew, places = re.subn(
        rf"{re.escape(begin)}.*?{re.escape(_END)}", lambda _: f"{begin}\n{made}\n{_END}", page, flags=re.S
    )
    if places != 1:
        raise ValueError(f"{places} places of a page begin with {begin} and end with {_END}")
    return anew

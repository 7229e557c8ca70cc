"""What a group, session or id may be called."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}\Z")


def is_name(text: str) -> bool:
    """Tell whether `text` can name a group or a session: 1-100 of ``A-Z a-z 0-9 _ . : -``."""
    return _NAME.match(text) is not None

"""Which release of the app a directory holds."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def release_of(app_dir: Path) -> str:
    """Name the release: git's short commit, ``+dirty`` where files differ from it; else the time, UTC."""
    commit = _git(app_dir, "rev-parse", "--short", "HEAD")
    if not commit:
        return time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return commit + ("+dirty" if _git(app_dir, "status", "--porcelain", "--", ".") else "")


def _git(directory: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()

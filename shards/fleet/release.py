"""Which release of the app a directory holds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_NOT_OF_THE_APP = {"__pycache__", "node_modules", "venv"}


def release_of(app_dir: Path) -> str:
    """Name the release, the same each time until the directory changes.

    Git's short commit, ``+dirty`` where files differ from it; elsewhere a digest of the Python files.
    """
    commit = _git(app_dir, "rev-parse", "--short", "HEAD")
    if not commit:
        return f"files-{_digest(app_dir)}"
    # What Python leaves beside the sources as soon as they are imported makes no other release of them.
    changed = _git(app_dir, "status", "--porcelain", "--", ".", ":(exclude,glob)**/__pycache__/**")
    return commit + ("+dirty" if changed else "")


def _git(directory: Path, *arguments: str) -> str:
    try:
        # Replicas that start at once ask at once: none of them may take the lock of the repository's index.
        command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def _python_files(directory: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _NOT_OF_THE_APP]
        yield from (Path(path) / name for name in files if name.endswith(".py"))


def _digest(directory: Path) -> str:
    digest = hashlib.blake2b(digest_size=4)
    for file in sorted(_python_files(directory)):
        # Gone since it was listed, or not for us to read: the app can't import it either.
        with contextlib.suppress(OSError):
            digest.update(os.fsencode(file.relative_to(directory)) + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()

"""Which release of the app a directory holds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

UNCOMMITTED = "+dirty."
"""What the name of a release has in it that nobody can check out."""

_DIGEST_BYTES = 4
_NOT_OF_THE_APP = {"__pycache__", "node_modules", "venv"}
_CODE = ("*.py", "*.html", "*.css", "*.js")


def release_of(app_dir: Path) -> str:
    """Name the release, the same each time until the directory changes.

    Git's short commit; where files differ from it, ``+dirty.`` and a digest of how. What an app writes while it runs
    makes no other release of it: files that git does not know, unless they are code, templates or styles by their
    names, and those that are no text, such as a database. Outside git it is a digest of the Python files.
    """
    commit = _git(app_dir, "rev-parse", "--short", "HEAD")
    if not commit:
        return f"files-{_digest(app_dir, _python_files(app_dir))}"
    changes, new = _changes(app_dir), _unknown_code(app_dir)
    if changes is None or new is None:
        return f"{commit}{UNCOMMITTED}unknown"
    return f"{commit}{UNCOMMITTED}{_digest(app_dir, new, changes)}" if changes or new else commit


def _unknown_code(app_dir: Path) -> list[Path] | None:
    """List what git does not know and the app may use all the same; None: git does not say."""
    listed = _git(app_dir, "ls-files", "-z", "--others", "--exclude-standard", *_CODE)
    if listed is None:
        return None
    names = listed.split("\0")[:-1]
    return [app_dir / name for name in names if all(map(_is_the_apps, Path(name).parts[:-1]))]


def _changes(app_dir: Path) -> str | None:
    """Tell how the text files below a directory differ from git's commit; None: git does not say."""
    compared = ("diff", "HEAD", "--relative", "--no-renames", "--no-ext-diff", "--no-color")
    counted = _git(app_dir, *compared, "--numstat", "-z")
    if not counted:
        return counted
    lines = [line.split("\t", 2) for line in counted.split("\0")[:-1]]
    no_texts = [f":(exclude,literal){name}" for added, _, name in lines if added == "-"]
    return _git(app_dir, *compared, "--", ".", *no_texts)


def _git(directory: Path, *arguments: str) -> str | None:
    """Ask git; None: it fails, there is none, or it takes too long."""
    try:
        # Replicas that start at once ask at once: none of them may take the lock of the repository's index.
        command = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
        answer = subprocess.run(command, capture_output=True, errors="surrogateescape", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip("\n")


def _python_files(directory: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(directory):
        folders[:] = filter(_is_the_apps, folders)
        yield from (Path(path) / name for name in files if name.endswith(".py"))


def _is_the_apps(folder: str) -> bool:
    return not folder.startswith(".") and folder not in _NOT_OF_THE_APP


def _digest(directory: Path, files: Iterable[Path], changes: str = "") -> str:
    digest = hashlib.blake2b(os.fsencode(changes), digest_size=_DIGEST_BYTES)
    for file in sorted(files):
        # Gone since it was listed, or not for us to read: the app can't import it either.
        with contextlib.suppress(OSError):
            digest.update(os.fsencode(file.relative_to(directory)) + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()

"""The files that the parts' output goes to, read from their ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from shards.errors import UsageError

_TAIL_BYTES = 16_384
_EVERY_S = 0.3


async def lines(logs: Path, name: str | None, follow: bool) -> AsyncIterator[tuple[str, str]]:
    """Give the last lines of the parts' logs, and what is added while one follows.

    Args:
        logs: the directory of the files.
        name: of one part; None: of all.
        follow: go on until cancelled.

    Yields:
        (part, line)

    Raises:
        UsageError: there is no log of that name.
    """
    tails = {path: _Tail(path) for path in _chosen(logs, name)}
    while True:
        for path, tail in tails.items():
            for line in await asyncio.to_thread(tail.new):
                yield path.stem, line
        if not follow:
            return
        await asyncio.sleep(_EVERY_S)
        for path in set(_chosen(logs, name)) - set(tails):
            tails[path] = _Tail(path)


def _chosen(logs: Path, name: str | None) -> Sequence[Path]:
    found = sorted(logs.glob("*.log"))
    if name is None:
        return found
    for path in found:
        if path.stem == name:
            return [path]
    raise unknown(name, [path.stem for path in found])


def unknown(name: str, known: Sequence[str]) -> UsageError:
    """Give the error that there is no log of a name."""
    return UsageError(f"there is no log of {name!r}" + (f": there are {', '.join(known)}" if known else ""))


class _Tail:
    """Reads what is new in a file, which may be rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = max(0, path.stat().st_size - _TAIL_BYTES) if path.exists() else 0
        self._skip_first = self._offset > 0
        self._rest = b""

    def new(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                self._notice_rotation(file.fileno())
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        self._offset += len(data)
        *complete, self._rest = (self._rest + data).split(b"\n")
        if self._skip_first and complete:
            # The tail begins in the middle of a line.
            complete, self._skip_first = complete[1:], False
        return [line.decode(errors="replace").rstrip("\r") for line in complete]

    def _notice_rotation(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if self._inode not in (0, found.st_ino) or found.st_size < self._offset:
            self._offset, self._rest = 0, b""
        self._inode = found.st_ino


def last_line(text: str) -> str:
    """Give the last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def last_line_of(path: Path) -> str:
    """Give the last line of a file that is not blank; empty where there is none."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        return last_line(file.read().decode(errors="replace"))
    return ""

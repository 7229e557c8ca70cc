"""What was before `inv tune --apply`, kept until `--revert` has brought it back.

It is written before the first setting is, so that an apply that is interrupted anywhere can be taken back; and what
it says once it goes on saying, however often one applies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from shards.errors import ShardsError
from shards.fleet.state import write_atomically


class Record(msgspec.Struct, frozen=True):
    """What was.

    Attributes:
        before: value of each setting before it was first changed.
        applied: what each was, or was to be, set to.
        files: what was in each file before; None: it was not there.
    """

    before: dict[str, str]
    applied: dict[str, str]
    files: dict[str, str | None]

    def with_more(self, before: Mapping[str, str], applied: Mapping[str, str]) -> Record:
        """Give the record after settings are changed once more: what was before the first change stays."""
        return Record({**before, **self.before}, {**self.applied, **applied}, self.files)


class Records:
    """The place of the record.

    Args:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Record | None:
        """Read the record; None: there is nothing to take back.

        Raises:
            ShardsError: it is damaged, or can't be read.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise ShardsError(
                f"cannot read {self.path}, which says what was before `inv tune --apply`: {error}; "
                "see to it by hand, then delete it"
            ) from None

    def write(self, record: Record) -> None:
        """Write the record, in one piece, and see it on the disk."""
        write_atomically(self.path, msgspec.json.format(msgspec.json.encode(record)).decode())
        _sync(self.path.parent)

    def forget(self) -> None:
        """Delete the record."""
        self.path.unlink(missing_ok=True)
        _sync(self.path.parent)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Change settings alone.

        Raises:
            ShardsError: another command does.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ShardsError("another `inv tune` is changing settings; wait until it is through") from None
            yield


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

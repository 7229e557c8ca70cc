"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from shards.errors import ShardsError


def write(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it.

    Raises:
        ShardsError: it could not be written; says why.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ShardsError(f"cannot write the report {path}: {error.strerror or error}") from error


def write_json(document: Any, path: Path) -> None:
    """Write a document as JSON.

    Raises:
        ShardsError: it could not be written; says why.
    """
    write(path, msgspec.json.format(msgspec.json.encode(document), indent=1))

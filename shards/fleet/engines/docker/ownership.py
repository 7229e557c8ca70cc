"""Whose a container, a network or a volume is: fleets of one name may be kept from several directories.

They share a daemon, which knows names only. So what is made carries a mark, and what carries another's is left alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

MARK_LABEL = "shards.directory"


def mark_of(directory: Path, host: str | None = None) -> str:
    """Give the mark of a fleet: the host that it is kept from (this one), and its directory there."""
    return f"{host or _this_host()}:{directory}"


def _this_host() -> str:
    """Tell this host from others, whatever it is called from one day to the next."""
    with contextlib.suppress(OSError):
        if known := Path("/etc/machine-id").read_text().strip():
            return known[:12]
    return os.uname().nodename


def may_exist(path: str) -> bool:
    """Tell whether a path is there, or may be: this user need not be let in to look."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def is_anothers(found: str, ours: str, exists: Callable[[str], bool] = may_exist) -> bool:
    """Tell whether a mark is that of a fleet of the same name which is kept from elsewhere.

    What has no mark is of Compose, or of an older release of ours, and whose directory is gone has nobody any more:
    both are taken over.

    Args:
        found: the mark; empty: there is none.
        ours: that of the fleet that asks.
        exists: tells whether this host has a path.
    """
    if found in ("", ours):
        return False
    (host, _, path), here = found.partition(":"), ours.partition(":")[0]
    return host != here or exists(path)


def refusal(project: str, marks: Iterable[str], ours: str) -> str | None:
    """Say that a fleet is another's, and what to do; None: it is not."""
    for found in marks:
        if is_anothers(found, ours):
            host, _, path = found.partition(":")
            where = path if host == ours.partition(":")[0] else f"{path} of another host"
            return (
                f"there is a fleet {project} already, kept in {where}: run its commands from there (`inv down --purge` "
                "deletes it), or choose another name with --project"
            )
    return None

"""Whose a container, a network or a volume is: fleets of one name may be kept from several directories.

They share a daemon, which knows names only. So what is made carries a mark, and what carries another's is left alone.
What there was before, as Compose makes it, carries none, and labels can't be changed: a mark beside the data, made when
a fleet goes on with it, says whose that is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shards.fleet.engines.docker.stack import FLEET_LABEL

MARK_LABEL = "shards.owner"

OWNER = "owner"
"""The short name of what carries the mark beside the data: a volume, or a configuration in a swarm."""

T = TypeVar("T")

Labels = Mapping[str, str] | None


def mark_of(id: str, directory: Path, host: str | None = None) -> str:
    """Give the mark of a fleet: by its id it is known; where it was kept when the mark was made is for people only.

    Args:
        id: of the fleet, kept in its directory, so that it moves with that.
        directory: of the fleet.
        host: that it is on; None: this one.
    """
    return f"{id} {host or os.uname().nodename}:{directory}"


def _id_of(mark: str) -> str:
    return mark.partition(" ")[0]


def is_anothers(found: str, ours: str) -> bool:
    """Tell whether a mark is that of a fleet of the same name which is kept from elsewhere.

    Args:
        found: the mark; without an id in it, or empty, it is nobody's.
        ours: that of the fleet that asks.
    """
    return bool(_id_of(found)) and _id_of(found) != _id_of(ours)


@dataclass(frozen=True)
class Claim:
    """What a fleet takes for its own.

    Attributes:
        mark: the fleet's.
        beside_data: finds the mark beside the data; empty: there is none. It is asked only where something is nobody's.
    """

    mark: str
    beside_data: Callable[[], str]

    def among(self, found: Iterable[T], labels_of: Callable[[T], Labels]) -> list[T]:
        """Choose what is not another's: what is nobody's by itself is whose the data is."""
        marks = [(one, mark_on(labels_of(one))) for one in found]
        data = self.beside_data() if any(not _id_of(mark) for _, mark in marks) else ""
        return [one for one, mark in marks if not is_anothers(mark if _id_of(mark) else data, self.mark)]


def labels_of(one: Any) -> Labels:
    """Give the labels of a network or a volume, as the SDK has it."""
    found: Labels = one.attrs.get("Labels")
    return found


def mark_on(labels: Labels) -> str:
    """Read a mark; empty: there is none."""
    return (labels or {}).get(MARK_LABEL, "")


def refusal(project: str, marks: Iterable[str], ours: str, id_file: Path) -> str | None:
    """Say that a fleet is another's, and what to do; None: it is not.

    Args:
        project: its name.
        marks: of all that is called so.
        ours: that of the fleet that asks.
        id_file: where that has its id.
    """
    for found in sorted(marks):
        if not is_anothers(found, ours):
            continue
        if _place_of(found) == _place_of(ours):
            return f"fleet {project} is this directory's, which has lost its id: {_take(found, id_file)} gives it back"
        return (
            f"there is a fleet {project} already, kept in {_where(found)}: run its commands from there "
            "(`inv down --purge` deletes it), or choose another name with --project; if that directory is gone "
            f"for good, {_take(found, id_file)} makes the fleet this one's"
        )
    return None


def left_alone(project: str, marks: Iterable[str], ours: str, id_file: Path) -> str:
    """Say what is left alone since it is another's; empty: there is nothing.

    Args:
        project: the fleets' name.
        marks: of all that is called so.
        ours: that of the fleet that asks.
        id_file: where that has its id.
    """
    others = sorted(found for found in marks if is_anothers(found, ours))
    lost = [found for found in others if _place_of(found) == _place_of(ours)]
    places = sorted({_where(found) for found in others if found not in lost})
    said = [f"what Docker has of a fleet {project} that is kept in {', '.join(places)} is left alone"] if places else []
    said += [
        f"what Docker has of fleet {project} under an id that this directory has lost is left alone: "
        f"{_take(found, id_file)} makes it this one's again"
        for found in lost
    ]
    return "; ".join(said)


def nobodys(project: str, marks: Iterable[str]) -> str:
    """Say what is left alone since Compose has made it and no `inv up` has gone on with it; empty: there is nothing.

    Args:
        project: the fleet's name.
        marks: of all that is called so.
    """
    if set(marks) != {""}:
        return ""
    return (
        f"what Docker has of a fleet {project} that Compose has made is left alone: "
        f"`inv up --engine docker --project {project}` goes on with its data, `docker compose down --volumes` with its "
        f"file deletes it, as `docker volume rm $(docker volume ls -q --filter label={FLEET_LABEL}={project})` does"
    )


def _take(mark: str, id_file: Path) -> str:
    """Give the command that makes a fleet that of a directory."""
    return f"`mkdir -p {id_file.parent} && echo {_id_of(mark)} > {id_file}`"


def _place_of(mark: str) -> str:
    return mark.partition(" ")[2]


def _where(mark: str) -> str:
    host, _, path = _place_of(mark).partition(":")
    return f"{path} on host {host}"

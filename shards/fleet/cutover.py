"""The procedure that moves a fleet from one color to the other, as a table. Pure.

    DEPLOY ──> CHECK ──> SWITCH ──> MOVE ──> RETIRE ──> DONE
      │          │          │
      └──────────┴──────────┴─ failed ──> UNDO ──> UNDONE

- DEPLOY   the idle color's replicas run
- CHECK    each of them says that it is ready, and which release it runs
- SWITCH   the edges send new requests to it, and say so themselves
- MOVE     the sockets of the color that was active move over; its count in the registry reads 0
- RETIRE   that color's replicas are stopped and forgotten
- UNDO     back to the color that was active; the other one is taken away

Each step may be done again: a cutover whose controller was killed is read from the journal and goes on with the step
it was at. Until SWITCH is through, the color that was active serves; from MOVE on there is no way but forward, and
the way back is a cutover in the other direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import msgspec

from shards.errors import UsageError
from shards.fleet.spec import Color, other_color

Verb = Literal["promote", "rollback"]


class Step(StrEnum):
    """Where a cutover stands: the step that is being done, or how it ended."""

    DEPLOY = "deploy"
    CHECK = "check"
    SWITCH = "switch"
    MOVE = "move"
    RETIRE = "retire"
    UNDO = "undo"
    DONE = "done"
    UNDONE = "undone"


class Event(StrEnum):
    """How a step went."""

    OK = "ok"
    FAILED = "failed"


TABLE: Mapping[tuple[Step, Event], Step] = {
    (Step.DEPLOY, Event.OK): Step.CHECK,
    (Step.DEPLOY, Event.FAILED): Step.UNDO,
    (Step.CHECK, Event.OK): Step.SWITCH,
    (Step.CHECK, Event.FAILED): Step.UNDO,
    (Step.SWITCH, Event.OK): Step.MOVE,
    (Step.SWITCH, Event.FAILED): Step.UNDO,
    (Step.MOVE, Event.OK): Step.RETIRE,
    (Step.RETIRE, Event.OK): Step.DONE,
    (Step.UNDO, Event.OK): Step.UNDONE,
}
"""What follows a step. A pair that is missing has no way on: the cutover stays where it is until it is run again."""

ENDED = frozenset({Step.DONE, Step.UNDONE})

_BEFORE_SWITCH = frozenset({Step.DEPLOY, Step.CHECK})


@dataclass(frozen=True)
class Cutover:
    """A cutover under way.

    Attributes:
        verb: the command that does it.
        old: the color that was active when it began.
        new: the color that shall be.
        release: what `new` runs.
        step: where it stands.
        fresh: `new` is deployed from nothing; False where it still runs, since the cutover takes another one back.
    """

    verb: Verb
    old: Color
    new: Color
    release: str
    step: Step = Step.DEPLOY
    fresh: bool = True

    def after(self, event: Event) -> Cutover | None:
        """Give the cutover after its step went so; None: there is no way on from here."""
        step = TABLE.get((self.step, event))
        return replace(self, step=step) if step else None

    @property
    def deploys_afresh(self) -> bool:
        """What runs of the new color is of no known age and must go first."""
        return self.fresh and self.step is Step.DEPLOY

    @property
    def fleet_state(self) -> str:
        """What `inv status` calls this."""
        if self.verb == "rollback" or self.step is Step.UNDO:
            return "rolling_back"
        if self.step in _BEFORE_SWITCH:
            return "deploying"
        return "switching" if self.step is Step.SWITCH else "draining"

    def entry(self) -> dict[str, Any]:
        """Give it as the journal keeps it."""
        return asdict(self)

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Cutover:
        """Read what `entry` gave."""
        return msgspec.convert(entry, type=cls)


def begin(
    verb: Verb,
    active: Color,
    under_way: Cutover | None,
    release: str,
    previous: str | None,
    releases: Mapping[str, str],
) -> Cutover:
    """Decide what a command does.

    Args:
        verb: the command.
        active: the color that serves.
        under_way: the cutover in the journal, where there is one.
        release: what a promote would deploy.
        previous: what was active before the last cutover.
        releases: what each deployed color runs.

    Returns:
        - nothing under way: a cutover to the idle color;
        - the same command half-way: that one, at the step it was at (before the switch: from the start);
        - the other command half-way: the way back, to the color it came from, which still runs at least in part.

    Raises:
        UsageError: there is nothing to roll back to.
    """
    if under_way is None:
        if verb == "rollback" and previous is None:
            raise UsageError("there is nothing to roll back to: nothing was promoted since this fleet was started")
        target = release if verb == "promote" else previous
        return Cutover(verb, active, other_color(active), target or release)
    if under_way.verb == verb:
        return replace(under_way, step=Step.DEPLOY) if under_way.step in _BEFORE_SWITCH else under_way
    back_to = under_way.old
    return Cutover(verb, under_way.new, back_to, releases.get(back_to, previous or release), fresh=False)

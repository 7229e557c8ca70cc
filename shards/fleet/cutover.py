"""The procedure that moves a fleet from one color to the other, as a table. Pure.

A cutover is at one step at a time. `TABLE` has a row for each: what is done there, and where four events lead from it.
docs/design.md has its diagram, generated from it (`shards.fleet.diagram`).

Rules:

- What a step does may be done again: a cutover whose controller was killed is read from the journal and goes on.
- Until SWITCH is through the color that was active serves, and nothing of it is touched: what fails leads to WITHDRAW,
  which sends everything back to it and takes the new one away.
- From MOVE on what fails stays where it is: run again, it goes on. The way back begins with what was stopped (REVIVE).
- CANARY and HOLD are passed over where they were not asked for.
- The command that began it, run again, goes on (FORWARD); the other one goes back (BACK). A cutover on its way back is
  brought to its end there by either, since half of it is undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import msgspec

from shards.errors import ShardsError
from shards.fleet.release import UNCOMMITTED
from shards.fleet.spec import Color, other_color

Verb = Literal["promote", "rollback"]


class Step(StrEnum):
    """Where a cutover stands: the step that is being done, or how it ended."""

    DEPLOY = "deploy"
    CHECK = "check"
    CANARY = "canary"
    HOLD = "hold"
    SWITCH = "switch"
    MOVE = "move"
    RETIRE = "retire"
    REVIVE = "revive"
    WITHDRAW = "withdraw"
    DONE = "done"
    UNDONE = "undone"


class Event(StrEnum):
    """What happens to a cutover."""

    OK = "ok"
    """The step is done."""
    FAILED = "failed"
    """It could not be done."""
    FORWARD = "forward"
    """The command that began it was given again, after its controller had ended."""
    BACK = "back"
    """The other command was given."""


class Action(StrEnum):
    """What a step does; `shards.fleet.actions` does it."""

    CLEAR_NEW = "clear_new"
    """Stop whatever runs of the new color, of whatever age."""
    START_NEW = "start_new"
    """Start its replicas; each says that it is ready."""
    PROBE_NEW = "probe_new"
    """Ask each who it is, and send a message through it."""
    AWAIT_NEW = "await_new"
    """See that each is (still) ready; those of a host that is gone begin anew elsewhere."""
    SHARE = "share"
    """The edges send it the canary's share of new requests, and say so."""
    WATCH = "watch"
    """Compare the colors' figures for a while."""
    ROUTE_NEW = "route_new"
    """The edges send it all new requests, and say so."""
    MOVE_TO_NEW = "move_to_new"
    """The old color's sockets move over; its count in the registry reads 0."""
    STOP_OLD = "stop_old"
    """The old color's replicas are stopped and forgotten."""
    START_OLD = "start_old"
    """What was stopped of the old color, or lost with its host, runs again, and is ready."""
    ROUTE_OLD = "route_old"
    """The edges send all new requests to the old color, and say so."""
    MOVE_TO_OLD = "move_to_old"
    """The sockets that the new color got move back."""
    STOP_NEW = "stop_new"
    """The new color's replicas are stopped and forgotten."""


class Row(NamedTuple):
    """What a step does, and where each event leads from it; None: it stays there, to be run again."""

    does: tuple[Action, ...]
    ok: Step
    failed: Step | None
    forward: Step
    back: Step

    def on(self, event: Event) -> Step | None:
        """Give the step that follows an event."""
        steps = {Event.OK: self.ok, Event.FAILED: self.failed, Event.FORWARD: self.forward, Event.BACK: self.back}
        return steps[event]


def _table() -> Mapping[Step, Row]:
    S, A = Step, Action  # noqa: N806
    # fmt: off
    return {
        #                does                                          ok          failed      forward     back
        S.DEPLOY:   Row((A.CLEAR_NEW, A.START_NEW),                    S.CHECK,    S.WITHDRAW, S.DEPLOY,   S.WITHDRAW),
        S.CHECK:    Row((A.PROBE_NEW,),                                S.CANARY,   S.WITHDRAW, S.DEPLOY,   S.WITHDRAW),
        S.CANARY:   Row((A.AWAIT_NEW, A.SHARE, A.WATCH),               S.HOLD,     S.WITHDRAW, S.CANARY,   S.WITHDRAW),
        S.HOLD:     Row((),                                            S.SWITCH,   None,       S.SWITCH,   S.WITHDRAW),
        S.SWITCH:   Row((A.AWAIT_NEW, A.ROUTE_NEW),                    S.MOVE,     S.WITHDRAW, S.SWITCH,   S.WITHDRAW),
        S.MOVE:     Row((A.AWAIT_NEW, A.MOVE_TO_NEW),                  S.RETIRE,   None,       S.MOVE,     S.REVIVE),
        S.RETIRE:   Row((A.AWAIT_NEW, A.STOP_OLD),                     S.DONE,     None,       S.RETIRE,   S.REVIVE),
        S.REVIVE:   Row((A.START_OLD,),                                S.WITHDRAW, None,       S.MOVE,     S.REVIVE),
        S.WITHDRAW: Row((A.ROUTE_OLD, A.MOVE_TO_OLD, A.STOP_NEW),      S.UNDONE,   None,       S.WITHDRAW, S.WITHDRAW),
    }
    # fmt: on


TABLE = _table()
ENDED = frozenset({Step.DONE, Step.UNDONE})
_FLEET_STATES = {Step.SWITCH: "switching", Step.MOVE: "draining", Step.RETIRE: "draining"}


@dataclass(frozen=True)
class Cutover:
    """A cutover under way.

    Attributes:
        id: tells it from others.
        verb: the command that began it.
        old: the color that was active then.
        new: the color that shall be.
        release: what `new` runs.
        previous: what `rollback` would have gone back to before it.
        step: where it stands.
        canary: percentage of new requests that `new` gets first; 0: none.
        hold: it waits for a word before the switch.
        failure: why it goes back, where a step failed.
    """

    id: str
    verb: Verb
    old: Color
    new: Color
    release: str
    previous: str | None = None
    step: Step = Step.DEPLOY
    canary: float = 0.0
    hold: bool = False
    failure: str = ""

    def after(self, event: Event, failure: str = "") -> Cutover | None:
        """Give the cutover after an event; None: there is no way on from here, it stays.

        Args:
            event: what happened.
            failure: why, where a step failed.
        """
        step = TABLE[self.step].on(event)
        following = replace(self, step=step, failure=failure or self.failure) if step else None
        return following.after(Event.OK) if following and following._passed_over else following

    @property
    def _passed_over(self) -> bool:
        return (self.step is Step.CANARY and not self.canary) or (self.step is Step.HOLD and not self.hold)

    @property
    def goes_back(self) -> bool:
        """Whether it is on its way back."""
        return self.step in {Step.REVIVE, Step.WITHDRAW}

    @property
    def fleet_state(self) -> str:
        """What `inv status` calls this."""
        if self.verb == "rollback" or self.goes_back:
            return "rolling_back"
        return _FLEET_STATES.get(self.step, "deploying")

    def entry(self) -> dict[str, Any]:
        """Give it as the journal keeps it."""
        return asdict(self)

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Cutover:
        """Read what `entry` gave."""
        return msgspec.convert(entry, type=cls)


def begin(verb: Verb, active: Color, release: str, previous: str | None, id: str) -> Cutover:
    """Begin a cutover to the idle color.

    Args:
        verb: the command.
        active: the color that serves.
        release: what the app's directory holds, which is what is deployed.
        previous: what was active before the last cutover.
        id: a new one.

    Raises:
        ShardsError: there is nothing to roll back to, or what would run is something else.
    """
    if verb == "rollback" and previous is None:
        raise ShardsError("there is nothing to roll back to: nothing was promoted since this fleet was started")
    if verb == "rollback" and release != previous:
        # Who goes back at night would believe that the old release runs.
        way = f"check {previous} out there first"
        if previous and UNCOMMITTED in previous:
            way = "that had changes that were not committed, so make them again first"
        raise ShardsError(
            f"the release before is {previous}, and the app's directory holds {release}: {way}, "
            "or `inv promote` what is there"
        )
    return Cutover(id, verb, active, other_color(active), release, previous)


def go_on(under_way: Cutover, verb: Verb, release: str) -> Cutover:
    """Decide what a command does to a cutover that was left half-way.

    Args:
        under_way: from the journal.
        verb: the command.
        release: what the app's directory holds: where it is deployed again, that is what will run.
    """
    on = under_way.after(Event.FORWARD if verb == under_way.verb else Event.BACK)
    assert on is not None, "these two events lead on from every step"
    return replace(on, release=release) if on.step is Step.DEPLOY else on

"""The procedure of a promote, as a table: every way through it ends, and a second run goes on or goes back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import ShardsError
from shards.fleet.cutover import ENDED, TABLE, Action, Cutover, Event, Step, Verb, begin, go_on

BEFORE_THE_SWITCH = [Step.DEPLOY, Step.CHECK, Step.CANARY, Step.HOLD, Step.SWITCH]


def at(step: Step = Step.DEPLOY, verb: Verb = "promote", canary: float = 0.0, hold: bool = False) -> Cutover:
    return Cutover("1", verb, "blue", "green", "r2", "r0", step, canary, hold)


def walk(cutover: Cutover) -> list[tuple[str, str]]:
    walked = []
    while cutover.step not in ENDED:
        walked.append((str(cutover.step), cutover.fleet_state))
        following = cutover.after(Event.OK)
        assert following is not None
        cutover = following
    return walked


def test_where_all_goes_well() -> None:
    assert walk(at()) == [
        ("deploy", "deploying"),
        ("check", "deploying"),
        ("switch", "switching"),
        ("move", "draining"),
        ("retire", "draining"),
    ]


def test_a_canary_and_a_hold_come_where_they_are_asked_for() -> None:
    steps = [step for step, _ in walk(at(canary=5.0, hold=True))]
    assert steps == ["deploy", "check", "canary", "hold", "switch", "move", "retire"]
    assert "hold" not in [step for step, _ in walk(at(canary=5.0))]
    assert "canary" not in [step for step, _ in walk(at(hold=True))]


@pytest.mark.parametrize("step", [step for step in BEFORE_THE_SWITCH if step is not Step.HOLD])
def test_what_fails_before_sockets_move_leads_back_to_the_color_that_was_active(step: Step) -> None:
    back = at(step, canary=5.0, hold=True).after(Event.FAILED, "why")
    assert back is not None
    assert (back.step, back.failure, back.fleet_state) == (Step.WITHDRAW, "why", "rolling_back")
    end = back.after(Event.OK)
    assert end is not None
    assert (end.step, end.failure) == (Step.UNDONE, "why")


@pytest.mark.parametrize("step", [Step.MOVE, Step.RETIRE, Step.REVIVE, Step.WITHDRAW])
def test_what_fails_later_stays_where_it_is(step: Step) -> None:
    assert at(step).after(Event.FAILED) is None


def test_nothing_of_the_color_that_is_active_is_touched_before_the_switch() -> None:
    old = {Action.MOVE_TO_NEW, Action.STOP_OLD}
    for step in BEFORE_THE_SWITCH:
        assert not old & set(TABLE[step].does)


def test_no_color_is_stopped_before_its_sockets_have_moved() -> None:
    done = [action for step, _ in walk(at(canary=5.0)) for action in TABLE[Step(step)].does]
    for earlier, later in (
        (Action.START_NEW, Action.PROBE_NEW),
        (Action.PROBE_NEW, Action.SHARE),
        (Action.SHARE, Action.WATCH),
        (Action.WATCH, Action.ROUTE_NEW),
        (Action.ROUTE_NEW, Action.MOVE_TO_NEW),
        (Action.MOVE_TO_NEW, Action.STOP_OLD),
    ):
        assert done.index(earlier) < done.index(later)
    assert TABLE[Step.WITHDRAW].does == (Action.ROUTE_OLD, Action.MOVE_TO_OLD, Action.STOP_NEW)


def test_the_new_release_is_checked_before_requests_come_to_it_and_before_it_is_all_there_is() -> None:
    """On every way there, also a second run's."""
    for step in (Step.CANARY, Step.SWITCH, Step.MOVE, Step.RETIRE):
        assert TABLE[step].does[0] is Action.AWAIT_NEW


@given(st.sampled_from(list(TABLE)), st.booleans(), st.lists(st.sampled_from(Event), max_size=12))
def test_every_way_ends_or_stays_at_a_step_that_can_be_done_again(
    start: Step, asked: bool, events: list[Event]
) -> None:
    cutover = at(start, canary=5.0 * asked, hold=asked)
    for event in events:
        following = cutover.after(event)
        if following is None or following.step in ENDED:
            break
        cutover = following
    steps = [step for step, _ in walk(cutover)]
    assert len(steps) == len(set(steps)), "with nothing more in the way it comes to an end, straight"


def test_the_journal_gives_back_what_was_written() -> None:
    for step in Step:
        assert Cutover.read(json.loads(json.dumps(at(step).entry()))) == at(step)


def test_a_cutover_deploys_the_idle_color() -> None:
    assert begin("promote", "blue", "r3", "r1", "7") == Cutover("7", "promote", "blue", "green", "r3", "r1")
    assert begin("rollback", "green", "r1", "r1", "7") == Cutover("7", "rollback", "green", "blue", "r1", "r1")


def test_who_goes_back_gets_the_release_before_and_no_other() -> None:
    with pytest.raises(ShardsError, match="the release before is r1, and the app's directory holds r3"):
        begin("rollback", "green", "r3", "r1", "7")
    with pytest.raises(ShardsError, match=r"check r1 out there first, or `inv promote` what is there"):
        begin("rollback", "green", "r3", "r1", "7")
    with pytest.raises(ShardsError, match="changes that were not committed, so make them again first"):
        begin("rollback", "green", "r3", "r1+dirty.12345678", "7")


def test_there_must_be_something_to_go_back_to() -> None:
    with pytest.raises(ShardsError, match="nothing to roll back to"):
        begin("rollback", "blue", "r3", None, "7")


@pytest.mark.parametrize("verb", ["promote", "rollback"])
@pytest.mark.parametrize("step", [*BEFORE_THE_SWITCH, Step.MOVE, Step.RETIRE])
def test_the_same_command_again_goes_on(verb: Verb, step: Step) -> None:
    on = go_on(at(step, verb, canary=5.0, hold=True), verb, "r9")
    assert (on.old, on.new, on.verb) == ("blue", "green", verb)
    if step in {Step.DEPLOY, Step.CHECK}:
        assert (on.step, on.release) == (Step.DEPLOY, "r9"), "what an earlier try has started may be of another age"
    else:
        assert on.step is (Step.SWITCH if step is Step.HOLD else step), "to be told again is the word that it waits for"
        assert on.release == "r2"


@pytest.mark.parametrize("verb,other", [("promote", "rollback"), ("rollback", "promote")])
@pytest.mark.parametrize("step", [*BEFORE_THE_SWITCH, Step.MOVE, Step.RETIRE, Step.REVIVE, Step.WITHDRAW])
def test_the_other_command_goes_back_from_every_step(verb: Verb, other: Verb, step: Step) -> None:
    back = go_on(at(step, verb, canary=5.0, hold=True), other, "r9")
    assert back.goes_back
    assert back.fleet_state == "rolling_back"
    if step in {Step.MOVE, Step.RETIRE}:
        assert back.step is Step.REVIVE, "what was stopped already must run again"
    assert walk(back)[-1][0] == "withdraw"


def test_a_cutover_whose_way_back_can_not_begin_goes_forward_again() -> None:
    assert go_on(at(Step.REVIVE), "promote", "r9").step is Step.MOVE

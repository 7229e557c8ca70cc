"""The procedure of a promote, as a table: every way through it ends, and a second run goes on or goes back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.errors import UsageError
from shards.fleet.cutover import ENDED, TABLE, Cutover, Event, Step, Verb, begin

RUNNING = [step for step in Step if step not in ENDED]


def new(step: Step = Step.DEPLOY, verb: Verb = "promote") -> Cutover:
    return Cutover(verb, "blue", "green", "r2", step)


def again(verb: Verb, under_way: Cutover | None, previous: str | None = "r1") -> Cutover:
    return begin(verb, "blue", under_way, "r3", previous, {"blue": "r1", "green": "r2"})


def test_where_all_goes_well() -> None:
    cutover: Cutover | None = new()
    walked = []
    while cutover and cutover.step not in ENDED:
        walked.append((cutover.step, cutover.fleet_state))
        cutover = cutover.after(Event.OK)
    assert walked == [
        (Step.DEPLOY, "deploying"),
        (Step.CHECK, "deploying"),
        (Step.SWITCH, "switching"),
        (Step.MOVE, "draining"),
        (Step.RETIRE, "draining"),
    ]
    assert cutover is not None
    assert cutover.step is Step.DONE


@pytest.mark.parametrize("step", [Step.DEPLOY, Step.CHECK, Step.SWITCH])
def test_a_step_that_fails_before_sockets_move_leads_back(step: Step) -> None:
    undo = new(step).after(Event.FAILED)
    assert undo is not None
    assert (undo.step, undo.fleet_state) == (Step.UNDO, "rolling_back")
    after = undo.after(Event.OK)
    assert after is not None
    assert after.step is Step.UNDONE


@pytest.mark.parametrize("step", [Step.MOVE, Step.RETIRE, Step.UNDO])
def test_one_that_fails_later_stays_where_it_is(step: Step) -> None:
    assert new(step).after(Event.FAILED) is None


@given(st.sampled_from(RUNNING), st.lists(st.sampled_from(Event), max_size=12))
def test_every_way_ends_or_stays_at_a_step_that_can_be_done_again(start: Step, events: list[Event]) -> None:
    cutover = new(start)
    for event in events:
        following = cutover.after(event)
        if following is None:
            break
        cutover = following
    assert cutover.step in ENDED or (cutover.step, Event.OK) in TABLE


def test_the_journal_gives_back_what_was_written() -> None:
    for step in Step:
        assert Cutover.read(json.loads(json.dumps(new(step).entry()))) == new(step)


def test_a_promote_deploys_the_idle_color_and_a_rollback_the_release_before() -> None:
    assert again("promote", None) == Cutover("promote", "blue", "green", "r3")
    assert again("rollback", None) == Cutover("rollback", "blue", "green", "r1")


def test_there_must_be_something_to_go_back_to() -> None:
    with pytest.raises(UsageError, match="nothing to roll back to"):
        again("rollback", None, previous=None)


@pytest.mark.parametrize("verb", ["promote", "rollback"])
@pytest.mark.parametrize("step", RUNNING)
def test_the_same_command_again_goes_on(verb: Verb, step: Step) -> None:
    on = again(verb, new(step, verb))
    assert (on.old, on.new, on.release) == ("blue", "green", "r2")
    if step in {Step.DEPLOY, Step.CHECK}:
        assert on.step is Step.DEPLOY
        assert on.deploys_afresh, "what an earlier try has started may be of another age"
    else:
        assert on.step is step
        assert not on.deploys_afresh


@pytest.mark.parametrize("step", RUNNING)
def test_the_other_command_goes_back_to_what_still_runs(step: Step) -> None:
    back = again("rollback", new(step))
    assert back == Cutover("rollback", "green", "blue", "r1", fresh=False)
    assert not back.deploys_afresh
    assert back.fleet_state == "rolling_back"

"""The judge of `clients_survive` sees what went wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.clients_survive import holds, judge

KILLED_AT = 100.0


def crowd(**changes: Any) -> dict[str, Any]:
    record = {"group": "g", "place": 0, "heard": [[1, "a"], [2, "b"]], "lost": [100.1], "back": [90.0, 101.0]}
    record |= {"gaps": 0, "faults": [], **changes}
    return {"records": [record], "acks": [["g", 1, "a"], ["g", 2, "b"]], "unacked": []}


def verdict(crowd: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    found = judge([crowd], [crowd], KILLED_AT)
    return found, holds({"wanted": {"python": 1, "deliveries": 2}, "clients": {"python": found}})


def test_a_client_that_came_back_with_everything_is_well() -> None:
    found, well = verdict(crowd())
    assert well
    assert (found["cut_off"], found["delivered"], found["resumed_s"]["max"]) == (1, 2, 1.0)


@pytest.mark.parametrize(
    "changes,wrong",
    [
        ({"heard": [[1, "a"]]}, "lost"),
        ({"heard": [[1, "a"], [2, "b"], [3, "b"]]}, "duplicated"),
        ({"heard": [[2, "b"], [1, "a"]]}, "reordered"),
        ({"gaps": 1}, "gaps"),
        ({"faults": ["hole"]}, "faults"),
        ({"back": [90.0]}, "never_back"),
    ],
)
def test_what_went_wrong_is_counted(changes: dict[str, Any], wrong: str) -> None:
    found, well = verdict(crowd(**changes))
    assert found[wrong] == 1
    assert not well


def test_a_message_acked_at_an_offset_that_another_one_has_is_lost_too() -> None:
    found, well = verdict(crowd() | {"acks": [["g", 1, "a"], ["g", 2, "c"], ["g", 2, "b"]]})
    assert (found["lost"], well) == (1, False)


def test_where_nothing_was_published_nothing_is_proven() -> None:
    found, well = verdict({**crowd(heard=[]), "acks": []})
    assert (found["delivered"], found["lost"], well) == (0, 0, False)


def test_a_client_that_took_too_long_fails_the_run() -> None:
    assert not verdict(crowd(back=[90.0, 103.5]))[1]


def test_a_publish_without_its_ack_fails_the_run() -> None:
    assert not verdict(crowd() | {"unacked": ["c"]})[1]


def test_a_kill_that_hit_nobody_proves_nothing() -> None:
    assert not verdict(crowd(lost=[]))[1]

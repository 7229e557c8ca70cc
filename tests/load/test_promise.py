"""A promise is kept only where all is held that was promised, no fifth more, and the doctor has said both."""

from __future__ import annotations

from typing import Any

import pytest

from shards.descriptors import sockets_per_edge
from shards.errors import UsageError
from shards.load.promise import FEWEST, MORE, Said, document, files_for, held, judged, lines


def said(connections: int, exit: int) -> Said:
    fits = exit == 0
    answer = f"this host can hold 9,750 sockets: {connections:,} {'fit' if fits else 'do not fit'}"
    return Said(exit, {"connections": connections, "fits": fits, "limit": "nofile", "edges": 1, "answer": answer})


def load(wanted: int, opened: int, **more: int) -> dict[str, Any]:
    failures = [{"reason": "no answer", "count": wanted - opened}] if opened < wanted else []
    connections = {"wanted": wanted, "opened": opened, "not_back": 0, "reconnects": 0, "failures": failures}
    return {
        "started": "2026-01-01T00:00:00+00:00",
        "host": {},
        "fleet": {"state": "steady"},
        "connections": connections | {name: more[name] for name in connections.keys() & more.keys()},
        "messages": {"lost": more.get("lost", 0)},
        "generator": {"saturated": bool(more.get("saturated", 0))},
        "problems": [],
        "errors": [],
    }


KEPT, BROKEN = load(9_750, 9_750), load(11_700, 9_968)


def missed(**seen: Any) -> list[str]:
    """Name what was missed where all else went well."""
    well = {"promised": said(9_750, 0), "kept": KEPT, "beyond": said(11_700, 1), "broken": BROKEN}
    return [one["name"] for one in judged(**{**well, **seen}) if not one["ok"]]


def test_a_promise_that_is_kept() -> None:
    found = document(said(9_750, 0), KEPT, said(11_700, 1), BROKEN, 99.94, "abc")
    assert (found["scenario"], found["verdict"], found["duration_s"]) == ("promise", "pass", 99.9)
    assert found["commit"] == "abc"
    told = lines(found)
    assert "  9,750 of 9,750 were held; 9,750 came about at once" in told
    assert "  9,968 of 11,700 were held; 9,968 came about at once" in told
    assert "  1,732 did not: no answer" in told
    assert told[-1] == "promise: pass"


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        ({"kept": load(9_750, 9_749)}, "held_promised"),
        ({"kept": load(9_750, 9_750, not_back=1)}, "held_promised"),
        ({"kept": load(9_750, 9_750, reconnects=1)}, "held_promised"),
        ({"kept": load(9_750, 9_750, lost=1)}, "lost_promised"),
        ({"promised": said(9_750, 1)}, "doctor_exit_promised"),
        ({"beyond": said(11_700, 0)}, "doctor_exit_beyond"),
        ({"broken": load(11_700, 11_700)}, "held_beyond"),
        ({"broken": load(11_700, 9_968, saturated=1)}, "generator_saturated"),
    ],
)
def test_a_promise_that_is_not_kept(seen: dict[str, Any], name: str) -> None:
    assert missed(**seen) == [name]


def test_what_was_missed_is_told() -> None:
    found = document(said(9_750, 0), load(9_750, 9_000), said(11_700, 1), BROKEN, 1, "abc")
    assert found["verdict"] == "fail"
    assert lines(found)[-2:] == ["promise: fail", "  held_promised is 9000, not == 9750"]


def test_a_socket_that_was_lost_and_came_back_was_not_held() -> None:
    assert held(load(10, 9, reconnects=2, not_back=1)) == 6
    assert held(load(10, 1, reconnects=2)) == 0


@pytest.mark.parametrize("sockets", [FEWEST, 2_000, 9_750])
def test_an_edge_is_held_to_files_that_hold_so_many_and_no_fifth_more(sockets: int) -> None:
    files = files_for(sockets, 20_000)
    assert sockets_per_edge(files) == sockets
    assert 2 * MORE * sockets > files, "with nothing kept aside it would still be full"


@pytest.mark.parametrize(("sockets", "why"), [(FEWEST - 1, "keeps aside"), (9_751, "9,750 sockets an edge or less")])
def test_a_number_that_shows_nothing_is_refused(sockets: int, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        files_for(sockets, 20_000)

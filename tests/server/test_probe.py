"""How far a stranger's probe comes with a replica, and what a promote makes of it."""

from __future__ import annotations

import pytest

from shards.fleet.roundtrip import Depth, Finding, find_out
from tests.replica import ROOT, Replica

ENVIRON = {
    "SHARDS_REQUIRE_TOKEN": "1",
    "SHARDS_APP": "guarded:application",
    "SHARDS_APP_DIR": str(ROOT / "tests" / "apps" / "guarded"),
}


async def test_where_nobody_comes_in_without_a_token_the_probe_shows_one(service: list[Replica]) -> None:
    found = await find_out(service[0].port, "/ws/", service[0].token("*"))
    assert found.depth >= Depth.HANDSHAKE
    assert not found.broken
    refused = await find_out(service[0].port, "/ws/", "no token")
    assert (refused.depth, refused.broken) == (Depth.NONE, False)
    assert "403" in refused.said


async def test_no_websocket_is_asked_for_where_none_is_named(service: list[Replica]) -> None:
    assert (await find_out(service[0].port, "", service[0].token("*"))).depth is Depth.NONE


FULL = Finding(Depth.ROUND_TRIP)
REFUSED = Finding(Depth.NONE, "answers the handshake at /ws/ with 403")


@pytest.mark.parametrize(
    "new,old,well",
    [
        (FULL, FULL, True),
        (FULL, REFUSED, True),
        (REFUSED, REFUSED, True),
        (REFUSED, FULL, False),
        (REFUSED, None, True),
        (Finding(Depth.HANDSHAKE, "no ack", broken=True), REFUSED, False),
        (Finding(Depth.ROUND_TRIP, page="answers GET / with 500"), FULL, False),
        (Finding(Depth.ROUND_TRIP, page="answers GET / with 500"), Finding(Depth.NONE, page="the same"), True),
    ],
)
def test_a_new_release_must_do_what_the_old_one_does(new: Finding, old: Finding | None, well: bool) -> None:
    assert (new.ailment(old) is None) is well


def test_where_a_probe_comes_no_further_it_says_why() -> None:
    assert REFUSED.told() == "no WebSocket (answers the handshake at /ws/ with 403)"
    assert FULL.told() == "a message published and delivered"
    assert Finding(Depth.ROUND_TRIP, page="answers GET / with 500").told() == "answers GET / with 500"

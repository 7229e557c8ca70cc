"""The crash matrix: at every point of a cutover, every kill. Run whole by ``nox -s crash-matrix``.

After each a second run of the command brings the fleet to where it shall be, and no message was lost, doubled or out of
order. What came of each case is in ``reports/crash-matrix.json``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from shards.fleet.cutover import TABLE, Step
from tests.fleet.clients import uncounted
from tests.fleet.conftest import fleet_in
from tests.fleet.controller import DRAIN_S, FAULTS, NO_SOCKETS, UNDER_WAY, Fault, points, strike
from tests.fleet.runner import ROOT, Commands, Result

pytestmark = [pytest.mark.matrix, pytest.mark.timeout(600)]

FORWARD = points(Step.DEPLOY, Step.CHECK, Step.CANARY, Step.SWITCH, Step.MOVE, Step.RETIRE)
BACK = points(Step.REVIVE, Step.WITHDRAW)
BACK_LATE = [*points(Step.REVIVE), f"{Step.WITHDRAW}{UNDER_WAY}"]
LEFT_AT = {"back": f"{Step.MOVE}{UNDER_WAY}", "back, late": f"{Step.RETIRE}.through"}
"""Where a promote was killed from which a rollback goes back: some sockets have moved; the old color is stopped."""
SOCKETS = 200
TALKERS = 20
GROUPS = 10


@dataclass(frozen=True)
class Outcome:
    """One cell of the matrix.

    Attributes:
        way: of what command.
        point: where it was struck.
        fault: by what.
        first: how the command that was struck ended.
        second: how the second run ended; None: the first was through.
        state: of the fleet afterwards.
        active: the color that served.
        amid: how many sockets at the least were in their new place when it struck, where sockets were on their way.
        lost: acked messages that a member of their group did not get, and publishes without an ack.
        faults: messages that came twice or out of order, places that were not taken up again, gaps, error frames.
        refused: handshakes that failed meanwhile.
        connects: handshakes that succeeded.
    """

    way: str
    point: str
    fault: str
    first: int
    second: int | None
    state: str
    active: str
    amid: int | None
    lost: int
    faults: int
    refused: int
    connects: int


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Commands, list[Outcome]]]:
    """A fleet of two replicas under a small load, and the outcomes so far."""
    outcomes: list[Outcome] = []
    for commands in fleet_in(tmp_path_factory.mktemp("fleet"), "m"):
        commands.environment = {"INVOKE_FLEET_DRAIN_SECONDS": f"{DRAIN_S:g}", "INVOKE_FLEET_READY_SECONDS": "20"}
        commands.ok("up", "--replicas", "2", "--shards", "1", "--edges", "1")
        yield commands, outcomes
    reports = ROOT / "reports"
    reports.mkdir(exist_ok=True)
    cases = [asdict(outcome) for outcome in outcomes]
    sums = {name: sum(case[name] for case in cases) for name in ("lost", "faults", "refused")}
    planned = len(FAULTS) * len(FORWARD + BACK + BACK_LATE)
    (reports / "crash-matrix.json").write_text(
        json.dumps({"planned": planned, "cases": len(cases), **sums, "matrix": cases}, indent=1)
    )


def steady(status: dict[str, Any]) -> bool:
    return status["state"] == "steady" and all(replica["state"] == "active" for replica in status["replicas"])


async def case(commands: Commands, way: str, verb: str, fault: Fault, point: str) -> tuple[Outcome, str, str]:
    """Strike a command, run it again where it did not come through, and look; gives the color before, too."""
    before = await asyncio.to_thread(commands.until, steady, 30)
    old = before["active_color"]
    async with uncounted(commands.url, SOCKETS, GROUPS, TALKERS) as ledger:
        if way in LEFT_AT:
            left = await asyncio.to_thread(strike, commands, "promote", "kill the controller", LEFT_AT[way], old)
            assert left.code == -9, left
        first = await asyncio.to_thread(strike, commands, verb, fault, point, old)
        assert f"# {fault} at {point}" in first.stderr, "the point is never reached"
        second = None if first.code == 0 else await asyncio.to_thread(commands, verb)
        said = first.stderr + (second.stderr if second else "")
        status = await asyncio.to_thread(commands.until, steady, 30)
    return (
        Outcome(
            way,
            point,
            fault,
            first.code,
            second.code if second else None,
            status["state"],
            status["active_color"],
            _amid(first),
            len(ledger.owed),
            len(ledger.faults),
            len(ledger.failures),
            ledger.connects,
        ),
        old,
        "\n".join([said, *ledger.owed, *ledger.faults, *ledger.failures]),
    )


def _amid(struck: Result) -> int | None:
    """Give how many sockets were in their new place at the strike, at the least; None where it does not say."""
    found = re.search(r"^# amid: (\d+)$", struck.stderr, re.MULTILINE)
    return int(found[1]) if found else None


def well(outcome: Outcome, commands: Commands, active: str, said: str) -> None:
    assert outcome.second in (None, 0), said
    assert outcome.active == active, said
    assert (outcome.lost, outcome.faults) == (0, 0), said
    if outcome.point.endswith(UNDER_WAY):
        assert outcome.amid is not None, said
        assert outcome.amid < SOCKETS - NO_SOCKETS, "it struck too late: every socket has moved"
    if outcome.fault in ("kill the controller", "restart the control Redis"):
        assert (outcome.refused, outcome.connects) == (0, SOCKETS), f"somebody had to reconnect\n{said}"
    assert [replica["name"] for replica in commands.status()["replicas"]] == [f"{active}-0", f"{active}-1"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("point", FORWARD)
async def test_a_promote_comes_through(matrix: tuple[Commands, list[Outcome]], point: str, fault: Fault) -> None:
    commands, outcomes = matrix
    outcome, old, said = await case(commands, "forward", "promote", fault, point)
    outcomes.append(outcome)
    well(outcome, commands, "green" if old == "blue" else "blue", said)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "way,point", [("back", point) for point in BACK] + [("back, late", point) for point in BACK_LATE]
)
async def test_a_rollback_out_of_the_middle_of_it_comes_back(
    matrix: tuple[Commands, list[Outcome]], way: str, point: str, fault: Fault
) -> None:
    commands, outcomes = matrix
    outcome, old, said = await case(commands, way, "rollback", fault, point)
    outcomes.append(outcome)
    well(outcome, commands, old, said)


def test_the_points_are_those_of_the_table() -> None:
    every = {f"{step}.{action}" for step, row in TABLE.items() for action in row.does}
    assert every <= set(FORWARD + BACK)
    assert {"move.under_way", "withdraw.under_way"} <= set(FORWARD + BACK)

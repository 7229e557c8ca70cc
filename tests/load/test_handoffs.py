"""What is read of a fleet's handoffs, and how it is judged."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic_ns

import pytest

from shards.errors import ShardsError, UsageError
from shards.load import scenarios
from shards.load.faults import Faults
from shards.load.half import HalfRoom, room
from shards.load.handoffs import moved_s, pauses, run, share_within
from shards.load.plain import PlainMember
from tests.load.test_faults import Notes

SCENARIO = scenarios.read(scenarios.repository() / "invoke.yaml")["handoff"]

METRICS = """# TYPE app_handoff_seconds histogram
app_handoff_seconds_bucket{le="0.05",worker="1"} 50.0
app_handoff_seconds_bucket{le="0.1",worker="1"} 99.0
app_handoff_seconds_bucket{le="+Inf",worker="1"} 100.0
app_handoff_seconds_bucket{le="0.05",worker="2"} 90.0
app_handoff_seconds_bucket{le="0.1",worker="2"} 95.0
app_handoff_seconds_bucket{le="+Inf",worker="2"} 100.0
app_handoff_seconds_count{worker="1"} 100.0
app_handoff_seconds_sum{worker="1"} 4.0
# TYPE app_handoff_first_timestamp_seconds gauge
app_handoff_first_timestamp_seconds{worker="1"} 1000.5
app_handoff_first_timestamp_seconds{worker="2"} 1000.25
# TYPE app_handoff_last_timestamp_seconds gauge
app_handoff_last_timestamp_seconds{worker="1"} 1006.75
app_handoff_last_timestamp_seconds{worker="2"} 1001.0
"""


def test_pauses_are_summed_over_workers() -> None:
    counts = pauses(METRICS)
    assert counts == {0.05: 140.0, 0.1: 194.0, float("inf"): 200.0}
    assert share_within(counts, 0.1) == 0.97
    assert share_within(counts, 0.07) == 0.7


def test_the_move_lasts_from_the_first_socket_of_any_worker_to_the_last_of_any() -> None:
    assert moved_s(METRICS) == 6.5
    assert moved_s("") == 0.0


@contextmanager
def fleet(metrics: str) -> Iterator[str]:
    """Answer once with these metrics; gives an address."""

    class Fleet(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(metrics.encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Fleet) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        yield f"ws://127.0.0.1:{server.server_port}/ws/"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ((), 1),
        (("--share", "0.97"), 0),
        (("--share", "0.98"), 1),
        (("--share", "0.97", "--within-s", "6"), 1),
        (("--share", "0.97", "--least", "201"), 1),
    ],
)
def test_a_target_that_is_missed_is_told_by_the_exit_status(options: tuple[str, ...], status: int) -> None:
    with fleet(METRICS) as url:
        assert run(["--url", url, *options]) == status


def deployed(sockets: float = 0.992, silent: float = 0.008, seconds: float = 9.8) -> str:
    """Give the metrics after a deploy of the scenario's fleet.

    Args:
        sockets: which share of them was handed over.
        silent: which share of these was unread for more than 100 ms.
        seconds: how long all that took.
    """
    moved = sockets * SCENARIO.connections
    return f"""# TYPE app_handoff_seconds histogram
app_handoff_seconds_bucket{{le="0.05"}} {0.5 * moved}
app_handoff_seconds_bucket{{le="0.1"}} {(1 - silent) * moved}
app_handoff_seconds_bucket{{le="0.25"}} {moved}
app_handoff_seconds_bucket{{le="+Inf"}} {moved}
# TYPE app_handoff_first_timestamp_seconds gauge
app_handoff_first_timestamp_seconds 1000.0
# TYPE app_handoff_last_timestamp_seconds gauge
app_handoff_last_timestamp_seconds {1000 + seconds}
"""


@pytest.mark.parametrize(
    ("metrics", "well"),
    [
        (deployed(), True),
        (deployed(sockets=0.988), False),
        (deployed(silent=0.012), False),
        (deployed(seconds=10.2), False),
    ],
    ids=["just so", "too few", "silent for too long", "too slow"],
)
async def test_each_deploy_of_the_scenario_hands_over_99_of_100_sockets_in_100_ms_and_all_in_10_s(
    metrics: str, well: bool
) -> None:
    """As `invoke.yaml` has it asked after each of them, for as many sockets as the load says that it has."""
    asked = [event for event in SCENARIO.events if event.command]
    assert len(asked) == len([event for event in SCENARIO.events if event.run == "promote"])
    [once] = {replace(event, at=0.0) for event in asked}
    with fleet(metrics) as url:
        faults = Faults([once], url, None, SCENARIO.connections, 1, Notes())
        assert SCENARIO.targets["during_exit"].met(await faults.perform(monotonic_ns())) is well


def test_where_nothing_was_handed_over_no_target_is_met() -> None:
    assert share_within(pauses(""), 0.1) == 0.0


@pytest.mark.parametrize(("url", "error"), [("nonsense", UsageError), ("ws://127.0.0.1:1/ws/", ShardsError)])
def test_who_can_not_be_asked_is_told(url: str, error: type[ShardsError]) -> None:
    with pytest.raises(error, match=r"127.0.0.1:1/|nonsense is no"):
        run(["--url", url])


def test_every_second_group_is_plain_and_waits_for_no_ack() -> None:
    assert not isinstance(room("load-x-0"), HalfRoom)
    plain = room("load-x-1")
    assert isinstance(plain, HalfRoom)
    PlainMember(plain.ledger)
    plain.ledger.publish(0)
    tally = plain.ledger.tally()
    assert (tally.published, tally.ackless, tally.acked) == (1, 1, 0)

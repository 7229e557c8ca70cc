"""What is read of a fleet's handoffs, and how it is judged."""

from __future__ import annotations

import http.server
import threading

import pytest

from shards.errors import ShardsError, UsageError
from shards.load.half import HalfRoom, room
from shards.load.handoffs import moved_s, pauses, run, share_within
from shards.load.plain import PlainMember

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


class Fleet(http.server.BaseHTTPRequestHandler):
    """Answers with the metrics above."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(METRICS.encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


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
    with http.server.HTTPServer(("127.0.0.1", 0), Fleet) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert run(["--url", f"ws://127.0.0.1:{server.server_port}/ws/", *options]) == status


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

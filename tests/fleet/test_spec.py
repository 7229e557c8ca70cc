"""What a fleet shall be: read from text, and refused with a reason where it makes no sense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.descriptors import DESCRIPTORS_A_SOCKET, EDGE_RESERVE
from shards.errors import UsageError
from shards.fleet.spec import FleetSpec, edges_for, one_of, other_color


def read(**values: object) -> FleetSpec:
    return FleetSpec.read(values, 20_000)


def test_numbers_may_come_as_text() -> None:
    assert read(replicas="5", port="9000").replicas == read(replicas=5).replicas == 5


def test_ten_thousand_sockets_take_two_edges_where_a_process_opens_20_000_files() -> None:
    assert read(edges="auto").edges == 2
    assert read(edges="auto", connections=9750).edges == 1
    assert read(edges="auto", connections=9751).edges == 2
    assert FleetSpec.read({"edges": "auto"}, 1_048_576).edges == 1


@given(st.integers(1, 100_000), st.integers(1000, 1_000_000))
def test_edges_that_are_counted_hold_the_sockets_and_none_is_too_many(connections: int, descriptors: int) -> None:
    try:
        edges = edges_for(connections, descriptors)
    except UsageError:
        assert connections * DESCRIPTORS_A_SOCKET > 15 * (descriptors - EDGE_RESERVE)
        return
    held = (descriptors - EDGE_RESERVE) // DESCRIPTORS_A_SOCKET
    assert (edges - 1) * held < connections <= edges * held


@pytest.mark.parametrize(
    "values,words",
    [
        ({"replicas": 0}, "--replicas must be 1 or more"),
        ({"replicas": -1}, "--replicas must be 1 or more"),
        ({"replicas": 10_000}, "--replicas must be 64 or less, not 10,000: each is a process"),
        ({"replicas": "three"}, "whole number, not 'three'"),
        ({"replicas": "2.5"}, "whole number"),
        ({"shards": 65}, "--shards must be 64 or less"),
        ({"workers": 0}, "--workers"),
        ({"edges": 17}, "--edges must be 16 or less"),
        ({"edges": "few"}, "--edges must be a whole number"),
        ({"port": 0}, "--port"),
        ({"port": 65_536}, "--port"),
        ({"connections": 0}, "connections must be 1 or more"),
        ({"connections": 900_000, "edges": "auto"}, "do not fit"),
        ({"engine": "moon"}, "there is no engine 'moon': choose local, docker or swarm"),
        ({"project": "Up Per"}, "--project"),
        ({"project": ""}, "--project"),
        ({"project": "x" * 33}, "--project"),
        ({"durability": "never"}, "there is no durability 'never': choose everysec, always or replicated"),
        ({"app": "mysite"}, "module:attribute"),
        ({"app": "mysite:app; rm"}, "module:attribute"),
        ({"app_dir": 'a"b'}, "--app-dir"),
        ({"app_dir": "a #b"}, "--app-dir"),
    ],
    ids=str,
)
def test_nonsense_is_refused_in_one_line(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(**values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("text", "seconds"), [("", None), (None, None), ("0", 0), (0, 0), ("600", 600)])
def test_to_say_nothing_of_tls_is_not_to_take_back_what_was_said(text: object, seconds: int | None) -> None:
    assert read(hsts_seconds=text).hsts_seconds == seconds


def test_the_url_is_one_that_this_host_reaches() -> None:
    assert read(port=8123).url == "http://127.0.0.1:8123"
    assert read(host="0.0.0.0").url == "http://127.0.0.1:8000"


def test_differences() -> None:
    assert read(port=1).differences(read(port=2, replicas=9)) == {"port", "replicas"}


def test_words() -> None:
    assert (other_color("blue"), other_color("green")) == ("green", "blue")
    assert (one_of(["a"]), one_of("abc")) == ("a", "a, b or c")

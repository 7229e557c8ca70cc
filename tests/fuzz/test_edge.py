"""Whatever a fleet is told to be, the edges' files say just that: no text in it becomes a key of another thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from shards.fleet.engines.base import AddressLimits, EdgePart, ReplicaPart, Route
from shards.fleet.engines.edge import Tls, as_json, dump, dynamic, static
from shards.fleet.spec import COLORS

HOSTILE = st.sampled_from(
    [
        "a: b",
        "127.0.0.1\napi:\n  dashboard: true",
        "{x: y}",
        "- a",
        "&a *a",
        "!!python/object:os.system",
        "# none",
        "'\"",
        "%YAML 1.1",
        "---\n...",
        "\t",
        "{{ env `HOME` }}",
        "yes",
        "1e3",
        "0x10",
        "12:30:45",
        "~",
        "=",
        "<<",
        "\x85\u2028\ufeff",
        "x" * 300,
    ]
)
texts = HOSTILE | st.text(max_size=30) | st.builds("{}{}".format, HOSTILE, HOSTILE)
ports = st.integers(1, 65535)
replicas = st.builds(
    ReplicaPart,
    name=texts,
    port=ports,
    color=st.sampled_from(COLORS),
    workers=st.just(1),
    release=texts,
    redis_port=ports,
    control_port=ports,
    address=texts,
    host=texts,
)
routes = st.builds(
    Route,
    active=st.sampled_from(COLORS),
    replicas=st.fixed_dictionaries({color: st.lists(replicas, max_size=2) for color in COLORS}),
    percent=st.just(0.0) | st.floats(0.01, 100),
    limits=st.builds(AddressLimits, st.integers(0, 10**6), st.integers(0, 10**6)),
)
certificates = st.none() | st.builds(Tls, texts, texts, ports, st.none() | st.integers(0, 10**8))

PLAIN = Route("blue", {"blue": [], "green": []})


def keys(told: Any, above: str = "") -> set[str]:
    """Give the path of every key there is."""
    if isinstance(told, dict):
        return {f"{above}/{key}" for key in told}.union(*(keys(value, f"{above}/{key}") for key, value in told.items()))
    return set().union(*(keys(value, above) for value in told)) if isinstance(told, list) else set()


@given(routes, certificates)
def test_a_route_is_read_as_it_was_meant(route: Route, tls: Tls | None) -> None:
    told = dynamic(route, tls)
    assert yaml.safe_load(dump(told)) == told
    assert json.loads(as_json(told)) == told


@given(routes, certificates)
def test_no_text_in_a_route_is_a_key(route: Route, tls: Tls | None) -> None:
    named = {color: [f"{part.host}{part.address}" for part in parts] for color, parts in route.replicas.items()}
    blank = Route(
        route.active,
        {color: [ReplicaPart("r", 1, color, 1, "", 1, 1) for _ in parts] for color, parts in named.items()},
        route.percent,
        route.limits,
    )
    assert keys(yaml.safe_load(dump(dynamic(route, tls)))) == keys(
        dynamic(blank, tls and Tls("", "", 1, None if tls.hsts_s is None else 0))
    )


@example("127.0.0.1\napi:\n  dashboard: true", 1, "x")
@given(texts, ports, texts)
def test_an_edge_is_set_up_as_it_was_meant(host: str, port: int, folder: str) -> None:
    for where in (Path("/") / folder.replace("\0", ""), f"http://{host}/route"):
        told = static(EdgePart("edge-0", port), host, port, where, admin=host)
        assert yaml.safe_load(dump(told)) == told
        assert keys(told) <= keys(static(EdgePart("e", 1), "h", 1, Path("/d"))) | keys(
            static(EdgePart("e", 1), "h", 1, "http://r")
        )

"""What commands say of a fleet that Docker Compose has started; here nothing runs."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import ShardsError
from shards.fleet.engines.docker import by_hand, compose
from shards.fleet.engines.local import LocalEngine, LocalOptions
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir
from tests.fleet.runner import ROOT

COMPOSED = compose.fresh(FleetSpec("c", shards=2))


@pytest.mark.parametrize(("its_port", "said"), [(True, "started by Docker Compose"), (False, "choose another with")])
def test_a_port_that_compose_published_for_this_fleet_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, its_port: bool, said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        runs = replace(COMPOSED, spec=replace(COMPOSED.spec, port=port if its_port else port - 1))
        monkeypatch.setattr(by_hand, "find", {"c": runs}.get)
        engine = LocalEngine(FleetSpec("c", port=port, app_dir=str(ROOT)), FleetDir(tmp_path, "c"), LocalOptions(ROOT))
        with pytest.raises(ShardsError, match=said):
            engine.check(port_is_ours=False)

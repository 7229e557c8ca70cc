"""What goes into the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shards.fleet.engines.docker.images import Images
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.spec import FleetSpec
from tests.fleet.runner import ROOT


def test_the_same_sources_give_the_same_wheel(tmp_path: Path) -> None:
    """Else each `inv up` of each fleet would have Docker install it anew."""
    client: Any = None
    images = Images(client, FleetSpec("t"), DockerOptions(ROOT), tmp_path, lambda _: None)
    wheels = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        images._own_wheel(tmp_path / name)
        wheels += [(wheel.name, wheel.read_bytes()) for wheel in (tmp_path / name).iterdir()]
    assert len(wheels) == 2
    assert wheels[0] == wheels[1]

"""A container of this host is sampled and killed as the process that it is."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator

import docker
import psutil
import pytest
from docker.models.containers import Container

from shards.load import containers
from tests.contract.engines import docker_environment


@pytest.fixture
def container() -> Iterator[Container]:
    """A container that does nothing."""
    found = docker_environment()
    if isinstance(found, str):
        assert not os.environ.get("SHARDS_DOCKER_EXPECTED"), found
        pytest.skip(found)
    client = docker.from_env()
    image, name = found["INVOKE_DOCKER_REDIS_IMAGE"], f"t-{uuid.uuid4().hex[:8]}"
    made = client.containers.run(image, ["sleep", "600"], name=name, detach=True, entrypoint="")
    try:
        yield made
    finally:
        made.remove(force=True)
        client.close()


def test_a_container_is_found_as_the_process_that_it_is(container: Container) -> None:
    parts = [{"name": "shared-0", "pid": None, "container": container.name}, {"name": "gone", "container": "t-nobody"}]
    mine = {"name": "edge-0", "pid": 7, "container": None}
    found = containers.found({"shards": parts, "edges": [mine]})
    pid = found["shards"][0]["pid"]
    assert psutil.Process(pid).cmdline() == ["sleep", "600"]
    assert (found["shards"][1]["pid"], found["edges"], found["redis"]) == (None, [mine], [])
    os.kill(pid, signal.SIGKILL)
    container.wait(timeout=30)
    assert containers.processes([str(container.name)]) == {}

"""Puts the commands together: `inv -l` lists them, `inv NAME --help` explains each."""

from pathlib import Path

from invoke.collection import Collection

from shards.tasks import backend, containers, cutover, fleet, host, rotation, top, tune

_ROOT = Path(__file__).resolve().parent

ns = Collection(
    fleet.up,
    fleet.status,
    top.top,
    cutover.promote,
    cutover.rollback,
    cutover.restart,
    fleet.reshard,
    rotation.rotate,
    fleet.logs,
    fleet.down,
    host.doctor,
    tune.tune,
    containers.build,
    containers.render,
    backend.token,
    backend.publish,
)
# What invoke.yaml can't know: where this project is. Everything else has its default there.
ns.configure({"fleet": {"root": str(_ROOT), "state_dir": str(_ROOT / ".fleet"), "app_dir": str(_ROOT)}})

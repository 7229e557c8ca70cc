"""Puts the commands together: `inv -l` lists them, `inv NAME --help` explains each."""

from pathlib import Path

from invoke.collection import Collection

from shards.tasks import backend, fleet

_ROOT = Path(__file__).resolve().parent

ns = Collection(
    fleet.up,
    fleet.status,
    fleet.promote,
    fleet.rollback,
    fleet.reshard,
    fleet.logs,
    fleet.down,
    backend.token,
    backend.publish,
)
# What invoke.yaml can't know: where this project is. Everything else has its default there.
ns.configure({"fleet": {"root": str(_ROOT), "state_dir": str(_ROOT / ".fleet"), "app_dir": str(_ROOT)}})

"""The command that renews a fleet's secrets while it runs."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from shards.fleet import rotate as rotating
from shards.tasks.console import progress, run
from shards.tasks.fleet import DEBUG, PROJECT, fleet_of

_ENDED = (
    "tokens of older keys are refused from now on; sockets that came with one are asked within a second or two to come "
    "back with a new one, and closed ten seconds later"
)


@task(
    auto_shortflags=False,
    help={
        "tokens": "the key that signs tokens instead: the one before stays good until the next time",
        "project": PROJECT,
        "debug": DEBUG,
    },
)
def rotate(context: Context, tokens: bool = False, project: str | None = None, debug: bool = False) -> None:
    """Rotate the passwords of the fleet's Redis servers, while it runs: nobody reconnects, nothing is lost.

    Servers take the new ones beside the old, everybody is given the new ones, then the old ones are refused. Killed at
    any moment, run it again.
    """

    async def work() -> None:
        gone = False
        with progress() as told, fleet_of(context, project, told) as fleet:
            if tokens:
                gone = await rotating.rotate_token_key(fleet)
            else:
                await rotating.rotate_passwords(fleet)
        if tokens:
            print("tokens are signed with a new key; the key before it is good until the next rotation")
            if gone:
                print(_ENDED)
        else:
            print("the Redis users have new passwords, the old ones are refused")

    run(work(), debug=debug)

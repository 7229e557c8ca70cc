"""``python -m shards.fleet.engines.relaunch COMMAND…``: ends what an earlier run of this part left, then becomes it.

A replica of several workers that is killed leaves its workers behind: they hold its port, and the next run could not
listen on it. And it is told which release it is: what the app's directory holds now, which is what it imports, whatever
that held when the replica was started first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from shards.fleet import processes
from shards.fleet.release import release_of


def main() -> None:
    """Run as supervisor's command of a replica."""
    left = processes.of_fleet(Path(os.environ[processes.FLEET_VARIABLE]))
    # At once: they serve nobody's plan any more, and every moment they stay the part is down.
    processes.end(left.get(os.environ[processes.PART_VARIABLE], ()), grace_s=0)
    os.environ["SHARDS_RELEASE"] = release_of(Path(os.environ["SHARDS_APP_DIR"]))
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()

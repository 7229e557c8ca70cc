"""How a load's command line begins and ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from shards.errors import ShardsError


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def carry_out(run: Callable[[list[str]], int]) -> None:
    """Run, say what is wrong in one line, and exit with what `run` gives; SIGTERM stops it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        sys.exit(run(sys.argv[1:]))
    except ShardsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(1)

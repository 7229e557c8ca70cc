"""``python -m shards.fleet.engines.sync_logs DIRECTORY``: has what Redis wrote reach the disk, each second.

Redis does this itself under ``appendfsync everysec``, but while one sync takes its time it puts off *writing* for up
to two seconds, and answers all the same (aof.c, `flushAppendOnlyFile`). A server that is killed then loses what it had
acked. Under ``appendfsync no`` it writes before it answers, always, so that only a machine without power can lose
anything; and that is bounded here. See docs/decisions/0005-written-before-acked.md.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

EVERY_SECONDS = 1.0


def append_only_files(data: Path) -> list[Path]:
    """Find the append-only files of all Redis servers below `data`: one each up to Redis 6, a directory from 7 on."""
    return [*data.glob("*/appendonly.aof"), *data.glob("*/appendonlydir/*.incr.aof")]


def sync(file: Path) -> None:
    """Wait until what was written to `file` is on the disk; one that was rewritten meanwhile is left alone."""
    with suppress(FileNotFoundError):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)


def main() -> None:
    """Run as supervisor's command."""
    data = Path(sys.argv[1])
    while True:
        began = time.monotonic()
        for file in append_only_files(data):
            sync(file)
        time.sleep(max(0.1, EVERY_SECONDS - (time.monotonic() - began)))


if __name__ == "__main__":
    main()

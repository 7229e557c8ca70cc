"""``python -m shards.fleet.engines.keeper -c FILE``: supervisord, as the local engine runs it.

Where a log can't be written, since the disk is full, supervisord says so on its stderr. That is a file on the same
disk: the second failure ended it, and nothing kept the fleet alive any more. So what can't be said is left unsaid here;
the parts' output goes on being read, and is written again once there is room.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO, cast

from supervisor import supervisord


class Forgiving:
    """A stream that drops what it can't write; what else is asked of it, the stream itself answers."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def main() -> None:
    """Be supervisord."""
    sys.stdout, sys.stderr = (cast(TextIO, Forgiving(stream)) for stream in (sys.stdout, sys.stderr))
    supervisord.main()


if __name__ == "__main__":
    main()

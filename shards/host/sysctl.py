"""The kernel's settings, as files below ``/proc/sys``."""

from __future__ import annotations

import os
from pathlib import Path


class Kernel:
    """Reads and writes settings by the names that `sysctl` gives them.

    Args:
        root: where the kernel shows them.
    """

    def __init__(self, root: Path = Path("/proc/sys")) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        return self._root / key.replace(".", "/")

    def read(self, key: str) -> str | None:
        """Give a setting, its words parted by single spaces; None: the kernel has none of that name here."""
        try:
            return " ".join(self._path(key).read_text().split())
        except OSError:
            return None

    def number(self, key: str) -> int | None:
        """Give a setting that is a number; None where there is none."""
        text = self.read(key)
        return int(text) if text is not None and text.isdigit() else None

    def may_write(self, key: str) -> bool:
        """Tell whether root may write a setting here, going by its mode and how it is mounted."""
        path = self._path(key)
        try:
            return bool(path.stat().st_mode & 0o200) and not os.statvfs(path).f_flag & os.ST_RDONLY
        except OSError:
            return False

    def write(self, key: str, value: str) -> None:
        """Set a setting.

        Raises:
            OSError: the kernel refuses the value or the writing of it.
        """
        # Nothing at all would be no write: an empty list is an empty line.
        self._path(key).write_text(f"{value}\n")

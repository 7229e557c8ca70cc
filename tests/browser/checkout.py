"""A directory that a fleet is started from, whose releases are commits: for promotes to one that differs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.fleet.runner import ROOT

_COMMITTER = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


class Checkout:
    """The reference app in a repository of its own, at its first release.

    Args:
        directory: where it shall be.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(ROOT / "app", directory / "app", ignore=shutil.ignore_patterns("__pycache__"))
        (directory / "docker").symlink_to(ROOT / "docker")
        (directory / ".gitignore").write_text("__pycache__/\nreports/\n")
        self._git("init", "--quiet")
        self.release("1")

    @property
    def environment(self) -> dict[str, str]:
        """What tells commands to run it."""
        return {"INVOKE_FLEET_ROOT": str(self.directory), "INVOKE_FLEET_APP_DIR": str(self.directory)}

    def release(self, name: str) -> str:
        """Make another release; gives how a fleet names it."""
        (self.directory / "app" / "RELEASE").write_text(f"{name}\n")
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", f"Release {name}")
        return self._git("rev-parse", "--short", "HEAD")

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.directory), *_COMMITTER, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

"""A picture of a report, for pages that cannot show HTML: drawn by headless Chromium, where there is one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SIZE = "1120,1640"
_SECONDS = 60


def chromium() -> str | None:
    """Give the browser's program; None where there is none on PATH."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def draw(page: Path, picture: Path, *, dark: bool = False, size: str = _SIZE) -> str:
    """Draw a page as PNG.

    Args:
        page: the HTML file.
        picture: where to put the PNG.
        dark: as who prefers dark sees it.
        size: of the window, in CSS pixels: "width,height".

    Returns:
        What became of it, in a line: a report without a picture is still a report. An older picture is gone then: it
        would be taken for this report's.
    """
    program = chromium()
    if program is None:
        return f"no picture of {page}: there is no chromium on PATH (`apt-get install chromium`)"
    try:
        picture.unlink(missing_ok=True)
        # Beside where it shall be, in a folder of its own: what is found there was drawn now, and whole.
        with tempfile.TemporaryDirectory(dir=picture.parent, ignore_cleanup_errors=True) as folder:
            fresh = Path(folder) / "picture.png"
            status = _run(program, page, fresh, dark, size)
            if status or not fresh.is_file():
                return f"no picture of {page}: {program} gave {status}"
            fresh.replace(picture)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no picture of {page}: {error}"
    return f"picture: {picture}"


def _run(program: str, page: Path, picture: Path, dark: bool, size: str) -> int:
    """Have the browser draw, with a profile of its own; give its exit status."""
    # Those that it has started may outlive it by a moment, and still write to the profile.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            *(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *("--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={profile}"),
            *(["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]),
            *(f"--window-size={size}", f"--screenshot={picture.resolve()}", page.resolve().as_uri()),
        ]
        return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode

"""The real browser: Debian's, told to keep to itself."""

import shutil

EXECUTABLE = shutil.which("chromium") or ""
MISSING = "no chromium: `apt-get install chromium`, or your system's package"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

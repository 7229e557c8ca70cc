"""A daemon of another host at a socket of this one: whoever connects there is led to it by the program `ssh`.

The SDK has ways of its own. One needs a library that knows part of what ~/.ssh/config may say, the other waits for a
host that is gone for as long as the kernel does. Here it sees a socket like any other, and its deadlines hold.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

from shards.errors import ShardsError

SCHEME = "ssh://"

_URL = re.compile(SCHEME + r"(?:(?P<user>[^@/\s]+)@)?(?P<host>\[[^]]+\]|[^:/@\s]+)(?::(?P<port>\d+))?/?")

# Nobody is there to type a password, and several hosts are asked at once.
_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ServerAliveInterval=10")


def command(url: str) -> list[str]:
    """Give the command that leads from its stdin and stdout to the daemon at `url`.

    Raises:
        ShardsError: the URL makes no sense.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ShardsError(f"{url} makes no sense: ssh://[user@]host[:port] does")
    user = ("-l", found["user"]) if found["user"] else ()
    port = ("-p", found["port"]) if found["port"] else ()
    return ["ssh", *_OPTIONS, *user, *port, "--", found["host"].strip("[]"), "docker system dial-stdio"]


class Tunnel:
    """Leads to the daemon at an URL, for as long as this process lives, or until it is closed.

    Args:
        url: as DOCKER_HOST has it.

    Raises:
        ShardsError: the URL makes no sense, or there is no `ssh` on this host.
    """

    def __init__(self, url: str) -> None:
        self._command = command(url)
        if shutil.which("ssh") is None:
            raise ShardsError("there is no `ssh` on PATH")
        self._directory = tempfile.TemporaryDirectory(prefix="shards-ssh-")
        self._said = Path(self._directory.name) / "said"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._directory.name}/socket")
        self._listener.listen()
        self._led: list[subprocess.Popen[bytes]] = []
        self._leading = threading.Thread(target=self._lead, name="ssh", daemon=True)
        self._leading.start()

    @property
    def url(self) -> str:
        """Where the daemon is found on this host."""
        return f"unix://{self._directory.name}/socket"

    def _lead(self) -> None:
        # Ends where the socket is closed.
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                there = connection.fileno()
                with connection, self._said.open("ab") as said:
                    # In a session of its own: what is put back after a Ctrl-C is put back over there.
                    new = subprocess.Popen(
                        self._command, stdin=there, stdout=there, stderr=said, start_new_session=True
                    )
                    self._led = [*(one for one in self._led if one.poll() is None), new]

    def said(self) -> str:
        """Give the last thing that `ssh`, or the other host, complained of; empty: nothing."""
        with contextlib.suppress(OSError):
            lines = [line.strip() for line in self._said.read_text(errors="replace").splitlines() if line.strip()]
            return lines[-1] if lines else ""
        return ""

    def close(self) -> None:
        """End what leads there."""
        # It wakes who waits for the next one to connect.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._leading.join()
        self._listener.close()
        for one in self._led:
            one.terminate()
            one.wait()
        self._directory.cleanup()

"""A certificate of its own for this host."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

_REQUEST = ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost")

_AUTHORITY = """
[ca]
default_ca = own
[own]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
"""


THIS_HOST = "DNS:localhost,IP:127.0.0.1"


def certificate(folder: Path, days: int = 1, names: str = THIS_HOST) -> Path:
    """Make one for some names that is good for so many days, its key in the same file."""
    path, key = _files(folder)
    added = ["-addext", f"subjectAltName={names}"]
    _run(*_REQUEST, "-x509", "-days", str(days), *added, "-keyout", key, "-out", path)
    return _together(path, key)


def expired(folder: Path) -> Path:
    """Make one that was good in January 2020, its key in the same file."""
    path, key = _files(folder)
    request, authority = folder / "request.pem", folder / "authority"
    authority.write_text(_AUTHORITY.format(folder=folder))
    (folder / "index.txt").touch()
    _run(*_REQUEST, "-keyout", key, "-out", request)
    # `openssl req` makes none that is over already.
    term = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"]
    own = ["openssl", "ca", "-batch", "-config", authority, "-selfsign", "-keyfile", key, "-notext"]
    _run(*own, *term, "-in", request, "-out", path)
    return _together(path, key)


def _files(folder: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    return folder / "certificate.pem", folder / "key.pem"


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _together(path: Path, key: Path) -> Path:
    path.write_text(path.read_text() + key.read_text())
    return path


def server_context(certificate: Path) -> ssl.SSLContext:
    """Give a server's context that has the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context

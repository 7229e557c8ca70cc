"""What proves that the project works. ``nox -l`` lists it, ``nox`` runs lint, types and tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "virtualenv"


@nox.session
def tests(session: nox.Session) -> None:
    """Unit and integration tests against real Redis, Traefik and uvicorn."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and who may import whom."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Strict typing."""
    session.install("-e", ".[types]")
    session.run("mypy")


@nox.session(name="loadtest-10k")
def loadtest_10k(session: nox.Session) -> None:
    """10,000 sockets through Traefik, 10,000 messages a second in rooms of ten; N= and DURATION= scale it down."""
    session.install("-e", ".")
    session.run("python", "-m", "shards.load", "loadtest-10k", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """The pages and the JavaScript client in real Chromium."""
    if shutil.which("chromium") is None:
        session.error("no chromium on PATH: `apt-get install chromium`, or your system's package")
    session.install("-e", ".[test]")
    session.run("pytest", "tests/browser", *session.posargs)


@nox.session
def clients(session: nox.Session) -> None:
    """2,000 Python clients and some in Chromium survive kill -9 of their replica; N= scales it down."""
    if shutil.which("chromium") is None:
        session.error("no chromium on PATH: `apt-get install chromium`, or your system's package")
    session.install("-e", ".[test]")
    session.run("python", "-m", "tests.bench.clients_survive", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """2,000 sockets while workers, shards and edges are killed and shards come and go; RUNS=20 repeats it."""
    session.install("-e", ".")
    session.run("python", "-m", "shards.load", "chaos", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """This project beside its peers, as ratios; N=, DURATION= and RATE= scale it down."""
    session.install("-e", ".[bench]")
    session.run("python", "-m", "bench", "--cache", str(Path(session.cache_dir) / "bench"), *session.posargs)

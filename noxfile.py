"""What proves that the project works. ``nox -l`` lists it, ``nox`` runs lint, types and tests."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "virtualenv"


INTERRUPT_SECONDS = 300.0
TERMINATE_SECONDS = 60.0


def _to_its_end(session: nox.Session, *command: str) -> None:
    """Run what starts processes. At Ctrl-C it gets the time to write its report and to take its fleet down.

    By default nox kills it after half a second, and all that it started lives on.
    """
    session.run(*command, interrupt_timeout=INTERRUPT_SECONDS, terminate_timeout=TERMINATE_SECONDS)


@nox.session
def tests(session: nox.Session) -> None:
    """Unit and integration tests against real Redis, Traefik and uvicorn."""
    session.install("-e", ".[test]")
    # Tests that share a fleet stay together as long as there is other work. They wait more than they reckon: three
    # at a time keep two cores busy.
    at_once = str(math.ceil(1.5 * (os.cpu_count() or 1)))
    _to_its_end(session, "pytest", "-n", at_once, "--dist", "worksteal", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and who may import whom."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


LOCKED = {"pyproject.toml": "requirements.lock", "docker/requirements.in": "docker/requirements.txt"}


@nox.session
def lock(session: nox.Session) -> None:
    """Pin all that is installed, each file by its hash: requirements.lock, and docker/requirements.txt for images."""
    session.install("uv>=0.7")
    for source, locked in LOCKED.items():
        options = ("--universal", "--generate-hashes", "--python-version", "3.11", "--no-header", "--quiet")
        session.run("uv", "pip", "compile", source, *options, "-o", locked, *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Look what is pinned up among known vulnerabilities; what can't be looked up fails too."""
    session.install("pip-audit>=2.9")
    for locked in LOCKED.values():
        session.run("pip-audit", "--strict", "--require-hashes", "--disable-pip", "-r", locked, *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Strict typing."""
    session.install("-e", ".[types]")
    session.run("mypy")


def _scenario(session: nox.Session, name: str) -> None:
    """Run a scenario of invoke.yaml to its verdict; what follows ``--`` goes to it."""
    session.install("-e", ".")
    _to_its_end(session, "python", "-m", "shards.load", name, "--png", *session.posargs)


@nox.session(name="loadtest-10k")
def loadtest_10k(session: nox.Session) -> None:
    """10,000 sockets through Traefik, 10,000 messages a second in rooms of ten; N= and DURATION= scale it down."""
    _scenario(session, "loadtest-10k")


@nox.session
def gradual(session: nox.Session) -> None:
    """1,000 to 10,000 sockets step by step: where does it bend; -- --steps 1000,2000,5000 chooses others."""
    _scenario(session, "gradual")


@nox.session
def stress(session: nox.Session) -> None:
    """10,000 sockets for 300 s: a leak of memory, files or Redis clients fails; DURATION=3600 makes it a soak."""
    _scenario(session, "stress")


@nox.session
def failover(session: nox.Session) -> None:
    """10,000 sockets through a promote, a rollback and kill -9 of a part of each kind: nothing lost."""
    _scenario(session, "failover")


@nox.session
def reshard(session: nox.Session) -> None:
    """2 shards become 4 and then 3 under 10,000 sockets: nothing lost, and no client notices."""
    _scenario(session, "reshard")


@nox.session
def spike(session: nox.Session) -> None:
    """2,000 connects a second to 10,000; a replica dies, and its clients all try to be back at once: nothing lost."""
    _scenario(session, "spike")


@nox.session
def chaos(session: nox.Session) -> None:
    """2,000 sockets while workers, shards and edges are killed and shards come and go; RUNS=20 repeats it."""
    _scenario(session, "chaos")


@nox.session
def scaling(session: nox.Session) -> None:
    """What a socket and a message cost each tier, measured at 1,000 to 20,000 sockets; `inv doctor` counts with it."""
    session.install("-e", ".")
    _to_its_end(session, "python", "-m", "shards.load.scaling", *session.posargs)


@nox.session
def promise(session: nox.Session) -> None:
    """What `inv doctor` promises of one edge is held, and a fifth more is not; N=2000 scales it down."""
    session.install("-e", ".")
    _to_its_end(session, "python", "-m", "shards.load.promise", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """The pages and the JavaScript client in real Chromium; where no test is named, the docs' pictures too."""
    if shutil.which("chromium") is None:
        session.error("no chromium on PATH: `apt-get install chromium`, or your system's package")
    session.install("-e", ".[test]")
    _to_its_end(session, "pytest", "tests/browser", *session.posargs)
    if not session.posargs:
        pictures = Path(session.cache_dir) / "pictures"
        _to_its_end(session, "python", "-m", "tests.browser.screenshots", "--into", str(pictures))


@nox.session
def clients(session: nox.Session) -> None:
    """2,000 Python clients and some in Chromium survive kill -9 of their replica; N= scales it down."""
    if shutil.which("chromium") is None:
        session.error("no chromium on PATH: `apt-get install chromium`, or your system's package")
    session.install("-e", ".[test]")
    _to_its_end(session, "python", "-m", "tests.bench.clients_survive", *session.posargs)


@nox.session
def handoff(session: nox.Session) -> None:
    """10,000 sockets, half of them plain, through ten promotes: no reconnect, nothing lost, and short pauses."""
    session.install("-e", ".")
    _to_its_end(session, "python", "-m", "shards.load", "handoff", *session.posargs)


@nox.session(name="crash-matrix")
def crash_matrix(session: nox.Session) -> None:
    """Kill the controller, either color and the control Redis at every point of a promote and of the way back."""
    session.install("-e", ".[test]")
    _to_its_end(session, "pytest", "-m", "matrix", "tests/crash", *session.posargs)


@nox.session
def docker(session: nox.Session) -> None:
    """The main path in containers, and what goes wrong with them."""
    session.install("-e", ".[test]")
    session.env["SHARDS_DOCKER_EXPECTED"] = "1"
    _to_its_end(session, "pytest", "tests/contract", "-k", "docker", *session.posargs)


@nox.session
def recording(session: nox.Session) -> None:
    """The README's recording of `inv promote` under 1,000 clients, made anew: docs/images/promote.gif."""
    session.install("-e", ".[test]")
    _to_its_end(session, "python", "-m", "tests.bench.recording", *session.posargs)


@nox.session
def swarm(session: nox.Session) -> None:
    """The main path on a swarm of three daemons, then one node cut off and one killed under load; root only."""
    session.install("-e", ".[test]")
    session.env["SHARDS_SWARM"] = "1"
    _to_its_end(session, "pytest", "tests/contract", "tests/swarm", "-k", "swarm", *session.posargs)


@nox.session
def attacks(session: nox.Session) -> None:
    """200 ordinary clients go on while a fleet is attacked in every way we know; -- --only slowloris,ping-flood."""
    session.install("-e", ".[test]")
    _to_its_end(session, "python", "-m", "tests.attacks", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """This project beside its peers, as ratios; N=, DURATION= and RATE= scale it down."""
    session.install("-e", ".[bench]")
    _to_its_end(session, "python", "-m", "bench", "--cache", str(Path(session.cache_dir) / "bench"), *session.posargs)


@nox.session
def crosscheck(session: nox.Session) -> None:
    """Our load generator and tsung, in turn on one fleet: what the server counts agrees within 5 %; N=, DURATION=."""
    if shutil.which("tsung") is None:
        session.error("no tsung on PATH: `apt-get install tsung`, or your system's package")
    session.install("-e", ".")
    _to_its_end(session, "python", "-m", "bench.crosscheck", *session.posargs)

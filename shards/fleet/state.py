"""What is remembered of a fleet between commands: the directory ``.fleet/<project>/``.

It holds ``fleet.json`` (what runs), ``id`` (by which what is elsewhere is known to be this fleet's), ``secrets/``, the
parts' configuration, data and logs, and ``lock``, which one command at a time holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import psutil

from shards.errors import ShardsError
from shards.fleet.accounts import Passwords
from shards.fleet.shard_list import FleetShard
from shards.fleet.spec import Color, FleetSpec
from shards.settings import Credentials, passwords_in, read_credentials

LOOPBACK = "127.0.0.1"

_FOLDERS = ("logs", "secrets", "conf", "data", "edge")


@dataclass(frozen=True)
class Place:
    """Where a part is, in a fleet of several hosts.

    Attributes:
        node: the host's name in the engine.
        address: at which the other hosts, and commands, reach it.
    """

    node: str
    address: str


@dataclass(frozen=True)
class Deployment:
    """A color that is deployed.

    Attributes:
        release: which release of the app it runs.
        replicas: how many.
        workers: processes of each.
        layer: the app's default channel layer, where it has one that is not of this project.
    """

    release: str
    replicas: int
    workers: int
    layer: str | None = None


@dataclass(frozen=True)
class FleetState:
    """What runs.

    Attributes:
        spec: what the fleet shall be.
        ports: the port of each part, by its name; ``edge-0`` is its admin port.
        active: the color that serves.
        deployed: what each color runs, where it is deployed.
        previous: the release that was active before, which `rollback` names.
        up: the fleet was started and not yet stopped.
        shards: those there are; while slots move, those that come and those that go.
        primaries: which server of each pair was the primary when the fleet started, by the shard's name.
        places: which host each part is on, by its name, where the engine has several.
        restarting: the part that `inv restart` replaces, from when another one begins to stand in for it.
        to_renew: replicas of the active color that still run with another number of workers than is deployed.
        settings: what was chosen for the app when the fleet was started, by variable; see `shards.settings.chosen`.
        hsts_until: until when browsers may come by TLS only for what edges have told them before they told what `spec`
            says, seconds since 1970; see `promised`.
    """

    spec: FleetSpec
    ports: dict[str, int] = field(default_factory=dict)
    active: Color = "blue"
    deployed: dict[Color, Deployment] = field(default_factory=dict)
    previous: str | None = None
    up: bool = False
    shards: tuple[FleetShard, ...] = ()
    primaries: dict[str, str] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    restarting: str | None = None
    to_renew: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    hsts_until: float = 0.0

    def promised(self, now: float) -> float:
        """Give until when browsers may come by TLS only if from the moment `now` on nobody tells them so any more.

        Not the last that was told counts but the longest: who has not been here since then knows of nothing else.
        """
        told_s = (self.spec.hsts_seconds or 0) if self.up and self.spec.tls_certificate else 0
        return max(self.hsts_until, now + told_s) if told_s else self.hsts_until

    @property
    def restarts_an_edge(self) -> bool:
        """Whether the part that is being restarted is an edge, and no replica."""
        return self.restarting is not None and self.restarting.startswith("edge-")

    def with_deployed(self, color: Color, deployment: Deployment | None) -> FleetState:
        """Give the state in which `color` runs `deployment`; None: nothing."""
        deployed = {name: value for name, value in self.deployed.items() if name != color}
        if deployment:
            deployed[color] = deployment
        return replace(self, deployed=deployed)


class FleetDir:
    """The directory of one fleet.

    Args:
        root: the directory of all fleets (``.fleet``).
        project: the fleet's name.
    """

    def __init__(self, root: Path, project: str) -> None:
        self.project = project
        self.path = root.resolve() / project
        self.logs = self.path / "logs"
        self.password_file = self.path / "secrets" / "redis"
        self.app_password_file = self.path / "secrets" / "redis-app"
        self.secret_key_file = self.path / "secrets" / "django"
        self.credentials_file = self.path / "secrets" / "shards"
        self.token_key_file = self.path / "secrets" / "tokens"
        self.grafana_password_file = self.path / "secrets" / "grafana"
        self.certificate_file = self.path / "secrets" / "certificate.pem"
        self.certificate_key_file = self.path / "secrets" / "certificate-key.pem"
        self.id_file = self.path / "id"
        self._state = self.path / "fleet.json"

    def create(self) -> None:
        """Make the directory, its folders and secrets, where they are missing.

        Raises:
            ShardsError: it can't be written.
        """
        with _writing(self.path):
            self._make()
            for folder in _FOLDERS:
                (self.path / folder).mkdir(mode=0o700, exist_ok=True)
            for file in (
                self.password_file,
                self.app_password_file,
                self.secret_key_file,
                self.token_key_file,
                self.grafana_password_file,
            ):
                if not file.exists():
                    write_atomically(file, new_secret())
            if not self.credentials_file.exists():
                write_atomically(self.credentials_file, "{}")
            self._make_id()

    def _make(self) -> None:
        """Make the directory, and that of all fleets where it is missing: one that is there is somebody's to open."""
        # `parents` makes what is missing with the umask, whatever the mode.
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)

    def _make_id(self) -> None:
        if not self.id():
            write_atomically(self.id_file, secrets.token_hex(8))

    def id(self) -> str:
        """Tell this fleet from others of its name, wherever its directory is moved to; empty: it was never made.

        Raises:
            ShardsError: it can't be read.
        """
        return _read(self.id_file).strip() if self.id_file.exists() else ""

    def password(self) -> str:
        """Read what commands, and servers among themselves, show the fleet's Redis servers: the admin's password.

        Raises:
            ShardsError: there is none to read.
        """
        return _passwords(self.password_file)[0]

    def app_password(self) -> str:
        """Read what replicas show the fleet's Redis servers.

        Raises:
            ShardsError: there is none to read.
        """
        return _passwords(self.app_password_file)[0]

    def passwords(self) -> Passwords:
        """Read all passwords that the fleet's Redis servers shall take.

        Raises:
            ShardsError: there are none to read.
        """
        return Passwords(_passwords(self.password_file), _passwords(self.app_password_file))

    def keep_passwords(self, good: Passwords) -> None:
        """Write which passwords the fleet's Redis servers shall take, the first one of each user to be shown.

        Raises:
            ShardsError: they can't be written.
        """
        with _writing(self.path):
            for file, lines in ((self.password_file, good.admin), (self.app_password_file, good.app)):
                write_atomically(file, "\n".join(lines))

    def token_keys(self) -> list[str]:
        """Read the keys of tokens, the one that signs first.

        Raises:
            ShardsError: there are none to read.
        """
        return _read(self.token_key_file).split()

    def keep_token_keys(self, keys: Sequence[str]) -> None:
        """Write the keys of tokens, the one that signs first.

        Raises:
            ShardsError: they can't be written.
        """
        with _writing(self.path):
            write_atomically(self.token_key_file, "\n".join(keys))

    def credentials(self, url: str) -> Credentials:
        """Read what the shard at `url` is shown.

        Raises:
            ShardsError: it can't be read.
        """
        return self.external_credentials().get(url) or Credentials(password=self.password())

    def external_credentials(self) -> dict[str, Credentials]:
        """Read what the shards that run elsewhere are shown, by URL.

        Raises:
            ShardsError: it can't be read.
        """
        try:
            return read_credentials(self.credentials_file)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            raise ShardsError(f"cannot read {self.credentials_file}: {error}") from None

    def keep_credentials(self, shown: Mapping[str, Credentials]) -> None:
        """Remember what the shards that run elsewhere are shown, by URL; what was remembered of others is forgotten.

        Raises:
            ShardsError: it can't be written.
        """
        with _writing(self.path):
            write_atomically(self.credentials_file, msgspec.json.format(msgspec.json.encode(shown)).decode())

    def forget_data(self, part: str) -> None:
        """Delete the data of a part that is gone for good."""
        shutil.rmtree(self.path / "data" / part, ignore_errors=True)

    def read(self) -> FleetState | None:
        """Read what runs; None where no fleet of this name was ever started.

        Raises:
            ShardsError: the file can't be read or makes no sense.
        """
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=FleetState)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ShardsError(f"cannot read {self._state}: {error.strerror}") from None
        except msgspec.MsgspecError as error:
            raise ShardsError(
                f"{self._state} is damaged ({error}): "
                f"`inv down --purge --project {self.project}` ends what runs and deletes it"
            ) from None

    def write(self, state: FleetState) -> None:
        """Write what runs, in one piece.

        Raises:
            ShardsError: it can't be written.
        """
        with _writing(self.path):
            write_atomically(self._state, msgspec.json.format(msgspec.json.encode(state)).decode())

    def forget(self, state: FleetState | None) -> None:
        """Go back to what was remembered before a start that failed; None: to nothing, without any data."""
        if state:
            self.write(state)
        else:
            self._state.unlink(missing_ok=True)
            shutil.rmtree(self.path / "data", ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Hold the fleet: one command at a time changes it. One that has no id gets one, for what is made meanwhile.

        Args:
            command: what holds it, for the message that the next one gives.

        Raises:
            ShardsError: another command holds it, or the directory can't be written.
        """
        made = not self.path.exists()
        with _writing(self.path):
            self._make()
            # Nothing is buffered, so that nothing is left to be written where there is no room for it.
            lock = (self.path / "lock").open("ab", buffering=0)
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ShardsError(self._busy(self.holder())) from None
            lock.truncate(0)
            with contextlib.suppress(OSError):
                # A disk that is full must not keep anybody from `down --purge`, and who holds it is only told.
                lock.write(msgspec.json.encode(Holder(command, os.getpid(), time.time())))
                # One from before there were ids has none, nor has a backup of it.
                self._make_id()
            try:
                yield
            finally:
                lock.truncate(0)
                if made:
                    self._forget_what_never_was()

    def _forget_what_never_was(self) -> None:
        """Leave no directory of a fleet of which nothing was started: no part has said a word, no image was built."""
        there = {path.name for path in self.path.glob("*")}
        if there <= {"lock", "id", *_FOLDERS} and not any(self.logs.glob("*")):
            shutil.rmtree(self.path, ignore_errors=True)

    @contextlib.contextmanager
    def take_lock_over(self, command: str) -> Iterator[None]:
        """Hold the fleet in the place of a command that stands still; for who has the lease in the control Redis.

        Raises:
            ShardsError: yet another command was faster.
        """
        with _writing(self.path):
            (self.path / "lock").unlink(missing_ok=True)
        with self.lock(command):
            yield

    def holder(self) -> Holder | None:
        """Tell which command changes the fleet now; None where none does, or it can't be told."""
        # Looks without taking the lock: a look must not be in a command's way.
        try:
            holder = msgspec.json.decode((self.path / "lock").read_bytes(), type=Holder)
            started = psutil.Process(holder.pid).create_time()
        except (OSError, msgspec.MsgspecError, psutil.Error):
            return None
        return holder if started <= holder.since else None

    def _busy(self, holder: Holder | None) -> str:
        if holder is None:
            return f"another command is changing fleet {self.project}; wait until it is through"
        since = time.strftime("%H:%M:%S", time.localtime(holder.since))
        return (
            f"`inv {holder.command}` (pid {holder.pid}, since {since}) is changing fleet {self.project}; "
            "wait until it is through"
        )


@dataclass(frozen=True)
class Holder:
    """The command that holds a fleet's lock.

    Attributes:
        command: its name.
        pid: its process.
        since: when it took the lock, seconds since 1970.
    """

    command: str
    pid: int
    since: float


def new_secret() -> str:
    """Make up a password or a key."""
    return secrets.token_urlsafe(48)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ShardsError(f"cannot read {path}: {error.strerror}") from None


def _passwords(path: Path) -> tuple[str, ...]:
    found = passwords_in(_read(path))
    if not found:
        raise ShardsError(f"{path} holds no password: delete it, and `inv down` and `inv up` make one")
    return tuple(found)


def write_atomically(path: Path, text: str, by_way_of: Path | None = None, mode: int = 0o600) -> None:
    """Write a file so that whoever reads it sees the old text or the new, also after a crash.

    Args:
        path: the file.
        text: what shall be in it.
        by_way_of: directory to write it in first, on the same file system; its own where not given.
        mode: who may read it; its owner only where not given.
    """
    # A name of this process's own: a command that was overtaken may be writing the same file.
    first = (by_way_of or path.parent) / f".{path.name}.{os.getpid()}.tmp"
    try:
        descriptor = os.open(first, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        first.replace(path)
    except BaseException:
        first.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ShardsError(
            f"cannot write {error.filename or path}: {error.strerror}; make it writable, "
            "or set INVOKE_FLEET_STATE_DIR to a directory that is"
        ) from None

"""Sets a host's settings, and takes that back: `inv tune`. What shall be set is decided in `shards.host.tuning`."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from shards.errors import ShardsError
from shards.fleet.state import write_atomically
from shards.host.listening import listened_on
from shards.host.record import Record, Records
from shards.host.sysctl import Kernel
from shards.host.tuning import (
    NOFILE,
    NOFILE_WANTED,
    Difference,
    Setting,
    Verdict,
    difference,
    limits_text,
    read_settings,
    reserving,
    sysctl_text,
)

_CAP_SYS_RESOURCE = 24
_SETTLED = "is as it should be by now"
_NOFILE = Setting(
    NOFILE, str(NOFILE_WANTED), "Files that a process may open: an edge opens two a socket, a replica one."
)


@dataclass(frozen=True)
class Places:
    """Where a host keeps its settings.

    Attributes:
        kernel: those of the kernel.
        sysctl: the file that sets them when the host starts. Files are read in the order of their names, and the link
            to /etc/sysctl.conf that Debian has is called 99-sysctl.conf.
        limits: the file that login sessions get their limits from.
        record: what was before.
        sockets: where the kernel shows which ports are listened on.
    """

    kernel: Kernel = field(default_factory=Kernel)
    sysctl: Path = Path("/etc/sysctl.d/99-zz-shards.conf")
    limits: Path = Path("/etc/security/limits.d/99-shards.conf")
    record: Path = Path("/var/lib/shards/tune.json")
    sockets: Path = Path("/proc/net")


@dataclass(frozen=True)
class Outcome:
    """What came of changing a setting or a file.

    Attributes:
        name: of it.
        before: what it was; None: nothing.
        after: what it is.
        error: why it is not what it should be; None: it is.
        note: what else is to be said.
    """

    name: str
    before: str | None
    after: str | None
    error: str | None = None
    note: str = ""


def differences(places: Places, wanted: Path, ports: Collection[int] = ()) -> list[Difference]:
    """Compare this host with what is wanted.

    Args:
        places: where it keeps its settings.
        wanted: a file like docker/sysctl.conf.
        ports: that outgoing connections shall not take, beside those in it and those that are listened on now.

    Raises:
        ShardsError: that file can't be read.
    """
    try:
        settings = read_settings(wanted.read_text())
    except OSError as error:
        raise ShardsError(f"cannot read {wanted}: {error.strerror}; it comes with this project") from None
    settings = reserving(settings, {*ports, *listened_on(places.sockets)})
    kernel = places.kernel
    found = [difference(one, kernel.read(one.key), kernel.may_write(one.key)) for one in settings]
    return [*found, difference(_NOFILE, _sessions_nofile(places), may_be_raised())]


def _sessions_nofile(places: Places) -> str | None:
    if not places.limits.parent.is_dir():
        return None
    with contextlib.suppress(OSError):
        # Sessions that began before the file was written do not know it yet.
        if places.limits.read_text() == limits_text(_NOFILE.value):
            return _NOFILE.value
    return str(hard_nofile())


def hard_nofile() -> int:
    """Tell how many files a process may open at most; where there is no limit, a number that no one reaches."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 2**31 if hard == resource.RLIM_INFINITY else hard


def may_be_raised(process: Path = Path("/proc/self")) -> bool:
    """Tell whether root may raise a hard limit on this host: in many containers and machines it may not.

    Args:
        process: where the kernel shows this process.
    """
    with contextlib.suppress(OSError, ValueError):
        # In a user namespace root has every capability, and over limits none of them counts.
        if (process / "uid_map").read_text().split() != ["0", "0", str(2**32 - 1)]:
            return False
        for line in (process / "status").read_text().splitlines():
            if line.startswith("CapBnd:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def apply(places: Places, found: Iterable[Difference]) -> list[Outcome]:
    """Set what is to be changed, now and for when the host starts again.

    Args:
        places: where.
        found: see `differences`. What was there is looked at again: somebody may have changed it since.

    Returns:
        What came of each change, those that failed too.

    Raises:
        ShardsError: nothing was changed, since it could not be remembered.
    """
    agreed = [one for one in found if one.verdict is Verdict.CHANGE]
    if not agreed:
        return []
    records = Records(places.record)
    with _writing("changed"), records.lock():
        now = [_as_it_is(places, one) for one in agreed]
        changes = {one.key: one for one in now if one.verdict is Verdict.CHANGE}
        settled = [Outcome(one.key, one.current, one.current, note=_SETTLED) for one in now if one.key not in changes]
        if not changes:
            return settled
        record = _recorded(places, records.read(), changes)
        records.write(record)
        settings = [_set(places.kernel, key, one.current, one.wanted) for key, one in changes.items()]
        return [*settled, *settings, *_write_files(places, record)]


def _as_it_is(places: Places, found: Difference) -> Difference:
    current = _sessions_nofile(places) if found.key == NOFILE else places.kernel.read(found.key)
    return difference(Setting(found.key, found.wanted, found.reason), current, writable=True)


def _recorded(places: Places, earlier: Record | None, changes: Mapping[str, Difference]) -> Record:
    files = {str(path): _content(path) for path in (places.sysctl, places.limits)}
    first = earlier or Record({}, {}, files)
    before = {key: one.current or "" for key, one in changes.items() if key != NOFILE}
    return first.with_more(before, {key: one.wanted for key, one in changes.items()})


def _content(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _write_files(places: Places, record: Record) -> list[Outcome]:
    texts = {}
    if record.before:
        texts[places.sysctl] = sysctl_text(record.applied)
    if NOFILE in record.applied:
        texts[places.limits] = limits_text(record.applied[NOFILE])
    return [_write(path, text, "written") for path, text in texts.items()]


def _write(path: Path, text: str, what: str) -> Outcome:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
        path.chmod(0o644)
    except OSError as error:
        return Outcome(str(path), None, None, f"cannot be written: {error.strerror}")
    return Outcome(str(path), None, what)


def _set(kernel: Kernel, key: str, before: str | None, value: str) -> Outcome:
    if key == NOFILE:
        return Outcome(key, before, value, note="from the next login on")
    try:
        kernel.write(key, value)
    except OSError as error:
        return Outcome(key, before, kernel.read(key), f"the kernel refuses {value!r}: {error.strerror}")
    after = kernel.read(key)
    kept = None if after == value else f"the kernel made {after!r} of {value!r}"
    return Outcome(key, before, after, kept)


def revert(places: Places) -> list[Outcome]:
    """Bring back what was before the first apply, and forget it.

    Returns:
        What came of each setting and file; where one failed, it is remembered still. Nothing: there was no apply.

    Raises:
        ShardsError: what was can't be read, and nothing was taken back.
    """
    records = Records(places.record)
    if records.read() is None:
        return []
    with _writing("taken back"), records.lock():
        record = records.read()
        if record is None:
            return []
        # The files first: if the host stops now, it does not start with what is being taken back.
        files = [one for path, content in record.files.items() if (one := _restore(Path(path), content, record))]
        settings = [_unset(places.kernel, record, key) for key in reversed(record.before)]
        outcomes = [*settings, *files]
        return [*outcomes, *_remember_failed(records, record, {one.name for one in failed(outcomes)})]


def _restore(path: Path, content: str | None, record: Record) -> Outcome | None:
    """Give a file what was in it before; None: it has that."""
    try:
        there = _content(path)
    except OSError as error:
        return Outcome(str(path), None, None, f"cannot be read: {error.strerror}")
    if there == content:
        return None
    note = (
        "it had lines that the last `inv tune --apply` did not write: they are gone"
        if _edited(there or "", record)
        else ""
    )
    if content is not None:
        return _with_note(_write(path, content, "as it was"), note)
    try:
        path.unlink()
    except OSError as error:
        return Outcome(str(path), None, None, f"cannot be deleted: {error.strerror}")
    return Outcome(str(path), None, "deleted", note=note)


def _with_note(outcome: Outcome, note: str) -> Outcome:
    return outcome if outcome.error else replace(outcome, note=note)


def _edited(there: str, record: Record) -> bool:
    """Tell whether a file has lines that no apply wrote: there may be fewer, where the last one was interrupted."""
    ours = sysctl_text(record.applied) + limits_text(record.applied.get(NOFILE, ""))
    return not set(there.splitlines()) <= set(ours.splitlines())


def _unset(kernel: Kernel, record: Record, key: str) -> Outcome:
    current, before = kernel.read(key), record.before[key]
    if current is None:
        return Outcome(key, None, None, note="the kernel does not have it any more: nothing to take back")
    if current == before:
        return Outcome(key, current, current, note="is what it was already")
    changed = f"somebody has set it to {current!r} since" if current != record.applied.get(key) else ""
    outcome = _set(kernel, key, current, before)
    return Outcome(key, outcome.before, outcome.after, outcome.error, changed)


def _remember_failed(records: Records, record: Record, names: set[str]) -> list[Outcome]:
    """Forget what is back; what can't be forgotten is no reason not to tell what came of the rest."""
    before = {key: value for key, value in record.before.items() if key in names}
    try:
        if names:
            # A file that is not back still says all that was applied.
            applied = record.applied if names & record.files.keys() else {key: record.applied[key] for key in before}
            records.write(Record(before, applied, record.files))
        else:
            records.forget()
    except OSError as error:
        why = f"cannot be written: {error.strerror}; what is told above is done, `inv tune --revert` again ends it"
        return [Outcome(str(records.path), None, None, why)]
    return []


@contextlib.contextmanager
def _writing(done: str) -> Iterator[None]:
    """Tell that nothing was `done`, where what comes first fails: the lock, the record."""
    try:
        yield
    except OSError as error:
        raise ShardsError(f"cannot write {error.filename}: {error.strerror}; nothing was {done}") from None


def failed(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Give those that failed."""
    return [one for one in outcomes if one.error]

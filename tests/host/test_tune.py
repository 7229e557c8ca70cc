"""`inv tune` sets what differs and brings back exactly what was, whatever happens in between."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import ShardsError
from shards.host import tune
from shards.host.record import Records
from shards.host.sysctl import Kernel
from shards.host.tune import Places, apply, differences, failed, may_be_raised, revert
from shards.host.tuning import Difference, Verdict
from shards.load.scenarios import repository
from shards.tasks import tune as command

CONF = "# a\nnet.core.somaxconn = 65535\n# b\nnet.ipv4.tcp_fin_timeout = 30\n# c\nvm.overcommit_memory = 1\n"
BEFORE = {"net.core.somaxconn": "4096", "net.ipv4.tcp_fin_timeout": "60", "vm.overcommit_memory": "0"}
AFTER = {"net.core.somaxconn": "65535", "net.ipv4.tcp_fin_timeout": "30", "vm.overcommit_memory": "1"}


class Stubborn(Kernel):
    """A kernel that refuses to have a setting set."""

    refused = ""

    def write(self, key: str, value: str) -> None:
        if key == self.refused:
            raise OSError(22, "Invalid argument")
        super().write(key, value)


class Interrupted(Kernel):
    """A kernel at which one is interrupted, before the third setting."""

    left = 2

    def write(self, key: str, value: str) -> None:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super().write(key, value)


@pytest.fixture(autouse=True)
def login_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be on a host whose sessions may open 20,000 files, which root may raise."""
    monkeypatch.setattr(tune, "hard_nofile", lambda: 20_000)
    monkeypatch.setattr(tune, "may_be_raised", lambda: True)


def places(tmp_path: Path, kind: type[Kernel] = Kernel) -> Places:
    """Make a host whose settings are files, and on which nobody listens."""
    for key, value in BEFORE.items():
        path = tmp_path / "sys" / key.replace(".", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    (tmp_path / "sysctl.conf").write_text(CONF)
    etc = tmp_path / "etc"
    (etc / "limits.d").mkdir(parents=True, exist_ok=True)
    files = (etc / "sysctl.d" / "s.conf", etc / "limits.d" / "l.conf", tmp_path / "record", tmp_path / "net")
    return Places(kind(tmp_path / "sys"), *files)


def values(host: Places) -> dict[str, str | None]:
    return {key: host.kernel.read(key) for key in BEFORE}


def found(host: Places) -> list[Difference]:
    return differences(host, host.record.parent / "sysctl.conf")


def test_apply_sets_what_differs_now_and_for_the_next_start(tmp_path: Path) -> None:
    host = places(tmp_path)
    assert not failed(apply(host, found(host)))
    assert values(host) == AFTER
    assert "net.core.somaxconn = 65535\n" in host.sysctl.read_text()
    assert {one.verdict for one in found(host)} <= {Verdict.RIGHT, Verdict.ABSENT}


def test_revert_brings_back_what_was_and_leaves_nothing(tmp_path: Path) -> None:
    host = places(tmp_path)
    apply(host, found(host))
    assert not failed(revert(host))
    assert values(host) == BEFORE
    assert not host.sysctl.exists()
    assert not host.limits.exists()
    assert not host.record.exists()
    assert revert(host) == []


def test_login_sessions_get_their_files_from_the_next_login_on(tmp_path: Path) -> None:
    host = places(tmp_path)
    before = next(one for one in found(host) if one.key == "nofile")
    assert (before.current, before.wanted, before.verdict) == ("20000", "65536", Verdict.CHANGE)
    done = next(one for one in apply(host, [before]) if one.name == "nofile")
    assert (done.before, done.after, done.note) == ("20000", "65536", "from the next login on")
    assert host.limits.read_text().splitlines()[1:] == [
        f"{who} {kind} nofile 65536" for who in ("*", "root") for kind in ("soft", "hard")
    ]
    assert not host.sysctl.exists(), "the kernel has no part in it"
    # This session began before that, and is not asked to be raised again.
    assert next(one.verdict for one in found(host) if one.key == "nofile") is Verdict.RIGHT


def test_limits_of_login_sessions_that_were_there_are_there_again(tmp_path: Path) -> None:
    host = places(tmp_path)
    host.limits.write_text("* hard nofile 30000\n")
    apply(host, found(host))
    assert "65536" in host.limits.read_text()
    assert not failed(revert(host))
    assert host.limits.read_text() == "* hard nofile 30000\n"


@pytest.mark.parametrize("raisable", [True, False], ids=["no such directory", "no process may"])
def test_no_limits_are_written_that_no_login_reads_or_none_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raisable: bool
) -> None:
    host = places(tmp_path)
    monkeypatch.setattr(tune, "may_be_raised", lambda: raisable)
    if raisable:
        host.limits.parent.rmdir()
    verdict = next(one.verdict for one in found(host) if one.key == "nofile")
    assert verdict is (Verdict.ABSENT if raisable else Verdict.FORBIDDEN)
    assert not failed(apply(host, found(host)))
    assert not host.limits.exists()
    assert host.limits.parent.exists() is not raisable


@pytest.mark.parametrize(
    ("uid_map", "bounding", "raisable"),
    [
        ("0 0 4294967295", "000001ffffffffff", True),
        ("0 0 4294967295", "000001fffeffffff", False),
        ("0 1000 1", "000001ffffffffff", False),
    ],
    ids=["root of the host", "without CAP_SYS_RESOURCE", "root of a user namespace"],
)
def test_who_may_raise_a_hard_limit(tmp_path: Path, uid_map: str, bounding: str, raisable: bool) -> None:
    (tmp_path / "uid_map").write_text(f"         {uid_map}\n")
    (tmp_path / "status").write_text(f"Name:\tx\nCapBnd:\t{bounding}\n")
    assert may_be_raised(tmp_path) is raisable


PORTS = "# r\nnet.ipv4.ip_local_port_range = 1024 65535\n# s\nnet.ipv4.ip_local_reserved_ports = 8000-8100\n"


def test_ports_that_somebody_listens_on_are_kept_from_outgoing_connections(tmp_path: Path) -> None:
    """A database, the fleet's own port, and not who asked for any port, or has one that is in use by a connection."""
    host = places(tmp_path)
    for key, value in {"ip_local_port_range": "32768 60999", "ip_local_reserved_ports": ""}.items():
        (tmp_path / "sys" / "net" / "ipv4" / key).write_text(f"{value}\n")
    (tmp_path / "sysctl.conf").write_text(PORTS)
    host.sockets.mkdir()
    rows = ["0100007F:1538 00000000:0000 0A", "0100007F:0016 00000000:0000 0A", "0100007F:9C40 00000000:0000 0A"]
    rows += ["0100007F:0CEA 0100007F:9C40 01"]
    table = ["  sl  local_address rem_address   st", *(f"   {i}: {row} 0" for i, row in enumerate(rows))]
    (host.sockets / "tcp").write_text("\n".join(table))
    ranged, reserved, _ = differences(host, tmp_path / "sysctl.conf", [9000])
    assert reserved.wanted == "5432,8000-8100,9000"
    assert "5432,9000, which are listened on" in reserved.reason
    assert not failed(apply(host, [ranged, reserved]))
    assert host.kernel.read("net.ipv4.ip_local_reserved_ports") == "5432,8000-8100,9000"
    again = differences(host, tmp_path / "sysctl.conf", [9000])
    assert [one.verdict for one in again[:2]] == [Verdict.RIGHT, Verdict.RIGHT]


def test_what_somebody_sets_while_one_is_asked_is_what_was_before(tmp_path: Path) -> None:
    host = places(tmp_path)
    agreed = found(host)
    host.kernel.write("net.core.somaxconn", "8192")
    host.kernel.write("net.ipv4.tcp_fin_timeout", "20")
    outcomes = {one.name: one for one in apply(host, agreed)}
    assert outcomes["net.core.somaxconn"].before == "8192"
    assert outcomes["net.ipv4.tcp_fin_timeout"].note == "is as it should be by now"
    assert host.kernel.read("net.ipv4.tcp_fin_timeout") == "20", "it is better than what was wanted"
    assert not failed(revert(host))
    assert values(host) == {**BEFORE, "net.core.somaxconn": "8192", "net.ipv4.tcp_fin_timeout": "20"}


def test_where_somebody_else_has_done_it_all_nothing_is_remembered(tmp_path: Path) -> None:
    host = places(tmp_path)
    agreed = [one for one in found(host) if one.key in AFTER]
    for key, value in AFTER.items():
        host.kernel.write(key, value)
    assert {one.note for one in apply(host, agreed)} == {"is as it should be by now"}
    assert not host.record.exists()


def test_a_record_that_can_not_be_forgotten_does_not_hide_what_was_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = places(tmp_path)
    apply(host, found(host))

    def full(_: Records) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Records, "forget", full)
        outcomes = revert(host)
    assert [one.name for one in failed(outcomes)] == [str(host.record)]
    assert "No space left on device" in str(failed(outcomes)[0].error)
    assert {one.name for one in outcomes} >= set(BEFORE), "what came of the rest is told"
    assert values(host) == BEFORE
    assert not failed(revert(host))
    assert not host.record.exists()


def test_a_file_that_can_not_be_read_does_not_keep_the_rest_from_being_taken_back(tmp_path: Path) -> None:
    host = places(tmp_path)
    apply(host, found(host))
    host.sysctl.unlink()
    host.sysctl.mkdir()
    outcomes = revert(host)
    assert [one.name for one in failed(outcomes)] == [str(host.sysctl)]
    assert values(host) == BEFORE
    assert not host.limits.exists()
    host.sysctl.rmdir()
    assert not failed(revert(host))
    assert not host.record.exists()


@pytest.mark.parametrize(("act", "said"), [("apply", "nothing was changed"), ("revert", "nothing was taken back")])
def test_where_nothing_was_done_it_is_said_of_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str, said: str
) -> None:
    host = places(tmp_path)
    if act == "revert":
        apply(host, found(host))
    before = values(host)

    @contextlib.contextmanager
    def unwritable(_: Records) -> Iterator[None]:
        raise OSError(30, "Read-only file system", "/var/lib/shards")
        yield

    monkeypatch.setattr(Records, "lock", unwritable)
    with pytest.raises(ShardsError, match=said):
        _ = apply(host, found(host)) if act == "apply" else revert(host)
    assert values(host) == before


def test_a_file_that_was_there_is_there_again(tmp_path: Path) -> None:
    host = places(tmp_path)
    host.sysctl.parent.mkdir(parents=True)
    host.sysctl.write_text("theirs = 1\n")
    apply(host, found(host))
    revert(host)
    assert host.sysctl.read_text() == "theirs = 1\n"


def test_what_was_before_the_first_apply_counts(tmp_path: Path) -> None:
    host = places(tmp_path)
    apply(host, found(host))
    host.kernel.write("net.core.somaxconn", "128")
    (tmp_path / "sysctl.conf").write_text(CONF)
    assert next(one.name for one in apply(host, found(host))) == "net.core.somaxconn"
    assert values(host) == AFTER
    assert "tcp_fin_timeout = 30" in host.sysctl.read_text()
    revert(host)
    assert values(host) == BEFORE


def test_what_better_values_there_are_stay_out_of_it(tmp_path: Path) -> None:
    host = places(tmp_path)
    host.kernel.write("net.core.somaxconn", "100000")
    apply(host, found(host))
    assert host.kernel.read("net.core.somaxconn") == "100000"
    assert "somaxconn" not in host.sysctl.read_text()


def test_an_apply_that_is_interrupted_can_be_taken_back(tmp_path: Path) -> None:
    host = places(tmp_path, Interrupted)
    with pytest.raises(KeyboardInterrupt):
        apply(host, found(host))
    assert values(host) == {**AFTER, "vm.overcommit_memory": "0"}
    again = places_as_they_are(host)
    assert not failed(revert(again))
    assert values(again) == BEFORE
    assert not again.sysctl.exists()


def places_as_they_are(host: Places) -> Places:
    return Places(Kernel(host.record.parent / "sys"), host.sysctl, host.limits, host.record)


def test_what_the_kernel_refuses_is_said_and_the_rest_is_done(tmp_path: Path) -> None:
    host = places(tmp_path, Stubborn)
    Stubborn.refused = "net.ipv4.tcp_fin_timeout"
    outcomes = apply(host, found(host))
    assert [one.name for one in failed(outcomes)] == ["net.ipv4.tcp_fin_timeout"]
    assert values(host) == {**AFTER, "net.ipv4.tcp_fin_timeout": "60"}
    assert not failed(revert(host))
    assert values(host) == BEFORE


def test_what_could_not_be_taken_back_is_remembered(tmp_path: Path) -> None:
    host = places(tmp_path, Stubborn)
    Stubborn.refused = ""
    apply(host, found(host))
    Stubborn.refused = "vm.overcommit_memory"
    assert [one.name for one in failed(revert(host))] == ["vm.overcommit_memory"]
    Stubborn.refused = ""
    assert not failed(revert(host))
    assert values(host) == BEFORE
    assert not host.record.exists()


def test_what_somebody_else_has_set_since_is_told(tmp_path: Path) -> None:
    host = places(tmp_path)
    apply(host, found(host))
    host.kernel.write("net.core.somaxconn", "8192")
    notes = {one.name: one.note for one in revert(host)}
    assert "somebody has set it to '8192' since" in notes["net.core.somaxconn"]
    assert values(host) == BEFORE


@pytest.mark.parametrize("before", [None, "# of before\n"])
def test_a_file_that_somebody_has_edited_since_is_told(tmp_path: Path, before: str | None) -> None:
    host = places(tmp_path)
    host.sysctl.parent.mkdir(exist_ok=True)
    if before is not None:
        host.sysctl.write_text(before)
        host.limits.write_text(before)
    apply(host, found(host))
    host.sysctl.write_text(host.sysctl.read_text() + "vm.swappiness = 1\n")
    notes = {one.name: one.note for one in revert(host)}
    assert notes[str(host.sysctl)] == "it had lines that the last `inv tune --apply` did not write: they are gone"
    assert notes[str(host.limits)] == "", "nobody has edited that one"
    assert (host.sysctl.read_text() if host.sysctl.exists() else None) == before


def test_a_setting_that_is_gone_with_its_module_is_no_failure(tmp_path: Path) -> None:
    host = places(tmp_path)
    apply(host, found(host))
    (tmp_path / "sys" / "vm" / "overcommit_memory").unlink()
    outcomes = {one.name: one for one in revert(host)}
    assert "nothing to take back" in outcomes["vm.overcommit_memory"].note
    assert not host.record.exists()


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    host = places(tmp_path)
    with Records(host.record).lock(), pytest.raises(ShardsError, match="another `inv tune`"):
        apply(host, found(host))
    assert values(host) == BEFORE


def test_a_damaged_record_is_not_thrown_away(tmp_path: Path) -> None:
    host = places(tmp_path)
    host.record.write_text("{")
    with pytest.raises(ShardsError, match="see to it by hand"):
        revert(host)
    with pytest.raises(ShardsError, match="see to it by hand"):
        apply(host, found(host))
    assert values(host) == BEFORE


# -- the command asks


def asked(monkeypatch: pytest.MonkeyPatch, answer: str, user: int = 0) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("os.geteuid", lambda: user)


CHANGE = Difference("net.core.somaxconn", "4096", "65535", Verdict.CHANGE, "network namespace", "")


def test_yes_is_needed_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked(monkeypatch, "y\n")
    command.confirm([CHANGE], yes=False)
    assert "net.core.somaxconn: 4096 → 65535" in capsys.readouterr().err
    asked(monkeypatch, "\n")
    with pytest.raises(ShardsError, match="nothing was changed"):
        command.confirm([CHANGE], yes=False)


def test_who_is_asked_is_warned_of_ports_that_others_may_lose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(monkeypatch, "y\n")
    command.confirm([replace(CHANGE, key="net.ipv4.ip_local_port_range", wanted="1024 65535")], yes=False)
    assert "warning: outgoing connections may then come from any port of 1024-65535" in capsys.readouterr().err
    asked(monkeypatch, "y\n")
    command.confirm([CHANGE], yes=False)
    assert "warning" not in capsys.readouterr().err


def test_who_is_not_root_is_told_how_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, "y\n", user=1000)
    with pytest.raises(ShardsError, match=r"sudo .* tune --apply"):
        command.confirm([CHANGE], yes=True)


def test_where_nothing_is_to_be_changed_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked(monkeypatch, "", user=1000)
    command.confirm([replace(CHANGE, verdict=Verdict.RIGHT)], yes=False)


# -- the command, in namespaces of its own: what it changes there is nobody's

PREPARE = """
set -e
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/etc
# What an ordinary user may not read is not needed.
cp -r /etc/. /var/lib/etc 2>/dev/null || true
mount --bind /var/lib/etc /etc
mkdir -p /etc/sysctl.d /etc/security/limits.d
rm -f /etc/sysctl.d/99-zz-shards.conf /etc/security/limits.d/99-shards.conf
for directory in fs vm kernel; do
  mount --bind /proc/sys/$directory /proc/sys/$directory
  mount -o remount,ro,bind /proc/sys/$directory
done
"""


def unshare() -> list[str]:
    """Give the command that makes the namespaces, as root or as anybody."""
    command = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here: no namespace of its own for `inv tune`")
    tried = subprocess.run([*command, "sh", "-c", PREPARE], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces of its own for `inv tune` here: {tried.stderr.strip()}")
    return command


def in_namespaces(script: str) -> list[str]:
    """Run a shell script where the settings of the network are its own, /etc a copy, and the host's are read-only."""
    command = [*unshare(), "sh", "-c", PREPARE + script]
    done = subprocess.run(
        command,
        cwd=repository(),
        env={
            **os.environ,
            "TUNE": f"{sys.executable} -m invoke tune",
            "PROOF": f"{sys.executable} -m tests.host.sysctl_proof --yes --json",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.strip().splitlines()


def test_nothing_that_is_written_there_reaches_the_host() -> None:
    mark = f"shards-{os.getpid()}"
    places = [f"{directory}/{mark}" for directory in ("/etc/sysctl.d", "/etc/security/limits.d", "/var/lib")]
    assert in_namespaces(f"touch {' '.join(places)}; ls {' '.join(places)}") == sorted(places)
    assert [place for place in places if Path(place).exists()] == []


def test_apply_then_revert_leaves_every_setting_of_the_kernel_and_every_file_as_it_was() -> None:
    # Fewer files than are wanted, so that there is something to be changed of them too.
    (said,) = in_namespaces("ulimit -n 20000 || true; $PROOF")
    found = json.loads(said)
    assert (found["verdict"], found["left"], found["not_done"]) == ("pass", {}, [])
    assert found["settings"] > 300
    assert {"net/core/somaxconn", "net/ipv4/ip_local_port_range", "/etc/sysctl.d/99-zz-shards.conf"} <= set(
        found["changed"]
    )
    verdicts = {one["key"]: one["verdict"] for one in found["refused"]}
    raised = "/etc/security/limits.d/99-shards.conf" in found["changed"]
    assert raised is (verdicts.get("nofile") != "forbidden")


def test_an_apply_that_is_run_again_changes_nothing_and_a_revert_leaves_no_file() -> None:
    applied, again, reverted, files = in_namespaces(
        "$TUNE --apply --yes --json; $TUNE --apply --yes --json; $TUNE --revert --json; "
        "echo $(ls /etc/sysctl.d/*shards* /etc/security/limits.d/*shards* /var/lib/shards 2>/dev/null)"
    )
    assert json.loads(applied)["failed"] == []
    assert json.loads(again)["outcomes"] == []
    assert json.loads(reverted)["failed"] == []
    assert files == "/var/lib/shards: tune.lock"


def test_what_is_the_hosts_is_refused_aloud_in_a_namespace() -> None:
    (said,) = in_namespaces("$TUNE --json")
    verdicts = {one["key"]: (one["verdict"], one["note"]) for one in json.loads(said)["settings"]}
    assert verdicts["net.core.netdev_max_backlog"][0] == "absent"
    verdict, note = verdicts["vm.overcommit_memory"]
    assert verdict == "right" or (verdict == "forbidden" and "read-only here" in note)


def test_nobody_to_ask_is_wrong_usage() -> None:
    assert in_namespaces("$TUNE --apply 2>&1 && exit 9; test $? = 2; echo fine")[-1] == "fine"

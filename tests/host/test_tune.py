"""`inv tune` sets what differs and brings back exactly what was, whatever happens in between."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import ShardsError
from shards.host.record import Records
from shards.host.sysctl import Kernel
from shards.host.tune import Places, apply, differences, failed, revert
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


def places(tmp_path: Path, kind: type[Kernel] = Kernel) -> Places:
    """Make a host whose settings are files."""
    for key, value in BEFORE.items():
        path = tmp_path / "sys" / key.replace(".", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    (tmp_path / "sysctl.conf").write_text(CONF)
    etc = tmp_path / "etc"
    return Places(kind(tmp_path / "sys"), etc / "sysctl.d" / "s.conf", etc / "limits.d" / "l.conf", tmp_path / "record")


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
    assert not host.record.exists()
    assert revert(host) == []


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
ip link set lo up
for directory in /etc/sysctl.d /var/lib; do mount -t tmpfs tmpfs $directory; done
for directory in fs vm kernel; do
  mount --bind /proc/sys/$directory /proc/sys/$directory
  mount -o remount,ro,bind /proc/sys/$directory
done
"""
SETTINGS = """
import json, pathlib
found = {}
for path in sorted(pathlib.Path("/proc/sys/net").rglob("*")):
    try:
        found[str(path)] = path.read_text() if path.is_file() else ""
    except OSError as error:
        found[str(path)] = str(error)
print(json.dumps({name: text for name, text in found.items() if not name.endswith("_count")}))
"""


def unshare() -> list[str]:
    """Give the command that makes the namespaces, as root or as anybody."""
    command = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("no unshare or ip here: no namespace of its own for `inv tune`")
    tried = subprocess.run([*command, "sh", "-c", PREPARE], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces of its own for `inv tune` here: {tried.stderr.strip()}")
    return command


def in_namespaces(script: str) -> list[str]:
    """Run a shell script where the settings of the network are its own and the host's are read-only."""
    command = [*unshare(), "sh", "-c", PREPARE + script]
    tune = f"{sys.executable} -m invoke tune"
    done = subprocess.run(
        command,
        cwd=repository(),
        env={**os.environ, "TUNE": tune, "SETTINGS": f"{sys.executable} -c '{SETTINGS}'"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def test_apply_then_revert_leaves_every_setting_of_the_kernel_as_it_was() -> None:
    before, applied, again, between, reverted, after, files = in_namespaces(
        'eval "$SETTINGS"; $TUNE --apply --yes --json; $TUNE --apply --yes --json; '
        'eval "$SETTINGS"; $TUNE --revert --json; eval "$SETTINGS"; '
        "echo $(ls /etc/sysctl.d /var/lib/shards)"
    )
    done = json.loads(applied)
    assert done["failed"] == []
    assert json.loads(again)["outcomes"] == []
    assert json.loads(between)["/proc/sys/net/core/somaxconn"] == "65535\n"
    assert json.loads(between) != json.loads(before)
    assert json.loads(reverted)["failed"] == []
    assert json.loads(after) == json.loads(before)
    assert files == "/etc/sysctl.d: /var/lib/shards: tune.lock"


def test_what_is_the_hosts_is_refused_aloud_in_a_namespace() -> None:
    (said,) = in_namespaces("$TUNE --json")
    verdicts = {one["key"]: (one["verdict"], one["note"]) for one in json.loads(said)["settings"]}
    assert verdicts["net.core.netdev_max_backlog"][0] == "absent"
    verdict, note = verdicts["vm.overcommit_memory"]
    assert verdict == "right" or (verdict == "forbidden" and "read-only here" in note)


def test_nobody_to_ask_is_wrong_usage() -> None:
    assert (
        in_namespaces('$TUNE --apply 2>&1 && exit 9; test $? = 2; eval "$SETTINGS" >/dev/null; echo fine')[-1] == "fine"
    )

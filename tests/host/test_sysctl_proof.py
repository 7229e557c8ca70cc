"""The proof that all is as it was tells when it is not."""

from __future__ import annotations

from pathlib import Path

from shards.host.tune import Places
from tests.host.sysctl_proof import judged, seen

BEFORE = {"net/core/somaxconn": "4096\n", "vm/overcommit_memory": "0\n", "fs/file-nr": "9 0 9\n", "/etc/s.conf": "gone"}
WANTED = {"net/core/somaxconn"}
BETWEEN = {**BEFORE, "net/core/somaxconn": "65535\n", "fs/file-nr": "12 0 9\n", "/etc/s.conf": "set"}


def test_all_as_it_was_passes() -> None:
    proof = judged((BEFORE, BEFORE), BETWEEN, {**BEFORE, "fs/file-nr": "13 0 9\n"}, WANTED)
    assert (proof.verdict, proof.left, proof.not_done) == ("pass", {}, [])
    assert proof.changed == ["/etc/s.conf", "net/core/somaxconn"]
    assert proof.counting == ["fs/file-nr"]


def test_what_is_left_of_it_fails_with_both_values() -> None:
    after = {**BEFORE, "vm/overcommit_memory": "1\n", "/etc/s.conf": "set"}
    proof = judged((BEFORE, BEFORE), BETWEEN, after, WANTED)
    assert proof.verdict == "fail"
    assert proof.left == {"/etc/s.conf": ("gone", "set"), "vm/overcommit_memory": ("0\n", "1\n")}


def test_a_setting_that_is_gone_or_new_is_not_as_it_was() -> None:
    after = {name: text for name, text in BEFORE.items() if name != "vm/overcommit_memory"} | {"vm/new": "1"}
    assert set(judged((BEFORE, BEFORE), BETWEEN, after, WANTED).left) == {"vm/overcommit_memory", "vm/new"}


def test_an_apply_that_changed_nothing_proves_nothing() -> None:
    proof = judged((BEFORE, BEFORE), BEFORE, BEFORE, WANTED)
    assert (proof.verdict, proof.not_done) == ("fail", ["net/core/somaxconn"])
    assert judged((BEFORE, BEFORE), BETWEEN, BEFORE, WANTED, ["--revert"]).verdict == "fail"


def test_what_changes_by_itself_is_left_out_but_never_what_is_to_be_set() -> None:
    earlier = {**BEFORE, "net/x/count": "1", "net/core/somaxconn": "100\n"}
    counted = {**BEFORE, "net/x/count": "2"}
    proof = judged((earlier, counted), {**BETWEEN, "net/x/count": "3"}, {**BEFORE, "net/x/count": "4"}, WANTED)
    assert (proof.verdict, proof.counting) == ("pass", ["fs/file-nr", "net/x/count"])
    left = judged((earlier, counted), BETWEEN, {**counted, "net/core/somaxconn": "1\n"}, WANTED).left
    assert set(left) == {"net/core/somaxconn"}


def test_every_setting_is_read_that_can_be(tmp_path: Path) -> None:
    (tmp_path / "net" / "core").mkdir(parents=True)
    (tmp_path / "net" / "core" / "somaxconn").write_text("4096\n")
    (tmp_path / "net" / "flush").touch(0o200)
    found = seen(Places(sysctl=tmp_path / "s.conf"), tmp_path)
    assert found["net/core/somaxconn"] == "4096\n"
    assert "net/flush" not in found
    assert "No such file" in found[str(tmp_path / "s.conf")]

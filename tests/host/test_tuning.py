"""Settings are read with their reasons, compared, and never made worse."""

from __future__ import annotations

import pytest

from shards.errors import ShardsError
from shards.fleet.engines.docker import stack
from shards.host.tuning import (
    Setting,
    Verdict,
    difference,
    limits_text,
    ports_in,
    read_settings,
    scope_of,
    sysctl_text,
    written_ports,
)
from shards.load.scenarios import repository

CONF = (repository() / "docker" / "sysctl.conf").read_text()


def test_every_setting_that_comes_with_the_project_has_its_reason() -> None:
    settings = read_settings(CONF)
    assert {one.key for one in settings} >= {"net.core.somaxconn", "net.netfilter.nf_conntrack_max", "fs.nr_open"}
    assert all(one.reason for one in settings)


def test_a_comment_belongs_to_the_setting_right_below_it() -> None:
    text = "# of the file\n\n# of a\n# in two lines\nnet.a = 1\nnet.b =  2   3\n"
    assert read_settings(text) == [Setting("net.a", "1", "of a in two lines"), Setting("net.b", "2 3", "")]


def test_a_line_that_is_no_setting_is_named() -> None:
    with pytest.raises(ShardsError, match=r"line 2 .*'rubbish'"):
        read_settings("# fine\nrubbish\n")


@pytest.mark.parametrize(
    ("key", "current", "wanted", "verdict", "becomes"),
    [
        ("net.core.somaxconn", "4096", "65535", Verdict.CHANGE, "65535"),
        ("net.core.somaxconn", "65535", "65535", Verdict.RIGHT, "65535"),
        ("net.core.somaxconn", "100000", "65535", Verdict.BETTER, "100000"),
        ("net.ipv4.tcp_fin_timeout", "60", "30", Verdict.CHANGE, "30"),
        ("net.ipv4.tcp_fin_timeout", "15", "30", Verdict.BETTER, "15"),
        ("net.ipv4.ip_local_port_range", "32768 60999", "1024 65535", Verdict.CHANGE, "1024 65535"),
        ("net.ipv4.ip_local_port_range", "10000 65535", "20000 60000", Verdict.BETTER, "10000 65535"),
        ("net.ipv4.ip_local_port_range", "512 50000", "1024 65535", Verdict.CHANGE, "512 65535"),
        ("net.ipv4.ip_local_reserved_ports", "", "8000-8100", Verdict.CHANGE, "8000-8100"),
        ("net.ipv4.ip_local_reserved_ports", "22,8050", "8000-8100", Verdict.CHANGE, "22,8000-8100"),
        ("net.ipv4.ip_local_reserved_ports", "8000-9000", "8000-8100", Verdict.BETTER, "8000-9000"),
        ("vm.overcommit_memory", "2", "1", Verdict.CHANGE, "1"),
        ("fs.file-max", "9223372036854775807", "2097152", Verdict.BETTER, "9223372036854775807"),
    ],
)
def test_what_is_better_already_is_left(key: str, current: str, wanted: str, verdict: Verdict, becomes: str) -> None:
    found = difference(Setting(key, wanted, ""), current, writable=True)
    assert (found.verdict, found.wanted) == (verdict, becomes)


def test_what_the_kernel_lacks_or_forbids_is_said_with_its_reason() -> None:
    absent = difference(Setting("net.netfilter.nf_conntrack_max", "262144", ""), None, writable=False)
    assert absent.verdict is Verdict.ABSENT
    assert "nf_conntrack is not loaded" in absent.note
    forbidden = difference(Setting("vm.overcommit_memory", "1", ""), "0", writable=False)
    assert forbidden.verdict is Verdict.FORBIDDEN
    assert "read-only here" in forbidden.note
    # What is right needs no one's leave.
    assert difference(Setting("vm.overcommit_memory", "1", ""), "1", writable=False).verdict is Verdict.RIGHT


@pytest.mark.parametrize(
    ("key", "scope"),
    [
        ("net.core.somaxconn", "network namespace"),
        ("net.ipv4.tcp_tw_reuse", "network namespace"),
        ("net.core.netdev_max_backlog", "host"),
        ("net.netfilter.nf_conntrack_max", "host"),
        ("vm.overcommit_memory", "host"),
        ("fs.nr_open", "host"),
        ("nofile", "login sessions"),
    ],
)
def test_what_a_setting_is_in_force_for(key: str, scope: str) -> None:
    assert scope_of(key) == scope


def test_ports_are_read_and_written_as_the_kernel_has_them() -> None:
    assert written_ports(ports_in("22,8000-8002,8003")) == "22,8000-8003"
    assert written_ports([]) == ""


def test_what_the_parts_listen_on_is_reserved() -> None:
    reserved = ports_in(next(one.value for one in read_settings(CONF) if one.key.endswith("reserved_ports")))
    # The fleet's port, those in containers, and those that the local engine chooses from.
    assert {8000, 8001, 8002, 8080, 20_000, 31_999} <= reserved


def test_containers_are_given_what_belongs_to_a_network() -> None:
    wanted = {one.key: one.value for one in read_settings(CONF) if scope_of(one.key) == "network namespace"}
    given = dict(stack.MANY_SOCKETS)
    # On the host, the local engine's parts listen on ports of their own.
    assert ports_in(given.pop("net.ipv4.ip_local_reserved_ports")) <= ports_in(
        wanted.pop("net.ipv4.ip_local_reserved_ports")
    )
    assert given == wanted


def test_files_say_what_was_set() -> None:
    text = sysctl_text({"net.core.somaxconn": "65535", "net.netfilter.nf_conntrack_max": "9", "nofile": "5"})
    assert "\nnet.core.somaxconn = 65535\n" in text
    assert "\n-net.netfilter.nf_conntrack_max = 9\n" in text
    assert "nofile" not in text
    assert "root hard nofile 65536" in limits_text("65536")

"""What the bench of kernel settings tries, reads and tells."""

from __future__ import annotations

from tests.bench.kernel_settings import KEPT, PAGE, counters, page, variants, wanted

FILE = """
# Why.
net.core.somaxconn = 65535
net.ipv4.tcp_fin_timeout = 30
# The host's.
net.core.netdev_max_backlog = 5000
vm.overcommit_memory = 1
"""


def test_what_belongs_to_a_namespace_is_tried_alone_and_together() -> None:
    mine = wanted(FILE)
    assert mine == {"net.core.somaxconn": "65535", "net.ipv4.tcp_fin_timeout": "30"}
    tried = dict(variants(mine))
    assert tried["the kernel's defaults"] == {}
    assert tried["tcp_fin_timeout"] == {"net.ipv4.tcp_fin_timeout": "30"}
    assert tried["all of them"] == mine


def test_what_the_kernel_has_counted_is_read() -> None:
    netstat = "TcpExt: ListenOverflows Other TCPTimeouts\nTcpExt: 29 7 30\nIpExt: InOctets\nIpExt: 1\n"
    found = counters(netstat, "00000001 0000000a 0\n00000001 00000002 0\n")
    assert (found["ListenOverflows"], found["TCPTimeouts"], found["softnet dropped"]) == (29, 30, 12)


def test_the_documentation_has_the_table_of_what_is_kept() -> None:
    assert page(PAGE.read_text(), KEPT.read_text()) == PAGE.read_text(), "run `python -m tests.bench.kernel_settings`"

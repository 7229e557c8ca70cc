"""How many files a process may open, and that it may open them."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from shards.descriptors import descriptor_limit
from shards.load.limits import Limits

RAISED = """
import resource
from shards.descriptors import descriptor_limit, raise_descriptor_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (descriptor_limit(), hard))
"""


@pytest.mark.parametrize(
    ("hard", "limit"), [(20_000, 20_000), (2_000_000_000, 1_048_576), (resource.RLIM_INFINITY, 1_048_576)]
)
def test_a_process_may_open_what_the_hard_limit_says_and_no_kernel_refuses(
    hard: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, hard))
    assert descriptor_limit() == limit
    assert Limits.of_this_host().descriptors == limit, "a load reckons with the same"


def test_the_limit_is_raised_to_what_was_told() -> None:
    said = subprocess.run([sys.executable, "-c", RAISED], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "True"

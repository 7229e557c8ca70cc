"""A quoted message that is not what the code says is found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.messages import FILLED, Messages, templates

SOURCE = '''
"""A docstring that says words of its own."""
def said(n, who, why):
    """Another docstring with many words."""
    killed = f"the kernel has killed {n} processes, of whomever, since this host started"
    log.warning("shard %s is silent, and %d wait", who, n)
    raise Failed(f"{killed} (oom_kill), by {who}")
    raise Failed(f"{who} {why}; its log: {n}")
    return f"answers {who} with {n}", b"# nobody answers here"
'''


@pytest.fixture
def messages(tmp_path: Path) -> Messages:
    (tmp_path / "a.py").write_text(SOURCE)
    return Messages(tmp_path, [f"No space left on {FILLED}"])


def test_strings_are_templates_and_docstrings_are_not() -> None:
    found = set(templates(SOURCE))
    assert f"{FILLED} (oom_kill), by {FILLED}" in found
    assert f"shard {FILLED} is silent, and {FILLED} wait" in found
    assert "# nobody answers here" in found
    assert not [text for text in found if "docstring" in text]
    assert " (oom_kill), by " not in found, "a piece of another is none by itself"


@pytest.mark.parametrize(
    "message",
    [
        "the kernel has killed 2 processes, of whomever, since this host started",
        "the kernel has killed 2 processes, of whomever, since this host started (oom_kill), by blue-0",
        "the kernel has killed 2 processes, of whomever",
        "of whomever, since this host started",
        "blue-0 answers /readyz with 503; its log: …",
        "warning: shard shared-0 is silent, and 3 wait",
        "… is silent, and …",
        "# nobody answers `here`:",
        "No space left on device",
        "high CPU",
    ],
)
def test_what_is_said_may_be_quoted_whole_or_cut(messages: Messages, message: str) -> None:
    assert messages.given(message)


@pytest.mark.parametrize(
    "message",
    [
        "the kernel has killed 2 processes since this host started",
        "the kernel has killed 2 processes since this host started (oom_kill)",
        "the kernel has killed 2 processes, of whomever, since that host started",
        "the kernel has never killed 2 processes, of whomever, since this host started",
        "blue-0 answers /readyz very badly; its log: …",
        "shard shared-0 is quite silent, and 3 wait",
        "a docstring that says words of its own",
    ],
)
def test_what_is_said_otherwise_is_found_out(messages: Messages, message: str) -> None:
    assert not messages.given(message)

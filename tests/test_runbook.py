"""What the pages for those who run a fleet tell them to type, and to look for, is there."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from shards.settings_table import ROOT, commented, variables
from tests.messages import FILLED, Messages

QUOTING = [ROOT / "docs" / f"{name}.md" for name in ("operations", "security", "tuning", "docker", "scaling", "swarm")]
"""Pages that quote what commands and parts say."""

PAGES = [*QUOTING, ROOT / "docs" / "own-app.md", ROOT / "docs" / "settings.md"]
_SOURCE = "".join(path.read_text() for path in (ROOT / "shards").rglob("*.py"))

_THEIRS = (
    # supervisor
    f"WARN stopped: {FILLED} (terminated by {FILLED})",
    # Redis
    "Bad file format reading the append only file",
    "Short write while writing to the AOF file",
    f"MISCONF Errors writing to the AOF file: {FILLED}",
    "AOF write error looks solved",
    # Traefik
    "Health check failed",
    # Docker
    "cannot join network of a non running container",
    # the system
    "No space left on device",
)
"""What others say that a fleet runs."""

_NO_MESSAGE = re.compile(
    r"(inv|sudo|nox|curl|kill|git|python|pip|docker|timedatectl|iostat|du|ls|export|promtool|systemctl|openssl)\b"
    r"|[A-Z_]+=|--? ?-?|\{|.*[\xd7=]"
)
"""How a command, its flags, a variable, JSON or a sum begins."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """The commands, and the flags of each."""
    tasks = runpy.run_path(str(ROOT / "tasks.py"))["ns"].tasks
    return {
        name: {f"--{one}".replace("_", "-") for argument in task.get_arguments() for one in argument.names}
        for name, task in tasks.items()
    }


@pages
def test_each_command_exists_with_its_flags(page: Path, flags: dict[str, set[str]]) -> None:
    typed = re.findall(r"\binv (?:-r \S+ )?([a-z]+)\b([^`\n]*)", page.read_text())
    assert {name for name, _ in typed} <= flags.keys()
    wrong = [
        (name, flag)
        for name, rest in typed
        for flag in re.findall(r"--[a-z-]+", rest.partition(" inv ")[0])
        if flag not in flags[name]
    ]
    assert wrong == []


@pytest.fixture(scope="module")
def messages() -> Messages:
    """Give what is said."""
    return Messages(ROOT / "shards", _THEIRS)


@pytest.mark.parametrize("page", QUOTING, ids=lambda path: path.name)
def test_each_message_is_one_that_is_given(page: Path, messages: Messages) -> None:
    quoted = [text for text in _quoted(page.read_text()) if not _NO_MESSAGE.match(text)]
    assert [text for text in quoted if not messages.given(text)] == []


def _quoted(text: str) -> Iterator[str]:
    """Give what stands in backticks, outside of blocks."""
    for match in re.finditer(r"(`+)(.+?)\1(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.S):
        yield " ".join(match[2].split())


@pages
def test_each_metric_is_one_that_is_told(page: Path) -> None:
    named = set(
        re.findall(r"\b(?:app|shards)_[a-z_]+(?:total|seconds|bytes|connections|version|up)\b", page.read_text())
    )
    assert {name for name in named if f'"{name}"' not in _SOURCE} == set()


@pages
def test_each_alert_is_one_that_is_sent(page: Path) -> None:
    rules = yaml.safe_load((ROOT / "docker" / "monitoring" / "rules.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    told = re.findall(r"[Aa]lerts? (`\w+`(?:, `\w+`)*)", " ".join(page.read_text().split()))
    assert {name for names in told for name in re.findall(r"\w+", names)} <= alerts


@pages
def test_each_variable_is_one_that_is_read(page: Path) -> None:
    settings = {
        f"INVOKE_{part}_{name}".upper().replace(".", "_")
        for part in ("fleet", "docker")
        for name, *_ in commented(part)
    }
    named = set(re.findall(r"\b(?:SHARDS|INVOKE|UVICORN)_[A-Z_]*[A-Z]\b", page.read_text()))
    assert {name for name in named if name not in variables() | settings} <= {"INVOKE_FLEET"}


@pages
def test_each_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if "://" not in target and not (file.is_file() and (not anchor or anchor in set(_anchors(file)))):
            broken.append(target)
    assert broken == []


def _anchors(page: Path) -> Iterator[str]:
    """Give the places of a page that can be linked to, named as GitHub names them."""
    text = page.read_text()
    yield from re.findall(r'<a id="([^"]+)">', text)
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        yield re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")

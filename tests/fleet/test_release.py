"""What a directory's release is called: the same until it changes, since each replica that starts looks for itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from shards.fleet.release import release_of


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "chat").mkdir()
    for name in ("mysite.py", "chat/consumers.py"):
        (tmp_path / name).write_text("")
    return tmp_path


def git(directory: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    done = subprocess.run(
        ["git", "-C", str(directory), *who, *arguments], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


def test_outside_git_it_is_what_is_in_the_files(app: Path) -> None:
    first = release_of(app)
    (app / "chat" / "consumers.py").write_text("changed = True")
    second = release_of(app)
    (app / "chat" / "consumers.py").rename(app / "consumers.py")
    third = release_of(app)
    assert len({first, second, third}) == 3
    (app / "consumers.py").rename(app / "chat" / "consumers.py")
    (app / "chat" / "consumers.py").write_text("")
    os.utime(app / "chat" / "consumers.py", (0, 0))
    assert release_of(app) == first, "put back, it is what it was"


def test_what_running_it_leaves_behind_makes_no_other_release(app: Path) -> None:
    first = release_of(app)
    for beside in ("db.sqlite3", "__pycache__/mysite.pyc", ".venv/lib/module.py", "node_modules/tool.py"):
        (app / beside).parent.mkdir(parents=True, exist_ok=True)
        (app / beside).write_text("x")
    assert release_of(app) == first


def test_in_git_it_is_the_commit_and_whether_files_differ(app: Path) -> None:
    git(app, "init", "-q")
    git(app, "add", ".")
    git(app, "commit", "-qm", "first")
    commit = git(app, "rev-parse", "--short", "HEAD")
    assert release_of(app) == commit
    (app / "chat" / "__pycache__").mkdir()
    (app / "chat" / "__pycache__" / "consumers.pyc").write_text("x")
    assert release_of(app) == commit
    (app / "mysite.py").write_text("changed = True")
    assert release_of(app) == f"{commit}+dirty"

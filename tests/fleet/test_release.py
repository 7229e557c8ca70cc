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


@pytest.fixture
def committed(app: Path) -> Path:
    """A clone with a template and, as happens, a database."""
    (app / "page.html").write_text("a")
    (app / "kept.sqlite3").write_bytes(b"\0first")
    git(app, "init", "-q")
    git(app, "add", ".")
    git(app, "commit", "-qm", "first")
    return app


def test_in_git_it_is_the_commit_and_what_differs_from_it(committed: Path) -> None:
    commit = git(committed, "rev-parse", "--short", "HEAD")
    assert release_of(committed) == commit
    (committed / "mysite.py").write_text("changed = True")
    changed = release_of(committed)
    assert changed.startswith(f"{commit}+dirty.")
    (committed / "page.html").write_bytes(b"\xe9 of another encoding")
    assert commit in release_of(committed) != changed, "what is not committed differs from what is not either"
    git(committed, "checkout", "-q", ".")
    (committed / "chat" / "new.py").write_text("")
    assert release_of(committed).startswith(f"{commit}+dirty."), "Python imports what git does not know yet"
    (committed / "chat" / "new.py").rename(committed / "chat" / "new.html")
    assert release_of(committed).startswith(f"{commit}+dirty."), "so does a view use a template"
    (committed / "chat" / "new.html").unlink()
    assert release_of(committed) == commit, "put back, it is what it was"


def test_in_git_what_an_app_writes_while_it_runs_makes_no_other_release(committed: Path) -> None:
    first = release_of(committed)
    for beside in ("db.sqlite3-journal", "media/photo.jpg", "chat/__pycache__/consumers.pyc", "venv/tool.py"):
        (committed / beside).parent.mkdir(parents=True, exist_ok=True)
        (committed / beside).write_bytes(b"\0")
    assert release_of(committed) == first
    (committed / "kept.sqlite3").write_bytes(b"\0second")
    assert release_of(committed) == first, "a database that was committed"


def test_a_part_of_a_repository_is_named_by_what_differs_in_it(committed: Path) -> None:
    (committed / "mysite.py").write_text("changed = True")
    assert release_of(committed / "chat") == git(committed, "rev-parse", "--short", "HEAD")


def test_where_git_does_not_say_what_differs_it_is_not_called_clean(
    committed: Path,
) -> None:
    git(committed, "config", "diff.algorithm", "none of git's")
    assert release_of(committed) == git(committed, "rev-parse", "--short", "HEAD") + "+dirty.unknown"

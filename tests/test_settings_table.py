"""docs/settings.md says what the code does: it is made from it, and no variable is read that it does not name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from shards.load import scenarios
from shards.settings import Launch, Settings
from shards.settings_table import OTHERS, ROOT, commented, document, meanings, targets_told, variables

_SCENARIOS = scenarios.read(ROOT / "invoke.yaml")
_THE_SYSTEMS = {"PATH", "PYTHONPATH"}
_SOURCES = [*ROOT.glob("*.py"), *(path for top in ("shards", "app", "bench") for path in (ROOT / top).rglob("*.py"))]


def test_the_documentation_is_what_the_code_says() -> None:
    told = (ROOT / "docs" / "settings.md").read_text()
    assert told == document() + "\n", "run `python -m shards.settings_table > docs/settings.md`"


@pytest.mark.parametrize("name", _SCENARIOS)
def test_a_target_that_is_taken_from_a_scenario_is_missed_in_the_documentation(name: str) -> None:
    full = _SCENARIOS[name]
    told = dict(targets_told([full]))
    assert f"| `{name}` | {told[name]} |" in (ROOT / "docs" / "settings.md").read_text()
    for figure in full.targets:
        less = {key: target for key, target in full.targets.items() if key != figure}
        assert dict(targets_told([replace(full, targets=less)])) != told, figure


@pytest.mark.parametrize("read", [Settings, Launch])
def test_every_setting_is_told_what_it_means(read: type[Settings | Launch]) -> None:
    meaning = meanings(read)
    assert [one.name for one in fields(read) if not meaning.get(one.name, "").partition(": ")[2]] == []


@pytest.mark.parametrize("section", ["fleet", "docker"])
def test_every_line_of_invoke_yaml_says_what_it_is(section: str) -> None:
    told = list(commented(section))
    assert len(told) > 10
    assert [name for name, _, meaning in told if not meaning] == []


def test_each_variable_that_the_code_reads_is_named() -> None:
    found = {name: path for path in _SOURCES for name in _read(path)}
    assert {"SHARDS_DEBUG", "SHARDS_FLEET", "N"} <= found.keys(), "this test no longer sees what is read"
    assert {name: str(path) for name, path in found.items() if name not in variables() | _THE_SYSTEMS} == {}


def test_no_variable_is_named_that_nothing_reads() -> None:
    """Some are read by what we build on: by Docker's SDK, Python, Django and Invoke."""
    by_others = {"TMPDIR", "DJANGO_SETTINGS_MODULE"} | {one.name for one in OTHERS["Commands"] if "INVOKE_" in one.name}
    read = {name for path in _SOURCES for name in _read(path)}
    assert {one.name for group in OTHERS.values() for one in group} - read - by_others == set()


def _read(path: Path) -> set[str]:
    """Give the variables that a file asks the environment for, by name or by a constant of any module."""
    asked = set()
    for node in ast.walk(ast.parse(path.read_text())):
        for key in _keys(node):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                asked.add(key.value)
            elif name := key.attr if isinstance(key, ast.Attribute) else getattr(key, "id", None):
                asked |= {_CONSTANTS[name]} if name in _CONSTANTS else set()
    return asked


def _keys(node: ast.AST) -> Iterator[ast.expr]:
    """Give what is looked up in something called `environ`."""
    match node:
        case ast.Subscript(value=environ, slice=key, ctx=ast.Load()) if _is_environ(environ):
            yield key
        case ast.Call(func=ast.Attribute(value=environ, attr="get"), args=[key, *_]) if _is_environ(environ):
            yield key
        case ast.Call(func=ast.Attribute(attr="getenv"), args=[key, *_]):
            yield key


def _is_environ(node: ast.expr) -> bool:
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) == "environ"


def _constants() -> Iterator[tuple[str, str]]:
    for path in _SOURCES:
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))) if name.isupper():
                    yield name, text


_CONSTANTS = dict(_constants())

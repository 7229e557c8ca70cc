"""Every setting, as docs/settings.md has them: ``python -m shards.settings_table > docs/settings.md`` writes it anew.

What is in the tables is read from where the truth is: the classes that read the environment, `invoke.yaml` and its
comments, `docker/compose.yml`. Only what single lines of code ask the environment for is described here (`OTHERS`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from shards.layer import ShardedChannelLayer
from shards.load import scenarios
from shards.settings import Launch, Settings, variable_of

ROOT = Path(__file__).resolve().parents[1]

_UNITS = {
    "_seconds": "s",
    ".seconds": "s",
    "_bytes": "bytes",
    "_ms": "ms",
    "_mb": "MiB",
    "_memory": "bytes, k, M or G",
    "_cpus": "cores",
    "_url": "URL",
    "_file": "path",
    "_dir": "path",
    "_image": "image",
    "rate_limit": "frames/s",
    "bytes_limit": "bytes/s",
    "_messages": "messages",
    "groups_per_socket": "groups",
    "sockets_per_subject": "sockets",
    "max_connections": "sockets",
    ".connections": "sockets",
    "nofile": "files",
    "allowed_origins": "origins",
}
_TYPES = {"str": "text", "int": "whole number", "float": "number", "bool": "0 or 1"}


@dataclass(frozen=True)
class Other:
    """A variable that a line of code asks for by itself.

    Attributes:
        name: of it.
        default: what holds where it is not set.
        meaning: for people.
    """

    name: str
    default: str
    meaning: str


OTHERS: Mapping[str, Sequence[Other]] = {
    "The reference app (`app/`)": (
        Other("DJANGO_SETTINGS_MODULE", "`app.settings`", "of the reference app; your `asgi.py` names its own"),
        Other(
            "SHARDS_SECRET_KEY_FILE",
            "a new key in each process",
            "a file with Django's `SECRET_KEY`, so that it is in no environment. The fleet sets it; your settings may "
            "read it",
        ),
    ),
    "Commands": (
        Other("SHARDS_DEBUG", "0", "anything but 0: errors with their traceback, as with `--debug`"),
        Other("INVOKE_FLEET_STATE_DIR", "`.fleet` in the clone", "where state, logs, data and secrets of fleets are"),
        Other("INVOKE_FLEET_APP_DIR", "the clone", "as `--app-dir`"),
        Other("INVOKE_FLEET_ENGINE", "as in `invoke.yaml`", "as `--engine`; `nox -s scaling` reads it too"),
        Other("DOCKER_HOST", "this host's socket", "the Docker daemon that commands talk to"),
        Other("TMPDIR", "`/tmp`", "where the local engine has its sockets, in a directory of this user's own"),
    ),
    "Loads (`nox -s …`, `python -m shards.load`, `python -m bench`)": (
        Other("N", "as in the scenario", "connections"),
        Other("DURATION", "as in the scenario", "seconds of load"),
        Other("RUNS", "1", "how often, in a row"),
        Other("RATE", "as in the benchmark", "of `nox -s bench`: the rates to try"),
        Other("SHARDS_LOAD_URL", "`ws://127.0.0.1:8000/ws/`", "set for what happens during a load: the fleet's URL"),
        Other("SHARDS_LOAD_CONNECTIONS", "1", "set for that too: how many clients there are"),
    ),
    "Set by the engines for the parts they start; not for people": (
        Other("SHARDS_FLEET", "", "the fleet's directory: the mark by which a process of it is found"),
        Other("SHARDS_PART", "", "which part it is"),
        Other("SHARDS_ROUTE", "", "where the edges of a swarm shall send requests first, for `shards.server.prepare`"),
        Other("BENCH_LAYER", "", "of `nox -s bench`: the channel layer of the peer"),
        Other("BENCH_REDIS", "", "of `nox -s bench`: its Redis"),
    ),
}

_HEAD = """# Settings

<!-- Made by `python -m shards.settings_table > docs/settings.md`. A test keeps it so: change the code, not this. -->

Settings are of two kinds. [The app's](#the-app) are environment variables that a replica reads when it starts.
[The commands'](#the-fleet-invokeyaml-fleet) are in `invoke.yaml`.

**Where to set the app's.** In the environment in which `inv up` starts the fleet: `SHARDS_RATE_LIMIT=20 inv up`.
Replicas keep it for as long as the fleet is up, those of a promote too; another value takes `inv down` and `inv up`. On
the local engine replicas have all of that environment. Those in containers have what is here and
`DJANGO_SETTINGS_MODULE`; what is about the fleet itself (URLs, names, files) is the engine's to say. What else your app
reads can be set by `ENV` in `docker/Dockerfile`, or in a Compose file of your own (`inv render --into DIR`).
"""


def document() -> str:
    """Write docs/settings.md."""
    return "\n".join([_HEAD, *_app(), *_invoke(), *_load(), *_others(), *_compose()])


def variables() -> set[str]:
    """Name every environment variable that is described."""
    read = {variable_of(one.name) for kind in (Settings, Launch) for one in fields(kind)}
    told = {other.name for group in OTHERS.values() for other in group}
    return read | told | {name for name, _ in composed()}


def composed() -> list[tuple[str, str]]:
    """Give the variables that `docker/compose.yml` takes, and their defaults there."""
    text = (ROOT / "docker" / "compose.yml").read_text()
    return sorted(set(re.findall(r"\$\{(\w+):-([^}]*)\}", text)))


def meanings(described: type, heading: str = "Attributes") -> dict[str, str]:
    """Read what a class says of its attributes, or arguments, in its docstring."""
    _, _, said = (inspect.getdoc(described) or "").partition(f"{heading}:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", said, re.M)
    return {name: " ".join(text.split()).rstrip(".") for name, text in entries}


def commented(section: str) -> Iterator[tuple[str, str | None, str]]:
    """Give each setting of a section of `invoke.yaml`, dotted where it is nested, its default and its comment.

    What holds others has None for a default.
    """
    text = (ROOT / "invoke.yaml").read_text()
    match = re.search(rf"^{section}:.*\n((?:  .*\n)+)", text, re.M)
    outer, last = "", ""
    for indent, key, value, comment in _lines(match[1] if match else ""):
        outer = outer if indent > 2 else ""
        last = last if comment == "the same" else comment
        yield outer + key, str(yaml.safe_load(value)) if value else None, last
        outer = outer if value else f"{key}."


def _lines(text: str) -> Iterator[tuple[int, str, str, str]]:
    for line in text.splitlines():
        match = re.match(r"( +)([\w-]+): *(\"[^\"]*\"|[^#]*?) *(?:# *(.*))?$", line)
        if match:
            yield len(match[1]), match[2], match[3], match[4] or ""


def _app() -> Iterator[str]:
    yield "## The app\n"
    yield "### A worker\n"
    yield from _of_class(Settings)
    yield "### A replica\n"
    yield from _of_class(Launch)
    yield "### The channel layer\n"
    yield 'In Django\'s settings: `CHANNEL_LAYERS = {"default": {"BACKEND": …, "CONFIG": {"capacity": 500}}}`.\n'
    taken = inspect.signature(ShardedChannelLayer).parameters.values()
    meaning = meanings(ShardedChannelLayer, "Args")
    rows = [
        (f"`{one.name}`", _code("" if one.default is None else str(one.default)), meaning[one.name]) for one in taken
    ]
    yield _table(("key of `CONFIG`", "default", "meaning"), rows)


def _of_class(read: type[Settings | Launch]) -> Iterator[str]:
    meaning = meanings(read)
    rows = []
    for one in fields(read):
        variable = variable_of(one.name)
        said = meaning[one.name].removeprefix(variable).removeprefix(": ")
        rows.append((f"`{variable}`", _TYPES[str(one.type)], _unit(one.name), _default(one), said))
    yield _table(("variable", "type", "unit", "default", "meaning"), rows)


def _invoke() -> Iterator[str]:
    yield "## The fleet: `invoke.yaml`, `fleet:`\n"
    yield (
        "A flag wins over `INVOKE_FLEET_<NAME>` in the environment, and that over `invoke.yaml`. A fleet that runs\n"
        "keeps what it was started with, unless a flag or the environment says otherwise.\n"
    )
    yield _of_section("fleet")
    yield "## Containers: `invoke.yaml`, `docker:`\n"
    yield "Of `--engine docker` and `swarm`. What they mean in use: [docker.md](docker.md), [swarm.md](swarm.md).\n"
    yield _of_section("docker")


def _of_section(section: str) -> str:
    rows = []
    for name, default, meaning in commented(section):
        variable = f"INVOKE_{section}_{name}".upper().replace(".", "_")
        if default is None:
            rows.append((f"`{section}.{name}`", "", "", "", "", meaning))
            continue
        kind, unit = _kind(default), _unit(f".{name}")
        rows.append((f"`{section}.{name}`", f"`{variable}`", kind, unit, _code(default), meaning))
    return _table(("setting", "variable", "type", "unit", "default", "meaning"), rows)


def _load() -> Iterator[str]:
    yield "## Loads: `invoke.yaml`, `load:`\n"
    yield "A scenario is a key under `load:`; `python -m shards.load NAME` runs it: [scenarios.md](scenarios.md).\n"
    yield _of_fields(scenarios.Scenario)
    yield "An event:\n"
    yield _of_fields(scenarios.Event)
    yield "Targets of every scenario, from `load.targets`; a scenario adds its own, and `null` there takes one away:\n"
    rows = [(f"`{name}`", _code(default), said) for name, default, said in _common_targets()]
    yield _table(("figure", "must be", "meaning"), rows)
    yield "The scenarios:\n"
    known = scenarios.read(ROOT / "invoke.yaml")
    figures = [
        (f"`{s.name}`", f"{s.connections:,}", f"{s.duration:g}", f"{s.rate:,.0f}", _more(s)) for s in known.values()
    ]
    yield _table(("scenario", "connections", "seconds", "messages/s", "other than the default"), figures)
    yield "Their targets, beside those of every scenario; a scaled one is less for fewer connections:\n"
    yield _table(("scenario", "must be"), [(f"`{name}`", told) for name, told in targets_told(known.values())])


def targets_told(known: Iterable[scenarios.Scenario]) -> Iterator[tuple[str, str]]:
    """Say of each scenario which targets it adds to those of every scenario, and which of those it takes away."""
    common = yaml.safe_load((ROOT / "invoke.yaml").read_text())["load"]["targets"]
    for scenario in known:
        told = [
            f"`{name} {target.text}`{', scaled' if name in scenario.scaled else ''}"
            for name, target in scenario.targets.items()
            if common.get(name) != target.text
        ]
        told += [f"without `{name}`" for name in common if name not in scenario.targets]
        yield scenario.name, "; ".join(told) or "no more"


def _common_targets() -> Iterator[tuple[str, str | None, str]]:
    """Give the targets of every scenario, which stand before those of single ones."""
    names = yaml.safe_load((ROOT / "invoke.yaml").read_text())["load"]["targets"]
    told = (row for row in commented("load") if row[0].startswith("targets."))
    for (name, default, said), _ in zip(told, names, strict=False):
        yield name.removeprefix("targets."), default, said


_ELSEWHERE = {"name", "connections", "duration", "rate", "targets", "events", "scaled"}


def _more(scenario: scenarios.Scenario) -> str:
    """Say in what a scenario differs from the defaults, beside its figures."""
    plain = scenarios.Scenario("", 1, 1, 1)
    told = [
        f"`{name}` {_listed(value)}"
        for name in (one.name for one in fields(scenario) if one.name not in _ELSEWHERE)
        if (value := getattr(scenario, name)) != getattr(plain, name)
    ]
    events = [f"kill {one.kill}" if one.kill else f"{one.run or one.command}" for one in scenario.events]
    counted = [
        name if events.count(name) == 1 else f"{events.count(name)} times {name}" for name in dict.fromkeys(events)
    ]
    return "; ".join(told + ([f"events: {', '.join(counted)}"] if counted else []))


def _listed(value: object) -> str:
    match value:
        case Mapping():
            return ", ".join(f"`{key}={one}`" for key, one in value.items())
        case tuple():
            return ", ".join(map(str, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value).lower() if isinstance(value, bool) else str(value)


def _of_fields(described: type) -> str:
    meaning = meanings(described)
    rows = [(f"`{one.name}`", _written(str(one.type)), _default(one), meaning[one.name]) for one in fields(described)]
    return _table(("key", "type", "default", "meaning"), rows)


def _written(annotation: str) -> str:
    """Write a type for those who write YAML."""
    for code, word in {
        " | None": "",
        "tuple[Event, ...]": "list of events",
        "tuple[int, ...]": "list of whole numbers",
        "tuple[str, ...]": "list of text",
        "Mapping[str, Target]": "mapping",
        "Mapping[str, str]": "mapping",
        "int": "whole number",
    }.items():
        annotation = annotation.replace(code, word) if code != "int" else re.sub(r"\bint\b", word, annotation)
    annotation = re.sub(r"Literal\[([^]]*)\]", lambda match: match[1].replace('"', ""), annotation)
    annotation = annotation.replace("bool", "true or false").replace("float", "number").replace("str", "text")
    return annotation.replace(" | ", " or ")


def _others() -> Iterator[str]:
    for title, group in OTHERS.items():
        yield f"## {title}\n"
        yield _table(("variable", "default", "meaning"), [(f"`{one.name}`", one.default, one.meaning) for one in group])


def _compose() -> Iterator[str]:
    yield "## Compose by hand: `docker/compose.yml`\n"
    yield "Read by `docker compose`, not by `inv`.\n"
    rows = [(f"`{name}`", _unit(name.lower()), _code(default)) for name, default in composed()]
    yield _table(("variable", "unit", "default"), rows).rstrip("\n")


def _unit(name: str) -> str:
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def _default(one: Field[Any]) -> str:
    if one.default is MISSING:
        return "" if one.default_factory is not MISSING else "needed"
    if isinstance(one.default, bool):
        return _code(str(int(one.default)))
    if isinstance(one.default, float) and one.default.is_integer():
        return _code(str(int(one.default)))
    return "" if one.default in (None, ()) else _code(str(one.default))


def _kind(default: str) -> str:
    return "number" if re.fullmatch(r"\d+(\.\d+)?", default) else "text"


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    print(document())

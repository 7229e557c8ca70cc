"""An app is looked at before it is deployed: what each of its clients would meet is one line of the command instead."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shards.errors import UsageError
from shards.fleet.engines import app_check
from shards.fleet.engines.local import LocalEngine, LocalOptions
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir
from tests.fleet.runner import ROOT

SITE = """
from django.conf import settings

settings.configure(CHANNEL_LAYERS={layers})

import channels.layers


async def app(scope, receive, send): ...
"""

OURS = "shards.layer.ShardedChannelLayer"


def _check(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "site_of_ours.py").write_text(code)
    command = [sys.executable, "-c", app_check.PROGRAM, "site_of_ours:app"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"BACKEND": OURS, "CONFIG": {"hosts": [("127.0.0.1", 6379)]}}, "unexpected keyword argument 'hosts'"),
        ({"BACKEND": "shards.layer.NoSuchLayer"}, "NoSuchLayer"),
    ],
    ids=["config of channels_redis", "no such layer"],
)
def test_a_channel_layer_that_no_consumer_could_make(tmp_path: Path, layer: dict[str, object], said: str) -> None:
    checked = _check(tmp_path, SITE.format(layers={"default": layer}))
    assert checked.returncode == 1
    assert said in checked.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "layers",
    [{}, {"default": {"BACKEND": OURS, "CONFIG": {"capacity": 500, "expiry": 10}}}],
    ids=["none", "ours"],
)
def test_a_site_that_will_do(tmp_path: Path, layers: dict[str, object]) -> None:
    checked = _check(tmp_path, SITE.format(layers=layers))
    assert (checked.returncode, checked.stderr) == (0, "")


def test_an_app_that_does_without_channels_and_settings(tmp_path: Path) -> None:
    checked = _check(tmp_path, "import channels.layers, django.conf\nasync def app(*a): ...\n")
    assert (checked.returncode, checked.stderr) == (0, "")


NOT_SET_UP = {
    "no settings": "from django.contrib.auth.models import User",
    "no set-up": "from django.conf import settings\nsettings.configure()\nfrom django.contrib.auth.models import User",
}


@pytest.mark.parametrize("code", NOT_SET_UP.values(), ids=NOT_SET_UP)
def test_models_that_are_imported_before_django_is_set_up(tmp_path: Path, code: str) -> None:
    checked = _check(tmp_path, f"{code}\n\nasync def app(*a): ...\n")
    with pytest.raises(UsageError, match=r"call get_asgi_application\(\), and only then import consumers"):
        app_check.read("site_of_ours:app", str(tmp_path), checked.returncode, b"", checked.stderr.encode())


async def found_out(tmp_path: Path, app: str, app_dir: Path) -> str | None:
    spec = FleetSpec(app=app, app_dir=str(app_dir))
    return await LocalEngine(spec, FleetDir(tmp_path / "fleets", "t"), LocalOptions(ROOT)).check_app("r")


@pytest.mark.parametrize(
    "code,reason",
    [
        ("\n\ndef (:\n", "SyntaxError: invalid syntax (site_of_ours/consumers.py, line 3)"),
        ("import no_such_thing\n", "No module named 'no_such_thing' (site_of_ours/consumers.py, line 1)"),
        ("\nimport json\njson.loads('{')\n", "(site_of_ours/consumers.py, line 3)"),
        ("\nraise RuntimeError('two\\nlines')\n", "RuntimeError: two lines (site_of_ours/consumers.py, line 2)"),
        ("\nraise SystemExit('no license')\n", "no license"),
    ],
    ids=["syntax", "module", "in a library", "message", "exit"],
)
async def test_what_does_not_import_is_named_with_its_file_and_line(tmp_path: Path, code: str, reason: str) -> None:
    package = tmp_path / "site_of_ours"
    package.mkdir()
    (package / "__init__.py").write_text("from site_of_ours import consumers\n")
    (package / "consumers.py").write_text(code)
    with pytest.raises(UsageError) as failed:
        await found_out(tmp_path, "site_of_ours:app", tmp_path)
    assert str(failed.value).endswith(reason)
    assert len(str(failed.value).splitlines()) == 1


DJANGO = """
from django.conf import settings
settings.configure({settings})
async def app(*a): ...
"""
LAYER = "CHANNEL_LAYERS={{'default': {{'BACKEND': '{}'}}}}"


@pytest.mark.parametrize(
    "code,other",
    [
        ("async def app(*a): ...\n", None),
        ("from django.conf import settings\nasync def app(*a): ...\n", None),
        (DJANGO.format(settings=""), None),
        (DJANGO.format(settings="CHANNEL_LAYERS={}"), None),
        (DJANGO.format(settings=LAYER.format("shards.layer.ShardedChannelLayer")), None),
        (
            "from shards.layer import ShardedChannelLayer\nclass Ours(ShardedChannelLayer): ...\n"
            + DJANGO.format(settings=LAYER.format("site_of_ours.Ours")),
            None,
        ),
        (
            DJANGO.format(settings=LAYER.format("channels.layers.InMemoryChannelLayer")),
            "channels.layers.InMemoryChannelLayer",
        ),
        (DJANGO.format(settings=LAYER.format("no_such.Layer")), "no_such.Layer"),
    ],
    ids=["no Django", "no settings", "no layers", "empty", "ours", "made of ours", "another", "none that is there"],
)
async def test_a_channel_layer_that_is_not_ours_is_told_of(tmp_path: Path, code: str, other: str | None) -> None:
    (tmp_path / "site_of_ours.py").write_text(code)
    assert await found_out(tmp_path, "site_of_ours:app", tmp_path) == other


async def test_the_reference_app_has_ours(tmp_path: Path) -> None:
    directory = FleetDir(tmp_path / "fleets", "t")
    directory.create()
    assert await found_out(tmp_path, "app.asgi:application", ROOT) is None

"""Settings come from the environment; what makes no sense there is one clear line."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from shards.errors import UsageError
from shards.server.__main__ import config
from shards.settings import Credentials, Settings, chosen, variable_of


def test_the_environment_is_read() -> None:
    settings = Settings.read({"COLOR": "green", "SHARDS_HISTORY_MESSAGES": "7", "SHARDS_RATE_LIMIT": "0"})
    assert (settings.color, settings.history_messages, settings.rate_limit) == ("green", 7, 0.0)


def test_tokens_are_required_only_where_some_can_be_good() -> None:
    assert Settings.read({"SHARDS_REQUIRE_TOKEN": "1"}).require_token
    assert not Settings.read({"SHARDS_REQUIRE_TOKEN": "0"}).require_token
    with pytest.raises(UsageError, match="SHARDS_TOKEN_KEY_FILE"):
        config({"SHARDS_REQUIRE_TOKEN": "1"})


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SHARDS_HISTORY_SECONDS", "0"),
        ("SHARDS_DEDUPE_SECONDS", "0"),
        ("SHARDS_HISTORY_MESSAGES", "-1"),
        ("SHARDS_MESSAGE_BYTES", "many"),
        ("SHARDS_IDLE_SECONDS", "inf"),
        ("SHARDS_IDLE_SECONDS", "nan"),
        ("SHARDS_REQUIRE_TOKEN", "2"),
        ("SHARDS_REQUIRE_TOKEN", "yes"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(UsageError, match=variable):
        Settings.read({variable: text})


@pytest.mark.parametrize(
    "environ",
    [
        {"SHARDS_DEDUPE_SECONDS": "29"},
        {"SHARDS_PUBLISH_SECONDS": "121"},
        {"SHARDS_MESSAGE_BYTES": "1048576"},
        {"SHARDS_SEND_BUDGET_BYTES": "65536"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_what_breaks_the_guarantee_together_is_refused(environ: dict[str, str]) -> None:
    """A publish that is sent again after its mark is gone; a message for which each reader is closed, always anew."""
    with pytest.raises(UsageError, match=next(iter(environ))):
        Settings.read(environ)


def test_the_first_password_of_the_file_is_shown_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "redis-app"
    file.write_text("new\nold\n")
    environ = {"SHARDS_REDIS_PASSWORD_FILE": str(file)}
    settings = Settings.read({**environ, "SHARDS_REDIS_USERNAME": "app"})
    assert settings.redis_credentials() == settings.credentials("redis://any") == Credentials("app", "new")
    file.write_text("newer, with a space")
    assert settings.redis_credentials() == Credentials("app", "newer, with a space")
    assert Settings.read(environ).redis_credentials().username == "default", "as servers of your own have it"
    assert Settings.read({}).redis_credentials() == Credentials()


def test_what_is_chosen_for_an_app_is_told_apart_from_what_its_fleet_is() -> None:
    choice = {"SHARDS_RATE_LIMIT": "0", "SHARDS_SOCKETS_PER_SUBJECT": "0", "DJANGO_SETTINGS_MODULE": "site.settings"}
    assert chosen({**choice, "SHARDS_REPLICA": "blue-0", "SHARDS_HANDOFF_DIR": "/x", "PATH": "/bin"}) == choice
    with pytest.raises(UsageError, match="SHARDS_RATE_LIMIT"):
        chosen({"SHARDS_RATE_LIMIT": "many"})
    fleets = {"message_redis_url", "channel_redis_url", "redis_password_file", "shard_credentials_file", "color"}
    fleets |= {"redis_username", "replica", "release", "token_key_file", "handoff_dir", "reports_dir"}
    defaults = {field.name: _as_text(field.default) for field in fields(Settings)}
    found = chosen({variable_of(name): text for name, text in defaults.items()})
    assert found.keys() == {variable_of(name) for name in defaults.keys() - fleets}


def _as_text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)

"""Settings come from the environment; what makes no sense there is one clear line."""

from __future__ import annotations

import pytest

from shards.errors import UsageError
from shards.settings import Settings


def test_the_environment_is_read() -> None:
    settings = Settings.read({"COLOR": "green", "SHARDS_HISTORY_MESSAGES": "7", "SHARDS_RATE_LIMIT": "0"})
    assert (settings.color, settings.history_messages, settings.rate_limit) == ("green", 7, 0.0)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("SHARDS_HISTORY_SECONDS", "0"),
        ("SHARDS_DEDUPE_SECONDS", "0"),
        ("SHARDS_HISTORY_MESSAGES", "-1"),
        ("SHARDS_MESSAGE_BYTES", "many"),
        ("SHARDS_IDLE_SECONDS", "inf"),
        ("SHARDS_IDLE_SECONDS", "nan"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(UsageError, match=variable):
        Settings.read({variable: text})

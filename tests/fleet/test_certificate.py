"""Until when a fleet's certificate is good, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import ShardsError
from shards.fleet import certificate as kept
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir
from tests.certificates import certificate, expired

DAY_S = 86_400
END_OF_JANUARY_2020 = 1_580_515_200


def keeping(root: Path, make: Callable[[Path], Path]) -> tuple[FleetDir, FleetSpec]:
    """A fleet's directory with a copy of a certificate, and the spec that names it."""
    path = make(root)
    spec = replace(FleetSpec(), tls_certificate=str(path), tls_key=str(path))
    directory = FleetDir(root, "p")
    directory.create()
    kept.keep(directory, spec)
    return directory, spec


def test_it_is_the_copy_that_counts(tmp_path: Path) -> None:
    directory, spec = keeping(tmp_path, lambda folder: certificate(folder, days=20))
    Path(spec.tls_certificate).unlink()
    until = kept.expires(directory, spec)
    assert until == pytest.approx(time.time() + 20 * DAY_S, abs=60)


def test_one_that_is_over_still_tells_when_it_was(tmp_path: Path) -> None:
    assert kept.expires(*keeping(tmp_path, expired)) == END_OF_JANUARY_2020


def test_without_one_nothing_expires(tmp_path: Path) -> None:
    assert kept.expires(FleetDir(tmp_path, "p"), FleetSpec()) is None


@pytest.mark.parametrize("text", [None, "nonsense"], ids=["no file", "no certificate"])
def test_a_copy_that_can_not_be_read_is_one_clear_error(tmp_path: Path, text: str | None) -> None:
    directory, spec = keeping(tmp_path, certificate)
    directory.certificate_file.unlink()
    if text is not None:
        directory.certificate_file.write_text(text)
    with pytest.raises(ShardsError, match=r"^cannot read the fleet's certificate in .*: .+$"):
        kept.expires(directory, spec)


@pytest.mark.parametrize(
    ("left_s", "said"),
    [
        (90 * DAY_S, "expires in 90 days"),
        (2 * DAY_S, "expires in 2 days"),
        (2 * DAY_S - 1, "expires in 47 hours"),
        (3600, "expires in 1 hour"),
        (59, "expires in 0 hours"),
        (-3600, "expired 1 hour ago"),
        (-3 * DAY_S - 5, "expired 3 days ago"),
    ],
)
def test_how_long_it_is_good_for_is_said_in_days_and_at_the_end_in_hours(left_s: float, said: str) -> None:
    assert kept.term(left_s) == said


def test_it_is_warned_of_for_two_weeks_with_the_command_that_mends_it() -> None:
    assert kept.warning(14 * DAY_S + 1) is None
    command = "renew it, then `inv up --tls-certificate FILE --tls-key FILE`"
    assert kept.warning(14 * DAY_S) == f"the certificate that the edges show expires in 14 days: {command}"
    over = kept.warning(-DAY_S)
    assert over == f"the certificate that the edges show expired 24 hours ago, and clients refuse it: {command}"

"""Times as text and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_events.clock import parse_rfc3339, rfc3339, system_clock

YEAR_10000_MS = 253_402_300_800_000


def test_a_time_has_milliseconds_and_a_z() -> None:
    assert rfc3339(1_776_695_400_123) == "2026-04-20T14:30:00.123Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(999) == "1970-01-01T00:00:00.999Z"


@given(st.integers(0, YEAR_10000_MS - 1))
def test_a_time_comes_back_as_it_was(time_ms: int) -> None:
    assert parse_rfc3339(rfc3339(time_ms)) == time_ms


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2026-04-20T14:30:00Z", 1_776_695_400_000),
        ("2026-04-20T16:30:00.5+02:00", 1_776_695_400_500),
        ("2026-04-20t14:30:00.123456z", 1_776_695_400_123),
    ],
)
def test_other_forms_of_rfc_3339_are_read(text: str, time_ms: int) -> None:
    assert parse_rfc3339(text) == time_ms


@pytest.mark.parametrize(
    "text", ["", "now", "2026-04-20T14:30:00", "2026-04-20", "2026-13-01T00:00:00Z", "1776695400123"]
)
def test_what_is_no_time_or_names_no_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rfc3339(text)


def test_the_systems_clock_goes_on_in_milliseconds() -> None:
    before = system_clock()
    assert 1_700_000_000_000 < before <= system_clock() < YEAR_10000_MS

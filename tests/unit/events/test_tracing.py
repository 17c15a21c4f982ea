"""W3C trace context: what is taken over from a `traceparent`, and what is as good as none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_events.tracing import traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize("flags", ["00", "01", "03", "ff"])
def test_a_valid_parent_is_taken_over_as_it_is(flags: str) -> None:
    text = f"00-{TRACE}-{PARENT}-{flags}"
    assert traceparent(text) == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}0-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01-",
        f"00-{TRACE}-{PARENT}-01-what-the-future-holds",
        f"00-{TRACE}-{PARENT}-01\n",
        f" 00-{TRACE}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"zz-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        f"00_{TRACE}_{PARENT}_01",
        f"00-{'٤' * 32}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01what-the-future-will-not-be-like",
        f"cc-{TRACE}-{PARENT}-0",
    ],
)
def test_what_is_not_valid_is_as_good_as_none(text: str | None) -> None:
    assert traceparent(text) is None


@pytest.mark.parametrize("more", ["", "-", "-what-the-future-holds", "-\n"])
@pytest.mark.parametrize(("flags", "kept"), [("00", "00"), ("01", "01"), ("fe", "00"), ("ff", "01")])
def test_of_a_newer_version_what_this_one_has_is_read(more: str, flags: str, kept: str) -> None:
    assert traceparent(f"cc-{TRACE}-{PARENT}-{flags}{more}") == f"00-{TRACE}-{PARENT}-{kept}"


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,3})?", fullmatch=True))
def test_what_comes_out_is_always_valid_and_stays_as_it_is(text: str) -> None:
    taken = traceparent(text)
    if taken is not None:
        assert len(taken) == 55 and taken.startswith("00-")
        assert traceparent(taken) == taken

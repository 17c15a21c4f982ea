"""Which of the open ones an order means."""

from __future__ import annotations

import pytest

from parley_events.clock import rfc3339
from parley_standalone.errors import CommandError
from parley_standalone.terminal.approvals import left
from parley_standalone.terminal.parked import Parked, chosen, how
from parley_standalone.terminal.story import ApprovalAsked, HandedOver

FIRST = ApprovalAsked("p1", "publish", '{"text": "a"}', "")
SECOND = ApprovalAsked("p2", "pay", "", "")
HANDED = HandedOver("r", "c1", "get_weather", "")


def test_a_number_names_one_and_what_follows_is_the_comment() -> None:
    open_ = (FIRST, HANDED, SECOND)
    assert chosen(open_, ApprovalAsked, "3 not now", ":deny") == (SECOND, "not now")
    assert chosen(open_, ApprovalAsked, "1", ":approve") == (FIRST, "")
    assert chosen(open_, HandedOver, "2 21 °C", ":result") == (HANDED, "21 °C")


def test_a_single_one_needs_no_number_and_a_word_may_be_one() -> None:
    open_ = (FIRST, HANDED)
    assert chosen(open_, ApprovalAsked, "", ":approve") == (FIRST, "")
    assert chosen(open_, ApprovalAsked, "1 go", ":approve") == (FIRST, "go")
    assert chosen(open_, HandedOver, "21 °C", ":result") == (HANDED, "21 °C")
    assert chosen(open_, HandedOver, "2 21", ":result") == (HANDED, "21")


@pytest.mark.parametrize("rest", ["", "2 x", "9", "x", "1x", "99999999999999999999"])
def test_what_is_unclear_is_asked_for(rest: str) -> None:
    with pytest.raises(CommandError, match="N is one of 1, 3"):
        chosen((FIRST, HANDED, SECOND), ApprovalAsked, rest, ":approve")


def test_nothing_open_is_said() -> None:
    with pytest.raises(CommandError, match="nothing in this thread waits"):
        chosen((HANDED,), ApprovalAsked, "1", ":approve")


def test_each_is_shown_with_the_orders_that_answer_it() -> None:
    assert how((FIRST, HANDED)) == [
        ("1", 'publish {"text": "a"}', ":approve 1   :deny 1 WHY"),
        ("2", "get_weather", ":result 2 TEXT"),
    ]
    assert Parked("r", "7", (FIRST, HANDED)).without(FIRST).open == (HANDED,)


def test_the_time_that_is_left_is_said_in_the_largest_unit() -> None:
    now_ms = 1_767_323_045_000
    for seconds, said in ((-1, "none"), (0, "none"), (59, "59s"), (60, "1m"), (7199, "1h"), (90_000, "1d")):
        assert left(rfc3339(now_ms + seconds * 1000), now_ms) == said

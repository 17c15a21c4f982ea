"""What is open in a thread, as a feed of many threads remembers it: from a run's beginning to its end, or its park."""

from __future__ import annotations

from typing import Any

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Usage
from parley_events.codec import Fact
from parley_gateway.dialects.threads.outbound import Placed
from parley_gateway.feed.opened import Opened
from tests.unit.gateway.feed.test_hub import THREAD, called, returned

RUN = called().run_id
END = f.RunCompleted(run_id=RUN, message_id=ids.answer_id(RUN), stop_reason="end_turn", usage=Usage())
WAITS = f.RunWaiting(run_id=RUN, waits_for="client_tool", tool_call_ids=("c",), due_at_ms=1)
SETTLED = f.ToolSettled(run_id=RUN, tool_call_id="c", happened=True, by="ann")


def fact(seq: int, body: f.FactBody) -> Fact:
    run_id = getattr(body, "run_id", None)
    return Fact(body.type, THREAD, seq, 0, "w", 0, body, run_id=run_id, offset=seq)


def told(opened: Opened, *bodies: f.FactBody) -> list[Any]:
    return [shown for body in bodies for shown in opened.fact(fact(opened.seq + 1, body))]


def state(opened: Opened) -> tuple[bool, bool]:
    return opened.open, opened.speaking


def test_it_is_open_from_what_begins_a_run_to_its_end() -> None:
    opened = Opened(1, Placed(THREAD), pieces=True)
    assert state(opened) == (False, False)
    told(opened, called())
    assert state(opened) == (True, True)
    told(opened, returned(2, "hi"))
    assert state(opened) == (True, False)
    told(opened, END)
    assert state(opened) == (False, False) and opened.seq == 4


def test_a_run_that_parks_is_forgotten_and_must_be_known_again_when_it_goes_on() -> None:
    opened = Opened(1, Placed(THREAD), pieces=True)
    told(opened, called(), returned(2, "hi"), WAITS)
    assert state(opened) == (False, False) and opened.lacks(fact(5, called()))
    opened.recall([fact(2, called()), fact(3, returned(2, "hi"))])
    assert state(opened) == (True, False) and not opened.lacks(fact(5, called()))


def test_what_is_said_of_a_call_after_the_end_opens_nothing_and_needs_nothing() -> None:
    opened = Opened(4, Placed(THREAD), pieces=True)
    assert not opened.lacks(fact(5, SETTLED))
    told(opened, SETTLED)
    assert state(opened) == (False, False)


def test_a_call_that_is_recalled_ends_with_its_whole_text_from_the_beginning() -> None:
    opened = Opened(2, Placed(THREAD), pieces=True)
    assert opened.lacks(fact(3, returned(2, "hello")))
    opened.recall([fact(2, called())])
    text, end = told(opened, returned(2, "hello"))
    assert opened.show(text)[0].data["at"] == 0 and text.text == "hello" and end.fact.seq == 3

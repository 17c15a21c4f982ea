"""Numbering: dense per stream, integer ids that rise for ever, and nothing numbered that cannot be written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_dispatcher.appender import NUMBER_EPOCH_MS, Appender
from parley_dispatcher.errors import NotOwner
from parley_dispatcher.sender import Sender
from parley_dispatcher.state import initial
from parley_events import facts as f
from parley_events import ids
from parley_events.clock import parse_rfc3339
from parley_events.codec import Fact, decode_fact
from parley_events.errors import RecordTooLarge
from parley_events.log import Incoming, Outgoing
from tests.unit.dispatcher.story import T0, THREAD, Story, use
from tests.unit.dispatcher.world import WORKSPACE


class Sent(Sender):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []

    def send(self, record: Outgoing, acknowledged: Any = None) -> None:
        self.records.append(record)

    def facts(self) -> list[Fact]:
        return [
            decode_fact(Incoming(r.topic, r.partition, n, 0, r.key, r.value, r.headers))
            for n, r in enumerate(self.records)
        ]


class Time:
    def __init__(self, now_ms: int = T0) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def running() -> Story:
    """A thread with a run that has asked for a tool."""
    story = Story()
    story.returned(story.posted(), use("clock", "t1"))
    return story


def tool_called(story: Story) -> f.ToolCalled:
    run = story.thread.current()
    assert run is not None
    return f.ToolCalled(
        run_id=run.run_id,
        call=run.turns[-1].call,
        index=0,
        tool_call_id="t1",
        name="clock",
        arguments={},
        effect="unsafe",
        effect_key="k",
    )


def test_ids_count_from_2024() -> None:
    assert parse_rfc3339("2024-01-01T00:00:00Z") == NUMBER_EPOCH_MS


def test_each_stream_has_its_own_dense_seq_and_refusals_have_none() -> None:
    sent = Sent()
    appender = Appender(3, 17, 0, sent, Time())
    one, two = initial(THREAD), initial(THREAD.replace("1", "2"))
    refusal = f.CommandRejected(command_type="x", code="invalid", message="m")
    for state, body in ((one, f.ThreadDeleted()), (two, f.ThreadDeleted()), (one, refusal), (one, f.ThreadCleared())):
        appender.append(state, body, workspace_id=WORKSPACE)
    assert [(fact.stream == THREAD, fact.seq, fact.epoch) for fact in sent.facts()] == [
        (True, 1, 17),
        (False, 1, 17),
        (True, None, 17),
        (True, 2, 17),
    ]
    assert (one.seq, two.seq) == (2, 1)
    assert {record.partition for record in sent.records} == {3}


def test_a_fact_is_folded_and_sent_in_one_step() -> None:
    sent, story = Sent(), running()
    fact = Appender(0, 1, 0, sent, Time()).append(story.state, tool_called(story), run_id="r", correlation_id="c")
    [written] = sent.facts()
    assert written.body == fact.body
    assert (written.seq, written.run_id, written.correlation_id, written.time_ms) == (story.state.seq, "r", "c", T0)
    assert story.thread.runs[tool_called(story).run_id].turns[-1].tools[0].called == fact.seq


def test_ids_that_only_the_place_in_the_log_can_give_are_in_the_fact() -> None:
    sent, story = Sent(), running()
    appender = Appender(0, 1, 0, sent, Time())
    called = appender.append(story.state, tool_called(story)).body
    assert isinstance(called, f.ToolCalled)
    assert called.message_id == ids.fact_message_id(THREAD, story.state.seq)
    asked = appender.append(
        story.state,
        f.ApprovalRequested(
            run_id=called.run_id, call=called.call, index=0, tool_call_id="t1", name="n", arguments={}, due_at_ms=1
        ),
    ).body
    assert isinstance(asked, f.ApprovalRequested)
    assert asked.approval_id == ids.approval_id(THREAD, story.state.seq)


def numbers(appender: Appender, story: Story) -> tuple[int, ...]:
    body = appender.append(story.state, tool_called(story)).body
    assert isinstance(body, f.ToolCalled)
    return body.numbers


def test_an_integer_id_is_the_time_in_sixteenths_and_the_partition() -> None:
    story = running()
    appender = Appender(7, 1, 0, Sent(), Time())
    first = 16 * (T0 - NUMBER_EPOCH_MS)
    assert numbers(appender, story) == (first * 256 + 7,)
    assert numbers(appender, story) == ((first + 1) * 256 + 7,)


def test_a_message_takes_as_many_ids_as_it_makes_messages() -> None:
    story = Story()
    body = f.MessagePosted(
        message_id="m",
        run_id="r",
        answer_id="a",
        disposition="started",
        author={"id": "ann"},  # type: ignore[arg-type]
        agent_id="a",
        agent_version=1,
        text="x",
    )
    fact = Appender(5, 1, 0, Sent(), Time()).append(story.state, body, workspace_id=WORKSPACE)
    assert isinstance(fact.body, f.MessagePosted)
    one, two, three = fact.body.numbers
    assert (two - one, three - two, one % 256) == (256, 256, 5)


@given(st.lists(st.integers(-(10**6), 10**6), max_size=60), st.integers(0, 255))
def test_integer_ids_rise_whatever_clocks_and_owners_do(moves: list[int], partition: int) -> None:
    """Each step moves the clock, also back; every tenth is a new owner, which begins where the facts ended."""
    time, story, last, found = Time(), running(), 0, list[int]()
    appender = Appender(partition, 0, last, Sent(), time)
    for place, move in enumerate(moves):
        time.now_ms = max(time.now_ms + move, NUMBER_EPOCH_MS)
        if place % 10 == 9:
            appender = Appender(partition, place, last, Sent(), time)
        found += numbers(appender, story)
        last = max(found)
    assert found == sorted(set(found))
    assert all(number % 256 == partition and 0 <= number < 2**53 for number in found)


def test_integer_ids_stay_below_two_to_the_53_for_decades() -> None:
    story = running()
    appender = Appender(255, 1, 0, Sent(), Time(parse_rfc3339("2090-01-01T00:00:00Z")))
    assert numbers(appender, story)[0] < 2**53


# ---- what is refused


def unchanged(
    story: Story, appender: Appender, sent: Sent, body: f.FactBody, error: type[Exception], **more: Any
) -> None:
    before, tick = repr(story.state), appender._tick
    with pytest.raises(error):
        appender.append(story.state, body, **more)
    assert (repr(story.state), appender._tick, sent.records) == (before, tick, [])


def test_a_record_that_is_too_large_takes_no_number() -> None:
    sent, story = Sent(), running()
    appender = Appender(0, 1, 0, sent, Time())
    huge = tool_called(story).model_copy(update={"arguments": {"a": "x" * 9_000_000}})
    unchanged(story, appender, sent, huge, RecordTooLarge)


def test_what_stands_in_its_headers_counts_too() -> None:
    sent, story = Sent(), running()
    appender = Appender(0, 1, 0, sent, Time())
    full = tool_called(story).model_copy(update={"arguments": {"a": "x" * (8 * 1024 * 1024 - 66_000)}})
    unchanged(story, appender, sent, full, RecordTooLarge, correlation_id="x" * 80_000)
    appender.append(story.state, full)
    assert len(sent.records) == 1


@pytest.mark.parametrize("whole", [False, True], ids=["the run", "the thread"])
def test_no_tool_is_called_and_nobody_is_asked_while_the_run_is_being_cancelled(whole: bool) -> None:
    sent, story = Sent(), running()
    run = story.thread.current()
    assert run is not None
    called = tool_called(story)
    asked = f.ApprovalRequested(
        run_id=run.run_id, call=called.call, index=0, tool_call_id="t1", name="clock", arguments={}, due_at_ms=1
    )
    if whole:
        story.happened(f.ThreadCancelling(by="ann", run_ids=(run.run_id,)))
    else:
        story.cancelling(run)
    appender = Appender(0, 1, 0, sent, Time())
    unchanged(story, appender, sent, called, NotOwner)
    unchanged(story, appender, sent, asked, NotOwner)


def test_a_closed_appender_writes_nothing() -> None:
    sent, story = Sent(), running()
    appender = Appender(0, 1, 0, sent, Time())
    appender.close()
    unchanged(story, appender, sent, tool_called(story), NotOwner)

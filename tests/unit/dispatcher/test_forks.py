"""A fork is what its source was, to every model and every command, whatever becomes of the source."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley_dispatcher.prompt import UNKNOWN_OUTCOME, build_request
from parley_dispatcher.state import ThreadState, evolve
from parley_events import commands as c
from parley_events import facts as f
from parley_events import ids
from parley_events.body import Attachment, PastFact, ThreadSeed
from parley_events.codec import Fact, encode_fact, fact_from
from parley_events.log import Outgoing
from parley_events.past import KEPT, NO_RESULT, NOT_KNOWN, NOT_MADE, REASON, Past, Told, told
from parley_events.retelling import retold
from tests.unit.dispatcher.journals import Journal, journals
from tests.unit.dispatcher.story import THREAD, Story, code, text, use
from tests.unit.dispatcher.world import ANN, BOB, agent

FORK = "00000000-0000-4000-8000-0000000000f0"
AGAIN = "00000000-0000-4000-8000-0000000000f1"
SPEC = agent()
SEED = ThreadSeed(user_id="ann", idle_s=60)


def past_of(facts: list[Fact], source: str, fork: str, at: int) -> tuple[PastFact, ...]:
    past = Past(source, fork, "ann")
    for fact in facts:
        assert fact.seq is not None
        body = fact.body.model_dump(mode="json")
        for one in told(Told(fact.seq, fact.type, fact.version, fact.time_ms, body)):
            if one.seq <= at:
                past.take(one)
    return past.made()


def command(source: str, at: int, past: tuple[PastFact, ...], **more: Any) -> c.ForkThread:
    return c.ForkThread.model_validate(
        {"principal": ANN, "source_thread_id": source, "at": at, "seed": SEED, "past": past, **more}
    )


def forked(facts: list[Fact], at: int, *, source: str = THREAD, fork: str = FORK) -> Story:
    story = Story(fork)
    outcome = story.asked(command(source, at, past_of(facts, source, fork, at)), "fork")
    assert isinstance(outcome, f.ThreadForked), outcome
    return story


class Recorded(Story):
    """A story whose facts can be forked."""

    def __init__(self, stream: str = THREAD) -> None:
        super().__init__(stream)
        self.facts: list[Fact] = []

    def happened(self, body: f.FactBody, **envelope: Any) -> int:
        seq = super().happened(body, **envelope)
        self.facts.append(Fact(body.type, self.state.stream, seq, 0, "", self.now_ms, body))
        return seq


def messages(story: Story) -> list[Any]:
    """What a model is shown of all that is there, when one more message comes."""
    run = story.posted("more", "and now?")
    return build_request(story.thread, run, SPEC, None, [], 1).messages


def replayed(facts: list[Fact]) -> Story:
    story = Story()
    for fact in facts:
        evolve(story.state, fact)
    return story


def ends_in(past: tuple[PastFact, ...], facts: list[Fact]) -> list[Any]:
    """The facts with which the fork ended what was unfinished, as facts of the source."""
    begun: dict[str, tuple[str, int]] = {}
    for fact in facts:
        if isinstance(fact.body, f.MessagePosted | f.ChildStarted):
            begun[ids.moved_id(fact.body.run_id, FORK, 0)] = (fact.body.run_id, fact.seq or 0)
    found = []
    for one in past:
        if one.body.get("reason") == REASON or one.body.get("result") in (NOT_KNOWN, NOT_MADE, NO_RESULT):
            body = {**one.body, "run_id": begun[one.body["run_id"]][0]}
            if body.get("call") is not None:
                body["call"] += begun[past[0].body["run_id"]][1] - past[0].seq
            found.append(f.FACTS[one.type].model_validate(body))
    return found


def compare(facts: list[Fact], at: int) -> Story:
    """The model is shown the same in the fork as in the source, had that ended there as the fork was ended."""
    story, source = forked(facts, at), Story()
    assert (story.thread.seq, story.thread.current(), story.thread.approvals) == (1, None, {})
    for fact in facts[:at]:
        evolve(source.state, fact)
    for body in ends_in(past_of(facts, THREAD, FORK, at), facts):
        source.happened(body)
    assert messages(story) == messages(source)
    assert (story.thread.attachments, story.thread.artifacts) == (source.thread.attachments, source.thread.artifacts)
    return story


def everything() -> list[Fact]:
    """A thread in which all happens that may: approvals, tools of the client, failures, stops, a run inside a run."""
    story = Recorded()
    file = Attachment(name="a.txt", content_type="text/plain", size=1, sha256="0" * 64)
    run = story.posted("one", "hello", attachments=(file,), context={"page": 1}, system_append="Be brief.")
    story.failed(run)
    story.returned(run, text("May I?"), *(use("pay", f"t{n}") for n in range(3)))
    asked = [story.requested(run, index) for index in range(3)]
    story.waiting(run)
    for number, (approval, more) in enumerate(zip(asked, ({"arguments": {"eur": 2}}, {}), strict=False)):
        decision = "approve" if more else "deny"
        body = {"principal": ANN, "approval_id": approval, "decision": decision, "comment": "so", **more}
        assert story.asked(c.AnswerApproval.model_validate(body), f"answer-{number}").type == "approval.answered"
    story.decided(run, run.turns[-1].tools[2], "approval_expired")
    story.tool_called(run, 0)
    for index, status in enumerate(("ok", "denied", "denied")):
        story.tool_returned(run, index, status, status)
    story.returned(run, text("Done."))
    story.completed(run)
    run = story.posted("two", "and the weather?")
    story.returned(run, *(use("get_weather", f"w{n}") for n in range(2)))
    for index in range(2):
        story.handed_over(run, index)
    story.waiting(run)
    story.told(run, run.turns[-1].tools[0])
    story.told(run, run.turns[-1].tools[1], "tool_expired")
    story.tool_returned(run, 1, "error", "in vain")
    story.cancelling(run)
    story.cancelled(run, text("It is"))
    run = story.posted("three", "once more")
    story.returned(run, use("get_weather", "w9"))
    story.handed_over(run)
    story.waiting(run)
    other = story.posted("four", "never mind")
    story.tool_returned(run, 0, "error", "moved on")
    story.happened(f.ThreadCancelling(by="ann", run_ids=tuple(story.thread.open_runs)))
    story.cancelled(run)
    story.cancelled(other)
    run = story.posted("five", "ask somebody")
    story.returned(run, use("ask_agent", "a1"), use("pay", "a2"))
    story.tool_called(run, 0)
    child = ids.child_run_id(THREAD, run.turns[-1].tools[0].effect_key)
    fields = {"run_id": child, "parent_run_id": run.run_id, "tool_call_id": "a1", "agent_id": "b", "agent_version": 1}
    story.happened(f.ChildStarted.model_validate({**fields, "text": "you?"}))
    inner = story.thread.runs[child]
    story.returned(inner, text("Let me"), use("pay", "i1"))
    story.tool_called(inner)
    story.tool_returned(inner, 0, "unknown", "?")
    story.settled(inner, inner.turns[-1].tools[0], happened=True)
    story.returned(inner, text("I know."))
    story.completed(inner)
    story.tool_returned(run, 0, "ok", "I know.")
    return story.facts


def test_wherever_it_is_forked_the_model_is_shown_what_it_was_shown() -> None:
    facts = everything()
    assert {fact.type for fact in facts} >= KEPT - {f.RunFailed.type}
    for at in range(1, len(facts) + 1):
        compare(facts, at)


@given(journals(), st.data())
@settings(max_examples=100, deadline=None)
def test_the_model_is_shown_the_past_as_in_the_source(journal: Journal, data: st.DataObject) -> None:
    """Wherever it is forked: what is unfinished there is shown as what was said so far, and as ended."""
    at = data.draw(st.integers(1, len(journal.facts)))
    compare(journal.facts, at)


@given(journals(), st.data())
@settings(max_examples=50, deadline=None)
def test_a_fork_of_a_fork_is_one_of_the_first_thread(journal: Journal, data: st.DataObject) -> None:
    """Also in the middle of what the first took over: its seqs go on downwards."""
    at = data.draw(st.integers(1, len(journal.facts)))
    first = past_of(journal.facts, THREAD, FORK, at)
    own = [
        Fact(
            f.ThreadForked.type,
            FORK,
            1,
            0,
            "",
            0,
            f.ThreadForked(source_thread_id=THREAD, at=at, seed=SEED, past=first),
        )
    ]
    for place in {0, data.draw(st.integers(0, len(first)))} if first else ():
        cut = first[place - 1].seq if place else 1
        again = past_of(own, FORK, AGAIN, cut)
        straight = [one for one in first if one.seq <= cut]
        assert [one.time_ms for one in again[: len(straight)]] == [one.time_ms for one in straight]
        assert all(FORK not in str(one.body.get("run_id")) for one in again)
        story = Story(AGAIN)
        assert isinstance(story.asked(command(FORK, cut, again)), f.ThreadForked)
        if cut == 1:
            assert messages(story) == messages(forked(journal.facts, at, fork=AGAIN))


def conversation() -> Recorded:
    """Two runs: one with tools, of which one's outcome is unknown, and one that is open."""
    story = Recorded()
    file = Attachment(name="a.txt", content_type="text/plain", size=1, sha256="0" * 64)
    first = story.posted("one", "hello", attachments=(file,), context={"page": 1})
    story.returned(first, text("look"), use("clock", "t1"), use("pay", "t2"))
    for index, status in enumerate(("ok", "unknown")):
        story.tool_called(first, index)
        story.tool_returned(first, index, status, "noon")
    story.returned(first, text("It is noon."))
    story.completed(first)
    second = story.posted("two", "and now?")
    story.returned(second, text("wait"), use("clock", "t3"), use("pay", "t4"), use("pay", "t5"))
    story.tool_called(second, 1)
    return story


def test_a_fork_goes_on_by_itself() -> None:
    source = conversation()
    story = forked(source.facts, len(source.facts))
    assert (story.thread.seq, story.thread.idle_s, story.thread.user_id) == (1, 60, "ann")
    assert list(story.thread.attachments) == ["a.txt"]
    assert all(ids.thread_of(run) == FORK and made.ended for run, made in story.thread.runs.items())
    assert [run.posted_ms for run in story.thread.runs.values()] == [
        run.posted_ms for run in source.thread.runs.values()
    ]
    run = story.posted("three", "go on")
    assert (run.posted_seq, story.thread.current()) == (2, run)
    assert story.returned(run, text("Gladly.")) == 3
    results = [
        block for one in build_request(story.thread, run, SPEC, None, [], 1).messages for block in one["content"]
    ]
    said = [block["content"] for block in results if block["type"] == "tool_result"]
    assert said[2:] == [NOT_MADE, UNKNOWN_OUTCOME, NOT_MADE]


def test_a_cleared_fork_shows_the_model_nothing_of_its_past() -> None:
    source = conversation()
    story = forked(source.facts, len(source.facts))
    story.happened(f.ThreadCleared(by="ann"))
    assert len(messages(story)) == 1
    assert story.thread.attachments == {}


def test_what_was_cleared_in_the_source_is_not_taken_over() -> None:
    source = conversation()
    source.happened(f.ThreadCleared(by="ann"))
    source.cancelled(list(source.thread.runs.values())[1])
    later = source.posted("three", "again")
    past = past_of(source.facts, THREAD, FORK, len(source.facts))
    assert {one.body["run_id"] for one in past} == {ids.moved_id(later.run_id, FORK, 0)}


def test_what_a_fork_took_over_is_settled_and_stopped_where_it_ran() -> None:
    source = conversation()
    story = forked(source.facts, len(source.facts))
    run = next(iter(story.thread.runs))
    settle = c.SettleTool(principal=ANN, run_id=run, tool_call_id="t2", happened=True)
    assert code(story.asked(settle, "c2")) == "not_open"
    assert code(story.asked(c.CancelRun(principal=ANN, run_id=run), "c3")) == "not_open"
    assert source.asked(settle.model_copy(update={"run_id": None})).type == "tool.settled"


def test_a_command_that_comes_in_both_threads_makes_two_runs() -> None:
    """Producers may count their commands within a thread."""
    source = conversation()
    story = forked(source.facts, len(source.facts))
    before = len(story.thread.runs)
    story.posted("one", "again")
    assert len(story.thread.runs) == before + 1
    assert next(iter(story.thread.runs.values())).text == "hello"


def test_what_a_person_is_asked_in_the_source_is_answered_there_alone() -> None:
    """What was approved with other arguments is shown in the fork as such; what is open is not open there."""
    source = Recorded()
    run = source.posted()
    source.returned(run, use("pay", "t1"), use("pay", "t2"))
    done = source.requested(run, 0)
    answer = c.AnswerApproval(principal=ANN, approval_id=done, decision="approve", arguments={"eur": 2})
    assert source.asked(answer, "c1").type == "approval.answered"
    source.tool_called(run, 0)
    source.tool_returned(run, 0, "ok", "paid")
    waiting = source.requested(run, 1)
    story = forked(source.facts, len(source.facts))
    copied = [one.body["approval_id"] for one in past_of(source.facts, THREAD, FORK, 99) if "approval_id" in one.body]
    for approval in {done, waiting, *copied}:
        assert code(story.asked(answer.model_copy(update={"approval_id": approval}), approval)) == "not_found"
    results = [block["content"] for one in messages(story) for block in one["content"] if "tool_use_id" in block]
    assert "other arguments" in results[0] and "paid" in results[0]
    assert results[1] == NOT_MADE
    assert source.asked(answer.model_copy(update={"approval_id": waiting}), "c2").type == "approval.answered"


def test_a_fork_is_made_once() -> None:
    source = conversation()
    story = forked(source.facts, 3)
    body = command(THREAD, 3, past_of(source.facts, THREAD, FORK, 3))
    again = story.asked(body, "fork")
    assert (again.type, again.outcome_type, again.outcome_seq) == ("command.repeated", "thread.forked", 1)
    assert again.first["seed"]["idle_s"] == 60
    assert "past" not in again.first, "it would be held in memory for days"
    assert code(story.asked(body, "another")) == "exists"
    assert code(story.asked(c.PostMessage(principal=BOB, text="x"), "c4")) == "not_found", "it is its maker's"


def test_a_fork_survives_the_log() -> None:
    """What is decided, written and read is folded into the same state."""
    source = conversation()
    body = f.ThreadForked(
        source_thread_id=THREAD, at=9, seed=SEED, past=past_of(source.facts, THREAD, FORK, len(source.facts))
    )
    body = body.model_copy(update={"numbers": tuple(range(1, body.wanted + 1))})
    fact = Fact(body.type, FORK, 1, 7, "11111111-2222-4333-8444-555555555555", 5, body)
    record = encode_fact(fact, 0)
    assert isinstance(record, Outgoing)
    read = fact_from({name: value.decode() for name, value in record.headers}, record.value or b"", 0, 0)
    assert read.body == body
    states = [ThreadState(FORK), ThreadState(FORK)]
    for state, one in zip(states, (fact, read), strict=True):
        evolve(state, one)
    assert states[0] == states[1]
    numbers = [number for one in retold(read) for number in getattr(one.body, "numbers", ())]
    assert numbers == list(body.numbers), "each number once, in the order of the messages"


BODIES: dict[str, dict[str, Any]] = {
    "posted": {
        "message_id": f"{FORK}.m1",
        "run_id": f"{FORK}.r1",
        "answer_id": f"{FORK}.a1",
        "disposition": "started",
        "author": {"id": "ann"},
        "agent_id": "scripted",
        "agent_version": 1,
        "text": "x",
    },
    "ended": {"run_id": f"{FORK}.r1", "message_id": f"{FORK}.a1", "stop_reason": "end_turn", "usage": {}},
    "returned": {
        "run_id": f"{FORK}.r1",
        "call": -9,
        "index": 0,
        "tool_call_id": "t",
        "name": "n",
        "status": "ok",
        "result": "",
    },
}


def one(seq: int, kind: str, body: dict[str, Any], **more: Any) -> PastFact:
    return PastFact(seq=seq, type=kind, time_ms=1, body=body, **more)


@pytest.mark.parametrize(
    ("past", "why"),
    [
        ((one(0, "message.posted", BODIES["posted"]),), "has no end"),
        ((one(-1, "message.posted", BODIES["posted"]), one(0, "tool.returned", BODIES["returned"])), "makes no sense"),
        (
            (
                one(-1, "message.posted", {**BODIES["posted"], "run_id": f"{THREAD}.r1"}),
                one(0, "run.completed", {**BODIES["ended"], "run_id": f"{THREAD}.r1"}),
            ),
            "another thread",
        ),
    ],
)
def test_a_past_that_cannot_be_one_is_refused(past: tuple[PastFact, ...], why: str) -> None:
    refused = Story(FORK).asked(command(THREAD, 1, past))
    assert code(refused) == "invalid"
    assert why in refused.message


def test_a_fork_without_a_past_to_copy_is_refused() -> None:
    assert code(Story(FORK).asked(c.ForkThread(principal=ANN, source_thread_id=THREAD))) == "invalid"


def test_what_is_no_past_is_no_command() -> None:
    posted, ended = BODIES["posted"], BODIES["ended"]
    large = {**posted, "attachments": [{"name": "a", "content_type": "b", "size": -1, "sha256": "0" * 64}]}
    for past in (
        (one(-1, "message.posted", posted), one(-1, "run.completed", ended)),
        (one(-2, "message.posted", posted), one(-1, "run.completed", ended)),
        (one(0, "run.completed", ended),),
        (one(0, "thread.created", {"seed": {}}),),
        (one(0, "message.posted", {"run_id": "x"}),),
        (one(0, "message.posted", posted, version=2),),
        (one(0, "message.posted", large),),
    ):
        with pytest.raises(ValueError, match="past"):
            command(THREAD, 1, past)

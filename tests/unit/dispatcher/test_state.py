"""A state is the fold of its facts, however often and by whomever it is folded."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings

from parley_dispatcher.state import MAX_SHOWN_CHARS, REMEMBER_MS, ThreadState, evolve, initial
from parley_events import facts as f
from parley_events.body import Attachment, ThreadSeed, Usage
from parley_events.codec import Fact, UnknownBody
from tests.unit.dispatcher.journals import Journal, journals
from tests.unit.dispatcher.story import SAY, T0, THREAD, Story, changed, text, use, workspace
from tests.unit.dispatcher.world import WORKSPACE


def test_facts_come_in_the_order_of_their_seq() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed()))
    fact = Fact("thread.deleted", THREAD, 3, 0, WORKSPACE, T0, f.ThreadDeleted())
    with pytest.raises(ValueError, match="3 after 1"):
        evolve(story.state, fact)
    assert (story.state.seq, story.thread.deleted) == (1, False)


def test_an_unknown_fact_counts_and_changes_nothing_else() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed()))
    evolve(story.state, Fact("thread.sung", THREAD, 2, 0, WORKSPACE, T0, UnknownBody(raw=b"{}")))
    assert story.state.seq == 2


def test_a_fact_without_a_seq_changes_only_what_is_remembered() -> None:
    story = Story()
    story.happened(f.CommandRejected(command_type="x", code="invalid", message="m"), causation_id="c1", body_hash="h")
    assert (story.state.seq, story.thread.exists, list(story.state.outcomes)) == (0, False, ["c1"])


def test_a_thread_knows_what_it_was_opened_with() -> None:
    seed = ThreadSeed(user_id="u", agent_id="a", team_id="t", channel="ch", system_prompt="p", context={"k": 1})
    for body in (f.ThreadCreated(seed=seed), f.ThreadForked(source_thread_id="s", at=1, seed=seed)):
        state = Story(THREAD, body).thread
        assert (state.exists, state.user_id, state.agent_id, state.team_id) == (True, "u", "a", "t")
        assert (state.channel, state.system_prompt, state.context) == ("ch", "p", {"k": 1})


def test_a_run_is_queued_running_and_ended() -> None:
    story = Story()
    run = story.posted()
    assert (run.status, run.started_ms, story.thread.current()) == ("queued", None, run)
    story.now_ms += 5
    call = story.called(run)
    assert (run.status, run.call, run.attempt, run.started_ms) == ("running", call, 1, T0 + 5)
    story.returned(run, text("hi"))
    assert (run.call, run.attempt, run.turns[0].text) == (None, 0, "hi")
    story.completed(run)
    assert (run.ended, run.end, story.thread.open_runs, story.thread.current()) == (True, "run.completed", {}, None)


def test_attempts_and_failures_count_within_a_turn() -> None:
    story = Story()
    run = story.posted()
    story.called(run)
    story.failed(run)
    assert (run.attempt, run.failures, run.call) == (1, 1, None)
    story.called(run)
    story.called(run)
    assert (run.attempt, run.failures, run.failed) == (3, 1, None)
    story.returned(run, use())
    assert (run.attempt, run.failures) == (0, 0)
    assert run.usage == Usage(input_tokens=4, output_tokens=2)


def test_a_tool_call_is_open_until_it_has_a_result() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use(call_id="t1"), text("x"), use(call_id="t2"))
    first, second = run.turns[0].tools
    assert (first.index, second.index, first.open) == (0, 1, True)
    story.tool_called(run, 1)
    assert (second.called, second.effect_key, second.open) == (4, "key-2-1", True)
    story.tool_returned(run, 1, "error", "no")
    assert (second.status, second.result, second.open, first.open) == ("error", "no", False, True)
    assert run.tool("t1") is first and run.tool("t2", 2) is second and run.tool("t2", 9) is None


def test_a_model_that_gives_an_id_twice_gets_each_result_at_its_call() -> None:
    story = Story()
    run = story.posted()
    for result in ("first", "second"):
        story.returned(run, use(call_id="same"))
        story.tool_called(run)
        story.tool_returned(run, 0, "ok", result)
    assert [turn.tools[0].result for turn in run.turns] == ["first", "second"]


def test_a_result_that_comes_late_is_of_the_turn_that_it_names() -> None:
    story = Story()
    run = story.posted()
    earlier = story.returned(run, use(call_id="same"))
    story.returned(run, use(call_id="same"))
    story.happened(
        f.ToolReturned(
            run_id=run.run_id, call=earlier, index=0, tool_call_id="same", name="clock", status="unknown", result=""
        )
    )
    assert [turn.tools[0].status for turn in run.turns] == ["unknown", None]


def test_cancelling_a_run_is_cancelling_its_children() -> None:
    story = Story()
    run = story.posted()
    for parent, child in ((run.run_id, "child"), ("other", "stranger")):
        story.happened(
            f.ChildStarted(
                run_id=child, parent_run_id=parent, tool_call_id="t", agent_id="a", agent_version=1, text="q"
            )
        )
    story.cancelling(run)
    runs = story.thread.runs
    assert [runs[name].status for name in (run.run_id, "child", "stranger")] == ["cancelling", "cancelling", "queued"]
    assert (runs["child"].cancelled_by, runs["child"].cancel_reason) == ("ann", "enough")
    assert story.thread.current() is run


def test_what_a_cancelled_run_had_said_is_a_turn() -> None:
    story = Story()
    run = story.posted()
    call = story.called(run)
    story.cancelled(run, text("half"))
    assert (run.turns[-1].text, run.turns[-1].call, run.turns[-1].tools) == ("half", call, [])


def test_the_shelf_has_the_newest_file_of_a_name_and_is_emptied_with_the_thread() -> None:
    def file(name: str, size: int) -> Attachment:
        return Attachment(name=name, content_type="a/b", size=size, sha256=f"{size:064x}")

    story = Story()
    story.posted(attachments=(file("a", 1), file("b", 2)))
    run = story.posted("two", attachments=(file("a", 3),))
    call = story.called(run)
    story.returned(run, use())
    made = f.ToolReturned(
        run_id=run.run_id,
        call=call,
        index=0,
        tool_call_id="t1",
        name="x",
        status="ok",
        result="",
        files=(file("a", 4),),
    )
    story.happened(made)
    assert {name: found.size for name, found in story.thread.attachments.items()} == {"b": 2, "a": 3}
    assert {name: found.size for name, found in story.thread.artifacts.items()} == {"a": 4}
    story.happened(f.ThreadCleared())
    story.happened(made)
    assert story.thread.attachments == story.thread.artifacts == {}, "a cleared run's files come to nothing"


def test_the_first_outcome_of_a_command_stands() -> None:
    story = Story()
    story.asked(SAY, "c1")
    story.happened(f.CommandRejected(command_type="x", code="invalid", message="m"), causation_id="c1", body_hash="h2")
    assert (story.state.outcomes["c1"].outcome_type, story.state.outcomes["c1"].body_hash) == ("message.posted", "hash")


def test_what_is_forgotten_takes_no_room() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed()))
    size = story.state.size
    for n in range(100):
        story.now_ms += REMEMBER_MS // 10
        story.happened(f.ThreadRead(user_id="ann", up_to=1), causation_id=f"c{n}")
    assert len(story.state.outcomes) == 11
    assert story.state.size == size + 11 * 400


def test_size_grows_with_what_is_said() -> None:
    story = Story()
    sizes = [story.state.size]
    run = story.posted(text="x" * 10_000)
    sizes.append(story.state.size)
    story.returned(run, text("x" * 10_000), use())
    sizes.append(story.state.size)
    story.tool_called(run)
    story.tool_returned(run, result="x" * 10_000)
    sizes.append(story.state.size)
    large = {"text": "x" * 10_000}
    for more in ({"context": large}, {"lead_context": large}, {"system_prompt": large["text"]}):
        run = story.posted(text="short", name=str(more.keys()), **more)
        sizes.append(story.state.size)
    story.returned(run, use(arguments=large))
    sizes.append(story.state.size)
    story.returned(run, use(malformed=large["text"]))
    sizes.append(story.state.size)
    story.happened(
        f.RunCancelled(run_id=run.run_id, message_id="m", by="ann", blocks=(text("x" * 10_000),), usage=Usage())
    )
    sizes.append(story.state.size)
    assert all(after - before >= 10_000 for before, after in pairwise(sizes))


def test_of_a_tools_result_no_more_is_held_than_a_model_is_shown() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use())
    story.tool_called(run)
    size = story.state.size
    story.tool_returned(run, result="y" * (8 * 1024 * 1024))
    (held,) = run.turns[-1].tools
    assert (len(held.result), held.length) == (MAX_SHOWN_CHARS, 8 * 1024 * 1024)
    assert story.state.size - size <= 3 * MAX_SHOWN_CHARS


def test_a_workspace_knows_the_digest_of_the_newest_file() -> None:
    story = workspace(changed("a", 1, "d1"), changed("a", 2, None))
    assert (story.workspace.agents["a"].version, story.workspace.agents["a"].digest) == (2, "d1")


@settings(max_examples=30)
@given(journals())
def test_two_folds_of_the_same_facts_are_equal(journal: Journal) -> None:
    again = initial(THREAD)
    for fact in journal.facts:
        evolve(again, fact)
    assert again == journal.state
    assert isinstance(again, ThreadState)
    assert again.seq == len([fact for fact in journal.facts if fact.seq is not None])


@settings(max_examples=30)
@given(journals())
def test_open_runs_are_those_that_have_not_ended(journal: Journal) -> None:
    state = journal.state
    assert list(state.open_runs.values()) == [run for run in state.runs.values() if not run.ended]

"""What the model is shown: only what was recorded, roles in turn, and never a call without its result."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings

from parley_dispatcher.prompt import NOT_RUN, UNKNOWN_OUTCOME, build_request
from parley_dispatcher.state import Run
from parley_events import facts as f
from parley_events.body import Attachment, Block, Limits, ThreadSeed
from tests.unit.dispatcher.journals import Journal, journals
from tests.unit.dispatcher.story import THREAD, Story, text, use
from tests.unit.dispatcher.world import agent

SPEC = agent(system_prompt="Be kind.", context="Agent's.", temperature=0.5, limits=Limits(max_tokens=77))


def shown(story: Story, run: Run, workspace: str | None = None, attempt: int = 1) -> list[Any]:
    return build_request(story.thread, run, SPEC, workspace, [], attempt).messages


def says(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_a_conversation_is_its_questions_and_answers_in_turn() -> None:
    story = Story()
    first = story.posted("one", "hello")
    story.returned(first, text("hi"), text(" there"))
    story.completed(first)
    second = story.posted("two", "and now?")
    assert shown(story, second) == [
        {"role": "user", "content": [says("hello")]},
        {"role": "assistant", "content": [says("hi"), says(" there")]},
        {"role": "user", "content": [says("and now?")]},
    ]


def test_calls_come_back_with_their_results() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, text("look"), use("clock", "t1"), use("held", "t2", arguments={"a": 1}))
    story.tool_called(run, 0)
    story.tool_returned(run, 0, "ok", "noon")
    story.tool_called(run, 1)
    story.tool_returned(run, 1, "error", "broken")
    assert shown(story, run)[1:] == [
        {
            "role": "assistant",
            "content": [
                says("look"),
                {"type": "tool_use", "id": "t1", "name": "clock", "input": {}},
                {"type": "tool_use", "id": "t2", "name": "held", "input": {"a": 1}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "noon"},
                {"type": "tool_result", "tool_use_id": "t2", "content": "broken", "is_error": True},
            ],
        },
    ]


def test_a_call_without_a_result_gets_one_that_says_what_is_known() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use("a", "t1"), use("b", "t2"), use("c", "t3"))
    story.tool_called(run, 1)
    story.tool_called(run, 2)
    story.tool_returned(run, 2, "unknown", "whatever")
    story.cancelled(run)
    results = shown(story, story.posted("two"))[2]["content"][:3]
    assert [result["content"] for result in results] == [NOT_RUN, UNKNOWN_OUTCOME, UNKNOWN_OUTCOME]
    assert all(result["is_error"] for result in results)


def test_a_thought_goes_back_only_with_its_signature() -> None:
    story = Story()
    run = story.posted()
    story.returned(
        run, Block(kind="thought", text="plain"), Block(kind="thought", text="hm", signature="s"), text("hi")
    )
    story.completed(run)
    assert shown(story, story.posted("two"))[1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        says("hi"),
    ]


def test_what_a_cancelled_run_said_is_shown_and_a_run_that_said_nothing_is_a_question_more() -> None:
    story = Story()
    first = story.posted("one", "first")
    story.called(first)
    story.cancelled(first, text("half"))
    story.cancelled(story.posted("two", "second"))
    assert shown(story, story.posted("three", "third")) == [
        {"role": "user", "content": [says("first")]},
        {"role": "assistant", "content": [says("half")]},
        {"role": "user", "content": [says("second"), says("third")]},
    ]


def test_what_comes_after_the_run_or_before_a_clear_is_not_shown() -> None:
    story = Story()
    story.cancelled(story.posted("one", "before"))
    story.happened(f.ThreadCleared())
    run = story.posted("two", "now")
    story.posted("three", "later")
    assert shown(story, run) == [{"role": "user", "content": [says("now")]}]


def test_a_child_is_shown_its_question_alone() -> None:
    story = Story()
    parent = story.posted("one", "secret")
    story.happened(
        f.ChildStarted(
            run_id=f"{THREAD}.rchild",
            parent_run_id=parent.run_id,
            tool_call_id="t",
            agent_id="a",
            agent_version=1,
            text="inner",
        )
    )
    child = story.thread.runs[f"{THREAD}.rchild"]
    assert shown(story, child) == [{"role": "user", "content": [says("inner")]}]
    assert "inner" not in json.dumps(shown(story, parent))


def test_the_system_prompt_has_the_agents_the_workspaces_and_the_threads_words() -> None:
    seed = ThreadSeed(user_id="ann", system_prompt="Thread's.", context={"b": 1, "a": "ü"})
    story = Story(THREAD, f.ThreadCreated(seed=seed))
    run = story.posted("one", "x", system_append="Appended.")
    request = build_request(story.thread, run, SPEC, "Workspace's.", [{"name": "clock"}], 2)
    assert request.system.split("\n\n") == [
        "Be kind.",
        "Workspace's.",
        "Agent's.",
        "Thread's.",
        '<context>{"a": "ü", "b": 1}</context>',
        "Appended.",
    ]
    assert (request.max_tokens, request.temperature, request.tools) == (77, 0.5, [{"name": "clock"}])
    assert (request.question, request.turn, request.attempt) == ("x", 0, 2)
    replaced = story.posted("two", "x", system_prompt="Instead.")
    system = build_request(story.thread, replaced, SPEC, None, [], 1).system
    assert system.startswith("Instead.\n\nAgent's.") and "Be kind." not in system


def test_context_and_lead_context_go_before_the_question_as_data() -> None:
    story = Story()
    run = story.posted("one", "", context={"page": "ü"}, lead_context={"lead": 1})
    assert shown(story, run)[0]["content"] == [
        says('<context>{"page": "ü"}</context>'),
        says('<lead_context>{"lead": 1}</lead_context>'),
        says(" "),
    ]


def test_the_call_id_is_of_the_run_and_its_turn_and_not_of_the_attempt() -> None:
    story = Story()
    run = story.posted()
    ids = {build_request(story.thread, run, SPEC, None, [], attempt).call_id for attempt in (1, 2)}
    story.returned(run, use())
    story.tool_returned(run)
    later = build_request(story.thread, run, SPEC, None, [], 1)
    assert len(ids) == 1 and later.call_id not in ids and later.turn == 1


@settings(max_examples=80)
@given(journals())
def test_roles_alternate_and_every_call_has_its_result(journal: Journal) -> None:
    for run in journal.state.runs.values():
        messages = build_request(journal.state, run, SPEC, None, [], 1).messages
        assert [message["role"] for message in messages] == [
            ("user", "assistant")[place % 2] for place in range(len(messages))
        ]
        assert all(message["content"] for message in messages)
        for message, answer in zip(messages, [*messages, None][1:], strict=True):
            uses = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
            if uses:
                assert answer is not None and message["role"] == "assistant"
                results = [block["tool_use_id"] for block in answer["content"] if block["type"] == "tool_result"]
                assert results == uses
        asked = [block for message in messages for block in message["content"] if block["type"] == "tool_result"]
        used = [block for message in messages for block in message["content"] if block["type"] == "tool_use"]
        assert len(asked) == len(used)


REDACTED = {"type": "redacted_thinking", "data": "EmwK"}
OPAQUE = Block(kind="opaque", data=REDACTED)
SIGNED = Block(kind="thought", text="hm", signature="s")
THINKING = {"type": "thinking", "thinking": "hm", "signature": "s"}


def test_what_only_the_provider_understands_goes_back_in_its_place() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, OPAQUE, SIGNED, text("a"), OPAQUE, text("b"))
    story.completed(run)
    said = shown(story, story.posted("two"))[1]["content"]
    assert said == [REDACTED, THINKING, says("a"), REDACTED, says("b")]


def test_it_goes_back_to_the_model_that_said_it_and_to_no_other() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, OPAQUE, SIGNED, text("a"))
    story.completed(run)
    second = story.posted("two")
    other = SPEC.model_copy(update={"model": "another"})
    assert build_request(story.thread, second, other, None, [], 1).messages[1]["content"] == [says("a")]
    second.agent_id = "another"
    assert shown(story, second)[1]["content"] == [says("a")]
    second.agent_id, second.agent_version = run.agent_id, 2
    assert shown(story, second)[1]["content"] == [says("a")]


def test_an_answer_does_not_end_in_a_thought_unless_it_is_only_paused() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, text("a"), SIGNED, OPAQUE, stop="max_tokens")
    story.completed(run)
    assert shown(story, story.posted("two"))[1]["content"] == [says("a")]
    story = Story()
    run = story.posted()
    story.returned(run, text("a"), OPAQUE, stop="pause_turn")
    assert shown(story, run)[1]["content"] == [says("a"), REDACTED]
    story.cancelled(run)
    assert shown(story, story.posted("two"))[1]["content"] == [says("a")]


def test_what_was_begun_when_the_run_was_cancelled_is_not_sent_back_but_its_text_is() -> None:
    story = Story()
    run = story.posted()
    story.called(run)
    story.cancelled(run, OPAQUE, use("clock", "t1"), text("half"))
    assert shown(story, story.posted("two"))[1]["content"] == [says("half")]


def test_files_are_shown_by_reference_before_the_question() -> None:
    def file(name: str, content_type: str) -> Attachment:
        return Attachment(name=name, content_type=content_type, size=7, sha256="ab" * 32)

    story = Story()
    kinds = ("image/png", "application/pdf", "text/csv", "application/json", "image/svg+xml", "application/zip")
    run = story.posted("one", "look", attachments=tuple(file(f"f{n}", kind) for n, kind in enumerate(kinds)))
    content = shown(story, run)[0]["content"]
    assert [part["type"] for part in content] == ["image", "document", "document", "document", "text", "text", "text"]
    source = {"type": "object", "sha256": "ab" * 32, "media_type": "image/png", "name": "f0", "size": 7}
    assert content[0] == {"type": "image", "source": source}
    assert content[5] == says('[attached: "f5", application/zip, 7 bytes; read_attachment reads it]')
    assert content[6] == says("look")


def test_the_images_that_a_tool_made_are_shown_with_its_result() -> None:
    story = Story()
    run = story.posted()
    story.returned(run, use("draw", "t1"))
    story.tool_called(run)
    story.tool_returned(run)
    picture = Attachment(name="p.png", content_type="image/png", size=7, sha256="ab" * 32)
    run.turns[0].tools[0].files = (picture, picture.model_copy(update={"content_type": "text/csv"}))
    [result] = shown(story, run)[2]["content"]
    assert [part["type"] for part in result["content"]] == ["text", "image"]

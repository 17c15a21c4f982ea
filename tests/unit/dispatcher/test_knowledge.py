"""Documents: bounded, searched by every agent of the workspace, shown as data with the messages that name them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from pydantic import ValidationError

from parley_dispatcher import decide as decide_module
from parley_dispatcher.documents import Documents
from parley_dispatcher.history import History
from parley_dispatcher.prompt import build_request, documents_named
from parley_dispatcher.state import MAX_SHOWN_CHARS
from parley_dispatcher.tools import TOOLS, tools_of
from parley_events import commands as c
from parley_events import facts as f
from parley_events.documents import MAX_CHARS, MAX_TITLE, MOST_ATTACHED
from parley_events.reads import DocumentView
from tests.unit.dispatcher.story import STREAM, Story, code, text, workspace
from tests.unit.dispatcher.tools.test_everyday import Shelf, call_of
from tests.unit.dispatcher.world import ANN, WORKSPACE, agent, make_world, post

BARE = agent().model_copy(update={"tools": ()})
"""An agent that names no tool."""
ONE, TWO = "00000000-0000-4000-8000-0000000000d1", "00000000-0000-4000-8000-0000000000d2"


def add(name: str = ONE, text: str = "Refunds within 14 days.", **more: Any) -> c.AddKnowledge:
    return c.AddKnowledge(principal=ANN, knowledge_id=name, **{"title": "Policy", "text": text, **more})


def remove(name: str = ONE) -> c.RemoveKnowledge:
    return c.RemoveKnowledge(principal=ANN, knowledge_id=name)


# ---- what the commands mean


def test_a_document_is_added_once_removed_once_and_may_come_again() -> None:
    story = workspace()
    outcome = story.asked(add(content_type="text/markdown"), "c1")
    assert isinstance(outcome, f.KnowledgeAdded)
    assert (outcome.knowledge_id, outcome.title, outcome.text) == (ONE, "Policy", "Refunds within 14 days.")
    assert outcome.content_type == "text/markdown"
    assert code(story.asked(add(), "c2")) == "exists"
    assert code(story.asked(remove(TWO), "c3")) == "not_found"
    assert story.asked(remove(), "c4") == f.KnowledgeRemoved(knowledge_id=ONE)
    assert code(story.asked(remove(), "c5")) == "not_found"
    assert isinstance(story.asked(add(), "c6"), f.KnowledgeAdded)
    assert code(Story(STREAM).asked(add())) == "not_found", "there is no such workspace"


def test_a_workspace_holds_a_bounded_number_of_bounded_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_module, "MOST_DOCUMENTS", 2)
    monkeypatch.setattr(decide_module, "MOST_CHARS", 100)
    story = workspace()
    story.asked(add(ONE, "x" * 60), "c1")
    assert code(story.asked(add(TWO, "x" * 41), "c2")) == "too_large"
    story.asked(add(TWO, "x" * 40), "c3")
    story.asked(remove(ONE), "c4")
    third = "00000000-0000-4000-8000-0000000000d3"
    story.asked(add(third, "x"), "c5")
    assert code(story.asked(add(ONE, "x"), "c6")) == "too_large"


@pytest.mark.parametrize(
    "wrong",
    [
        {"knowledge_id": "../x"},
        {"title": ""},
        {"title": "x" * (MAX_TITLE + 1)},
        {"text": ""},
        {"text": "x" * (MAX_CHARS + 1)},
        {"content_type": "text/html"},
    ],
    ids=str,
)
def test_a_command_that_no_view_could_hold_is_none(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        c.AddKnowledge.model_validate({**add().model_dump(), **wrong})


def test_a_message_names_only_so_many_documents() -> None:
    with pytest.raises(ValidationError):
        post("x", knowledge_ids=(ONE,) * (MOST_ATTACHED + 1))
    with pytest.raises(ValidationError):
        post("x", knowledge_ids=("k",))


# ---- the tool


def test_every_agent_has_the_search_where_there_are_documents() -> None:
    nothing, everything = BARE, agent()
    assert "search_knowledge" not in tools_of(nothing)
    assert set(tools_of(nothing, documents=True)) == {"search_knowledge"}
    assert tools_of(everything) == tools_of(everything, documents=True) == TOOLS


async def test_the_search_gives_passages_with_their_documents(tmp_path: Path) -> None:
    shelf = Shelf()
    call = replace(call_of(tmp_path, shelf), workspace_id=WORKSPACE)
    tool = TOOLS["search_knowledge"]
    assert tool.effect == "read_only"
    found = json.loads((await tool.run(call, tool.arguments.model_validate({"query": "tea", "limit": 2}))).text)
    assert found == {"passages": [{"knowledge_id": "d", "title": "Tea é", "part": 3, "text": "Boil water."}]}
    assert shelf.asked == [(WORKSPACE, "tea", "2")]
    for wrong in ({}, {"query": ""}, {"query": "x" * 501}, {"query": "x", "limit": 0}, {"query": "x", "limit": 21}):
        with pytest.raises(ValidationError):
            tool.arguments.model_validate(wrong)


# ---- what a model is shown


def view(name: str, content: str, title: str = "Policy") -> DocumentView:
    return DocumentView(
        id=name, title=title, content_type="text/plain", characters=len(content), created_at="", content=content
    )


def shown(story: Story, run: Any, *documents: DocumentView) -> list[Any]:
    known = {document.id: document for document in documents}
    return build_request(story.thread, run, agent(), None, [], 1, known).messages


def test_a_document_is_data_before_the_message_that_names_it() -> None:
    story = Story()
    first = story.posted("one", "what does it say?", knowledge_ids=(ONE, TWO), lead_context={"lead": 7})
    story.returned(first, text("14 days"))
    story.completed(first)
    second = story.posted("two", "sure?")
    assert documents_named(story.thread, second) == (ONE, TWO)
    [question, _, again] = shown(story, second, view(ONE, "Refunds within 14 days."))
    assert question["content"] == [
        {"type": "text", "text": '<lead_context>{"lead": 7}</lead_context>'},
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "Refunds within 14 days."},
            "title": "Policy",
        },
        {"type": "text", "text": f"[the knowledge document {TWO} was attached here, and removed since]"},
        {"type": "text", "text": "what does it say?"},
    ]
    assert again["content"] == [{"type": "text", "text": "sure?"}]


def test_long_documents_are_cut_together_and_say_so() -> None:
    story = Story()
    run = story.posted(knowledge_ids=(ONE, TWO))
    long = view(ONE, "x" * (MAX_SHOWN_CHARS - 10), "Long")
    [question] = shown(story, run, long, view(TWO, "y" * 50, 'Sh"ort'))
    parts = question["content"]
    assert [len(part["source"]["data"]) for part in parts if part["type"] == "document"] == [MAX_SHOWN_CHARS - 10, 10]
    assert parts[2]["text"] == (
        '[the document "Sh\\"ort" goes on: 10 of its 50 characters are shown; search_knowledge finds the rest]'
    )


def test_what_was_cleared_is_not_asked_for() -> None:
    story = Story()
    first = story.posted("one", knowledge_ids=(ONE,))
    story.completed(first)
    story.happened(f.ThreadCleared(by="ann"))
    assert documents_named(story.thread, story.posted("two", knowledge_ids=(TWO,))) == (TWO,)


class Store:
    """History that has documents, and counts what it is asked."""

    def __init__(self) -> None:
        self.has = {ONE: "one", TWO: "two"}
        self.asked: list[str] = []
        self.client = History(("http://history",), "token", transport=httpx2.MockTransport(self._serve))

    def _serve(self, request: httpx2.Request) -> httpx2.Response:
        name = request.url.path.rpartition("/")[2]
        self.asked.append(f"{name[-2:]} {request.url.params.get('min_position', '')}")
        if name not in self.has:
            return httpx2.Response(404)
        return httpx2.Response(200, content=orjson.dumps(view(name, self.has[name]).model_dump()))


async def test_a_document_is_read_once_until_the_workspace_changes() -> None:
    store = Store()
    documents = Documents(store.client)
    for _ in range(2):
        found = await documents.named(WORKSPACE, 3, (ONE, TWO, ONE))
        assert {name: one.content for name, one in found.items()} == {ONE: "one", TWO: "two"}
    assert store.asked == [f"d1 ws:{WORKSPACE}@3", f"d2 ws:{WORKSPACE}@3"]
    del store.has[ONE]
    assert set(await documents.named(WORKSPACE, 3, (ONE, TWO))) == {ONE, TWO}
    assert set(await documents.named(WORKSPACE, 4, (ONE, TWO))) == {TWO}, "it was removed"


async def test_what_is_kept_of_documents_is_bounded() -> None:
    store = Store()
    documents = Documents(store.client, most_chars=5)
    for _ in range(2):
        await documents.named(WORKSPACE, 1, (ONE, TWO))
    assert len(store.asked) == 4, "both do not fit"
    await documents.named(WORKSPACE, 1, (TWO,))
    assert len(store.asked) == 4


async def test_an_agent_without_tools_searches_what_was_added_a_moment_ago(tmp_path: Path) -> None:
    """Also where its dispatcher had read the workspace before there was a document."""
    thread = "00000000-0000-4000-8000-0000000000aa"
    async with make_world(tmp_path, BARE) as world, world.dispatcher():
        await world.ask(STREAM, c.CreateWorkspace(principal=ANN, workspace_id=WORKSPACE, name="default"))
        await world.ask(thread, post("/show tools"))
        await world.read.ended(thread)
        await world.ask(STREAM, add())
        script = '/show tools\n/tool search_knowledge {"query": "14 days"}\n/show messages'
        await world.ask(thread, post(script, open_thread=False, workspace_seq=2, knowledge_ids=(ONE,)))
        await world.read.ended(thread, 2)
        await world.ask(STREAM, remove())
        await world.ask(thread, post("/show tools\n/show messages", open_thread=False, workspace_seq=3))
        await world.read.ended(thread, 3)
        told = world.read.of(thread, f.ModelReturned)
        [returned] = world.read.of(thread, f.ToolReturned)
    before, with_tool, after, gone = ["".join(block.text for block in turn.blocks) for turn in told]
    assert "search_knowledge" not in before and "search_knowledge" in with_tool
    assert returned.status == "ok" and "Refunds within 14 days." in returned.result
    assert '"document"' in after and "Refunds within 14 days." in after
    assert "removed since" in gone and '"document"' not in gone
    assert gone.startswith("[]"), "no document, no tool"

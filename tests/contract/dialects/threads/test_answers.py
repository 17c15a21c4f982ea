"""Every request of `threads` that is not a stream: its command, and its answer byte for byte."""

from __future__ import annotations

import base64
from pathlib import Path

from parley_events.body import Block
from tests.contract.dialects.transcript import Stage, Transcript
from tests.unit.gateway.world import World, run_id_of, say, tool_block

BASE = "/api/v1/chat"
PAGES = Path(__file__).parent / "transcripts"


async def test_threads_are_made_listed_changed_and_deleted(here: World) -> None:
    made = Transcript(here)
    made.note("a thread with everything")
    whole = {
        "agent_id": "scripted",
        "title": "Plans",
        "system_prompt": "Be brief.",
        "context": {"brand": "Acme"},
        "metadata": {"tags": ["a", "é😀"]},
        "a field that nobody knows": 1,
    }
    thread = (await made.ask("POST", f"{BASE}/threads", body=whole)).json()["id"]
    made.note("an open one, without a body at all")
    await made.ask("POST", f"{BASE}/threads")
    made.note("the agent by its UUID: answered as it was asked")
    uuid = (await here.core.workspaces.get(here.settings.workspace_id)).agents["assistant"].uuid
    await made.ask("POST", f"{BASE}/threads", body={"agent_id": uuid})
    made.note("under an idempotency key, twice, and with another body")
    for title in ("one", "one", "two"):
        await made.ask("POST", f"{BASE}/threads", body={"title": title}, headers={"Idempotency-Key": "k"})
    await made.ask("GET", f"{BASE}/threads/{thread}")
    made.note("renamed, pinned, archived, with other metadata; then the title is taken away; then nothing")
    changes = {"title": "Old plans", "pinned": True, "archived": True, "metadata": {}}
    await made.ask("PATCH", f"{BASE}/threads/{thread}", body=changes)
    await made.ask("PATCH", f"{BASE}/threads/{thread}", body={"title": None})
    await made.ask("PATCH", f"{BASE}/threads/{thread}", body={})
    await made.ask("PATCH", f"{BASE}/threads/{thread}", body={"pinned": None})
    made.note("archived threads are hidden, or shown alone")
    await made.ask("GET", f"{BASE}/threads?agent_id=scripted")
    await made.ask("GET", f"{BASE}/threads?archived=true")
    await made.ask("GET", f"{BASE}/threads?user_id=bob")
    made.note("deleted, then gone")
    await made.ask("DELETE", f"{BASE}/threads/{thread}")
    await made.ask("GET", f"{BASE}/threads/{thread}")
    await made.ask("DELETE", f"{BASE}/threads/{thread}")
    await made.ask("PATCH", f"{BASE}/threads/{thread}", body={"title": "x"})
    await made.ask("POST", f"{BASE}/threads/{thread}/messages", body={"content": "hi"})
    made.compare(PAGES / "threads.txt")


async def test_messages_are_posted_waited_for_and_read(here: World) -> None:
    here.dispatcher.play = say("Hello ", "world")
    made = Transcript(here)
    thread = (await made.ask("POST", f"{BASE}/threads", body={})).json()["id"]
    messages = f"{BASE}/threads/{thread}/messages"
    made.note("accepted at once")
    whole = {"content": "hi", "agent_id": "scripted", "lead_context": {"lead": 7}, "metadata": {"a": 1}}
    posted = await made.ask("POST", messages, body=whole)
    made.note("waited for; under a key, and again")
    for _ in range(2):
        key = {"Idempotency-Key": "k"}
        await made.ask("POST", f"{messages}?wait=20", body={"content": "hi again"}, headers=key)
    made.note("under the same key with another body")
    await made.ask("POST", messages, body={"content": "other"}, headers={"Idempotency-Key": "k"})
    made.note("read: both directions, a page, the run, its facts")
    await made.ask("GET", messages)
    await made.ask("GET", f"{messages}?order=desc&limit=1")
    run = posted.json()["run_id"]
    await made.ask("GET", f"{BASE}/runs/{run}")
    await made.ask("GET", f"{BASE}/runs/{run}/events", headers={"Accept": "application/json"})
    page = await made.ask("GET", f"{BASE}/threads/{thread}/events?limit=2", headers={"Accept": "application/json"})
    cursor = page.json()["next_cursor"]
    await made.ask(
        "GET", f"{BASE}/threads/{thread}/events?limit=2&cursor={cursor}", headers={"Accept": "application/json"}
    )
    made.compare(PAGES / "messages.txt")


async def test_two_at_once_are_queued_and_a_run_is_cancelled(here: World) -> None:
    stage = Stage(here)
    made = Transcript(here)
    thread = (await made.ask("POST", f"{BASE}/threads", body={"agent_id": "scripted"})).json()["id"]
    messages = f"{BASE}/threads/{thread}/messages"
    await made.ask("POST", messages, body={"content": "one"})
    made.note("a second one waits for the first")
    second = await made.ask("POST", f"{messages}?wait=0", body={"content": "two"})
    first = await stage.posted()
    made.note("the queued one ends at once; the one that runs is told to stop")
    await made.ask("POST", f"{BASE}/runs/{second.json()['run_id']}/cancel", body={})
    await made.ask("POST", f"{BASE}/runs/{run_id_of(first)}/cancel", headers={"Idempotency-Key": "c"})
    made.note("what has ended is answered as it is; a repeated cancel says what became of it")
    await made.ask("POST", f"{BASE}/runs/{second.json()['run_id']}/cancel")
    call = here.dispatcher.called(first)
    here.dispatcher.cancelled(first, call, Block(kind="text", text="so far"))
    end = here.dispatcher.state(thread).seq
    await made.ask("GET", f"{BASE}/runs/{run_id_of(first)}?min_position={thread}@{end}")
    await made.ask("POST", f"{BASE}/runs/{run_id_of(first)}/cancel", headers={"Idempotency-Key": "c"})
    await made.ask("GET", messages)
    made.compare(PAGES / "cancel.txt")


async def test_a_run_that_fails_says_why(here: World) -> None:
    stage = Stage(here)
    made = Transcript(here)
    thread = (await made.ask("POST", f"{BASE}/threads", body={"agent_id": "scripted"})).json()["id"]
    run = (await made.ask("POST", f"{BASE}/threads/{thread}/messages", body={"content": "hi"})).json()["run_id"]
    posted = await stage.posted()
    call = here.dispatcher.called(posted)
    here.dispatcher.returned(posted, call, Block(kind="text", text="I try. "), tool_block("clock", call, {}))
    here.dispatcher.use(posted, call, "clock", {}, "no battery", status="error")
    again = here.dispatcher.called(posted, turn=1)
    here.dispatcher.failed(posted, again, retry=False)
    here.dispatcher.ended(posted, "cut", "the stream broke")
    end = here.dispatcher.state(thread).seq
    await made.ask("GET", f"{BASE}/runs/{run}?min_position={thread}@{end}")
    await made.ask("GET", f"{BASE}/threads/{thread}/events", headers={"Accept": "application/json"})
    made.compare(PAGES / "failed.txt")


async def test_what_comes_later_is_said_to(here: World) -> None:
    made = Transcript(here)
    thread = (await made.ask("POST", f"{BASE}/threads", body={"agent_id": "scripted"})).json()["id"]
    messages = f"{BASE}/threads/{thread}/messages"
    await made.ask("POST", messages, body={"content": "hi", "on_busy": "merge"})
    made.compare(PAGES / "later.txt")


async def test_documents_are_added_attached_read_and_removed(here: World) -> None:
    here.dispatcher.play = say("Within 14 days.")
    made = Transcript(here)
    made.note("as text, and under an idempotency key, twice and with another text")
    policy = {"title": "Refund policy", "content": "Refunds within 14 days.", "content_type": "text/markdown"}
    one = (await made.ask("POST", "/api/v1/knowledge", body=policy)).json()["id"]
    for text in ("Übermorgen.", "Übermorgen.", "Heute."):
        asked = {"title": "Wann?", "content_base64": base64.b64encode(text.encode()).decode()}
        await made.ask("POST", "/api/v1/knowledge", body=asked, headers={"Idempotency-Key": "k"})
    made.note("listed, newest first, without contents; one with its content")
    await made.ask("GET", "/api/v1/knowledge")
    await made.ask("GET", f"/api/v1/knowledge/{one}")
    made.note("attached to a message, with a lead; kept with it")
    thread = (await made.ask("POST", f"{BASE}/threads", body={"agent_id": "scripted"})).json()["id"]
    message = {"content": "When?", "knowledge_ids": [one], "lead_context": {"lead": "Ada", "score": 7}}
    await made.ask("POST", f"{BASE}/threads/{thread}/messages?wait=20", body=message)
    await made.ask("GET", f"{BASE}/threads/{thread}/messages?limit=1")
    made.note("refused")
    for wrong in ({"title": "t"}, {"title": "t", "content": "c", "content_type": "text/html"}, {"content": "c"}):
        await made.ask("POST", "/api/v1/knowledge", body=wrong)
    for ids in (["k"], [f"{n}" for n in range(11)]):
        await made.ask("POST", f"{BASE}/threads/{thread}/messages", body={"content": "hi", "knowledge_ids": ids})
    made.note("removed, then gone")
    await made.ask("DELETE", f"/api/v1/knowledge/{one}")
    await made.ask("DELETE", f"/api/v1/knowledge/{one}")
    await made.ask("GET", f"/api/v1/knowledge/{one}")
    await made.ask("PUT", "/api/v1/knowledge", body={})
    made.compare(PAGES / "knowledge.txt")

"""`?as_of=`: a thread, its messages and its runs as they were at a fact, or at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.clock import parse_rfc3339, rfc3339
from tests.support.asgi import Exchange, ask
from tests.unit.gateway.world import World

BASE = "/api/v1/chat"


async def get(here: World, path: str, as_of: object, key: str | None = None) -> Exchange:
    return await ask(here.gateways[0][0], "GET", BASE + path, key=key or here.key, params={"as_of": str(as_of)})


async def story(here: World) -> dict[str, Any]:
    """A thread with a run that has ended, and another title since."""
    app = here.gateways[0][0]
    body = {"agent_id": "scripted", "title": "before"}
    thread = (await ask(app, "POST", f"{BASE}/threads", key=here.key, body=body)).json()
    path = f"{BASE}/threads/{thread['id']}"
    said = await ask(app, "POST", f"{path}/messages", key=here.key, body={"content": "hi"}, params={"wait": "5"})
    await ask(app, "PATCH", path, key=here.key, body={"title": "after"})
    return {**said.json(), "thread": f"/threads/{thread['id']}", "run": f"/runs/{said.json()['run']['id']}"}


async def test_a_thread_its_messages_and_a_run_are_what_they_were_at_a_fact(here: World) -> None:
    made = await story(here)
    facts = here.dispatcher.written[made["thread_id"]]
    last = len(facts)
    assert (await get(here, made["thread"], last)).json()["title"] == "after"
    assert (await get(here, made["thread"], last - 1)).json()["title"] == "before"
    assert (await get(here, made["thread"], 1)).json()["message_count"] == 0
    assert (await get(here, made["thread"] + "/messages", 1)).json()["items"] == []
    [question] = (await get(here, made["thread"] + "/messages", 2)).json()["items"]
    assert question["content"] == "hi"
    assert len((await get(here, made["thread"] + "/messages", last)).json()["items"]) == 2
    assert (await get(here, made["run"], 2)).json()["status"] == "running"
    assert (await get(here, made["run"], last)).json()["status"] == "completed"
    assert (await get(here, made["run"], 1)).status == 404


async def test_at_a_time_it_is_what_had_been_said_by_then(here: World) -> None:
    made = await story(here)
    born = (await get(here, made["thread"], 1)).json()["created_at"]
    assert (await get(here, made["thread"], born)).status == 200
    long_ago = rfc3339(parse_rfc3339(born) - 60_000)
    for path in ("", "/messages"):
        early = await get(here, made["thread"] + path, long_ago)
        assert (early.status, early.json()["error"]) == (404, "not_found")
    assert (await get(here, made["run"], long_ago)).status == 404
    assert (await get(here, made["thread"], "2999-01-01T00:00:00+01:00")).json()["title"] == "after"


async def test_a_seq_that_is_not_there_yet_is_said_to_be(here: World) -> None:
    made = await story(here)
    ahead = len(here.dispatcher.written[made["thread_id"]]) + 1
    for path in (made["thread"], made["thread"] + "/messages", made["run"]):
        found = await get(here, path, ahead)
        assert (found.status, found.json()["error"]) == (400, "as_of_ahead"), path


async def test_a_fact_that_the_log_has_and_the_view_does_not_yet_is_waited_for(here: World) -> None:
    made = await story(here)
    here.past.held.clear()
    here.dispatcher.append(made["thread_id"], f.ThreadUpdated(title="newest", changes=("title",)))
    newest = len(here.dispatcher.written[made["thread_id"]])
    before = len(here.past.asked)
    asked = asyncio.create_task(get(here, made["thread"], newest))
    # The thread as it is, then as it was, and then as it was once the view has come to the log's end.
    await here.eventually(lambda: len(here.past.asked) >= before + 3)
    here.past.held.set()
    found = await asked
    assert (found.status, found.json()["title"]) == (200, "newest")


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "-1", "1.5", "9" * 16, "٣", "soon", "now", "2026-04-20", "2026-04-20T14:30:00", "20260420T143000Z"),
        *("2026-13-20T14:30:00Z", "2026-04-20T14:30:00+99:99", "0000-01-01T00:00:00Z", "2026-W17-1T14:30:00Z"),
    ],
)
async def test_what_is_neither_a_seq_nor_a_time_is_refused(here: World, text: str) -> None:
    made = await story(here)
    for path in (made["thread"], made["thread"] + "/messages", made["run"]):
        found = await get(here, path, text)
        assert (found.status, found.json()["error"]) == (400, "bad_as_of"), (path, text)


async def test_what_was_deleted_or_is_somebody_elses_is_not_there_at_any_time(here: World) -> None:
    made = await story(here)
    app = here.gateways[0][0]
    body = {"user": "bob", "scopes": ["*"]}
    bob = (await ask(app, "POST", "/api/v1/keys", key=here.admin_key, body=body)).json()["key"]
    for path in (made["thread"], made["thread"] + "/messages", made["run"]):
        assert (await get(here, path, 2, key=bob)).status == 404
    await ask(app, "DELETE", BASE + made["thread"], key=here.key)
    for path in (made["thread"], made["thread"] + "/messages", made["run"]):
        assert (await get(here, path, 2)).status == 404

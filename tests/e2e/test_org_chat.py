"""The contract `org_chat`, end to end on both kinds of system."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

from tests.support.pages import outputs
from tests.support.system import System, collect, eventually

BASE = "/api/org/chat"


def node(system: System) -> dict[str, str]:
    return {"structure_id": system.ready()["workspace_id"], "role_id": "scripted"}


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    stream, resumed, polled, files, read = outputs(standalone, "org-chat.md", tmp_path)
    frames = [json.loads(data) for data in re.findall(r"^data: (.*)", stream, re.MULTILINE)]
    types = [frame["type"] for frame in frames]
    assert set(types) == {"thought", "tool_call", "tool_result", "text", "decision", "milestone", "complete"}
    assert (types[0], types[-1]) == ("thought", "complete")
    assert frames[-1]["content"] == {"summary": "Launched.", "artifacts": []}
    rest = [json.loads(data) for data in re.findall(r"^data: (.*)", resumed, re.MULTILINE)]
    facts = [[one for one in some if one["type"] not in ("text", "thought")] for some in (rest, frames)]
    assert 1 < len(facts[0]) < len(facts[1]) and facts[0] == facts[1][-len(facts[0]) :], "what comes after the id"
    short, later = json.JSONDecoder().raw_decode(polled)
    assert short["summary"] == "Short." and [event["type"] for event in short["events"]] == ["text", "complete"]
    assert json.loads(polled[later:])["summary"] == "0000 0001 0002 0003 0004 "
    assert '"artifacts":["campaign.json"]' in files and "Buy tea." in files and files.endswith("[1, 2, 3]")
    answer, at = json.JSONDecoder().raw_decode(read)
    assert [row["role"] for row in answer] == ["assistant", "user"] and answer[0]["content"] == "Saved."
    link, _, log = read[at:].strip().partition("\n")
    assert "include=events" in link and 'rel="next"' in link
    # Both tools were at work at once.
    assert {entry["type"] for entry in json.loads(log)[:2]} == {"milestone", "decision"}


async def test_events_come_in_the_pages_words(system: System) -> None:
    script = "\n".join(
        (
            "/think Looking up skills.",
            '/tool list_skills {"query": "launch campaign"}',
            "/text I'll run it. ",
            '/tool record_decision {"title": "Go", "body": "We go."}',
            '/tool flag_milestone {"title": "Launched"}',
            f'/tool learn_skill {{"slug": "s-{uuid.uuid4().hex[:6]}", "name": "Launching", "body": "Do it."}}',
            "/text Launched 3 campaigns",
        )
    )
    async with system.client() as client:
        frames = await collect(client, "POST", f"{BASE}/message", json={**node(system), "message": script})
        types = [frame.type for frame in frames]
        assert types[-1] == "complete"
        assert types.count("complete") + types.count("error") == 1
        assert {"thought", "text", "tool_call", "tool_result", "decision", "milestone", "skill_learned"} <= set(types)
        for frame in frames:
            assert set(frame.data) >= {"type", "content", "timestamp"}
            assert isinstance(frame.data["content"], str) == (frame.type in ("thought", "text"))
        assert frames[-1].data["content"] == {"summary": "Launched 3 campaigns", "artifacts": []}
        assert "".join(f.data["content"] for f in frames if f.type == "text") == "I'll run it. Launched 3 campaigns"
        decision = next(f.data["content"] for f in frames if f.type == "decision")
        assert decision["title"] == "Go" and decision["body"] == "We go."

        async def logged() -> bool:
            answer = await client.get("/api/org/log", params={"structure_id": node(system)["structure_id"]})
            assert answer.status_code == 200, answer.text
            return {"decision", "milestone"} <= {entry["type"] for entry in answer.json()}

        await eventually(logged)


async def test_sync_gives_the_events_and_history_both_sides(system: System) -> None:
    async with system.client() as client:
        marker = uuid.uuid4().hex
        answer = await client.post(f"{BASE}/message/sync", json={**node(system), "message": f"/text {marker} one two"})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["summary"] == f"{marker} one two"
        assert body["artifacts"] == []
        assert [e["type"] for e in body["events"]] == ["text", "complete"]

        async def kept() -> list[dict[str, str]]:
            rows = (await client.get(f"{BASE}/history", params={**node(system), "limit": "2"})).json()
            return rows if rows and rows[0]["content"] == f"{marker} one two" else []

        rows = await eventually(kept)
        assert [row["role"] for row in rows] == ["assistant", "user"]
        assert rows[1]["author"]["kind"] == "user" and rows[0]["author"]["kind"] == "agent"


async def test_a_failed_run_is_an_error_event(system: System) -> None:
    async with system.client() as client:
        frames = await collect(client, "POST", f"{BASE}/message", json={**node(system), "message": "/error 400"})
        assert frames[-1].type == "error"
        assert frames[-1].data["content"]["code"] == "model_400"
        sync = (await client.post(f"{BASE}/message/sync", json={**node(system), "message": "/error 401"})).json()
        assert sync["summary"] is None
        assert sync["events"][-1]["type"] == "error"


async def test_a_wait_that_is_too_short_can_be_polled(system: System) -> None:
    async with system.client() as client:
        answer = await client.post(
            f"{BASE}/message/sync", params={"wait": "0"}, json={**node(system), "message": "/stream 20 20"}
        )
        assert answer.status_code == 202, answer.text
        poll = answer.json()["poll_url"]

        async def done() -> dict[str, object] | None:
            polled = await client.get(poll)
            return polled.json() if polled.status_code == 200 else None

        assert (await eventually(done))["summary"] == "".join(f"{i:04d} " for i in range(20))


async def test_nodes_that_are_not_there_are_refused(system: System) -> None:
    async with system.client() as client:
        for changes, status in (
            ({"structure_id": "nonsense"}, 400),
            ({"structure_id": str(uuid.uuid4())}, 404),
            ({"role_id": "nobody"}, 404),
        ):
            answer = await client.post(f"{BASE}/message", json={**node(system), "message": "hi", **changes})
            assert answer.status_code == status, answer.text
            assert set(answer.json()["error"]) >= {"code", "message"}
        assert (await client.post(f"{BASE}/message", json={**node(system)})).status_code == 400
        json.loads((await client.get(f"{BASE}/history", params=node(system))).text)

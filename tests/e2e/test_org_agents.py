"""The contract `org_agents`, end to end on both kinds of system."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from tests.support.pages import outputs
from tests.support.system import System, collect, eventually, start, stop

CHAT = "/api/v3/organizations/default/ai/agents/scripted/chat"
SCRIPT = '/text Let me count. \n/tool calculator {"expression": "6 * 7"}\n/text It is 42.'


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    asked, stream, polled, sessions = outputs(standalone, "org-agents.md", tmp_path)
    response = json.loads(asked)["response"]
    assert (response["text"], response["stopReason"]) == ("It is 42.", "end_turn")
    assert [(item["name"], item["isError"]) for item in response["toolResults"]] == [("calculator", False)]
    assert stream.count('"type":"start"') == 1, "what comes after the first frame"
    assert stream.count('"type":"complete"') == 2
    assert polled.count('"status":"complete"') == 3 and "Later." in polled
    _, once, again, refused = sessions.replace("}{", "}\n{").split("\n")
    for found in map(json.loads, (once, again)):
        assert found["userId"] == "kim"
        assert [m["content"] for m in found["messages"] if m["role"] == "assistant"] == ["One.", "Two."]
    assert json.loads(again)["agentId"] == "scripted", "as it was asked for"
    assert json.loads(refused)["error"]["code"] == "not_found"


async def test_one_run_in_every_mode_and_through_three_contracts(system: System) -> None:
    """Begun here to be polled, streamed through the native contract at another gateway, fetched through a third."""
    marker = uuid.uuid4().hex
    async with system.client() as client, system.client(-1) as other:
        body = {"message": f"{SCRIPT}\n/text {marker}", "async": True, "stream": True}
        later = await client.post(CHAT, json=body, headers={"Idempotency-Key": marker})
        assert later.status_code == 202, later.text
        run, session = later.json()["requestId"], later.json()["sessionId"]
        native = await collect(other, "GET", f"/api/v1/chat/runs/{run}/events")
        frames = await collect(other, "GET", later.json()["eventsUrl"])
        assert [frames[0].type, frames[-1].type] == ["start", "complete"]
        text = "".join(frame.data["text"] for frame in frames if frame.type == "text")
        assert text == f"Let me count. It is 42.{marker}"
        assert "".join(f.data["delta"] for f in native if f.type == "text.delta") == text
        polled = (await other.get(later.json()["pollUrl"])).json()
        assert polled["status"] == "complete" and polled["response"] == frames[-1].data["response"]
        assert polled["response"]["usage"]["inputTokens"] > 0
        # The same request, in the usual mode: the same run and its answer.
        again = await other.post(CHAT, json={"message": body["message"]}, headers={"Idempotency-Key": marker})
        assert again.json() == {"sessionId": session, "response": polled["response"]}
        assert again.headers["idempotency-replayed"] == "true"
        rows = (await other.get("/api/agents/scripted/chat", params={"conversation_id": session})).json()["messages"]
        assert [row["content"] for row in rows] == [body["message"], text]


async def test_nobody_is_asked_while_the_client_waits(system: System) -> None:
    """What needs an approval, or the client, gives an error result; a run that is polled waits for the approval."""
    script = '/tool publish {"text": "hello"}\n/tool get_weather {"location": "Tokyo"}\n/text Done.'
    async with system.client() as client:
        response = (await client.post(CHAT, json={"message": script})).json()["response"]
        assert response["text"] == "Done."
        assert [(item["name"], item["isError"]) for item in response["toolResults"]] == [
            ("publish", True),
            ("get_weather", True),
        ]
        later = (await client.post(CHAT, json={"message": script, "async": True})).json()

        async def asked() -> Any:
            return (await client.get(later["pollUrl"])).json().get("approval")

        approval = await eventually(asked)
        assert (approval["tool"], approval["input"]) == ("publish", {"text": "hello"})
        answered = await client.post(f"/api/v1/chat/approvals/{approval['id']}", json={"decision": "approve"})
        assert answered.status_code == 200, answered.text

        async def complete() -> Any:
            polled = (await client.get(later["pollUrl"])).json()
            return polled["status"] == "complete" and polled

        polled = await eventually(complete)
        assert "approval" not in polled
        assert {item["name"]: item["isError"] for item in polled["response"]["toolResults"]} == {
            "publish": False,
            "get_weather": True,
        }


async def test_a_session_in_which_nothing_happens_expires_and_its_history_stays(tmp_path: Path) -> None:
    system = start("up", tmp_path, PARLEY_SESSION_IDLE_S="1")
    try:
        async with system.client() as client:
            session = (await client.post(CHAT, json={"message": "/text hi"})).json()["sessionId"]
            events = f"/api/v1/chat/threads/{session}/events"

            async def expired() -> bool:
                page = (await client.get(events, headers={"Accept": "application/json"})).json()
                return bool(page["items"][-1]["type"] == "thread.expired")

            await eventually(expired)
            late = await client.post(CHAT, json={"message": "/text late", "sessionId": session})
            assert (late.status_code, late.json()["error"]["code"]) == (404, "session_expired")
            kept = (await client.get(f"/api/v3/organizations/default/ai/sessions/{session}")).json()
            assert [message["content"] for message in kept["messages"]] == ["/text hi", "hi"]
    finally:
        assert stop(system) == 0

"""The lines of `docs/runs.md`, as they stand; and answers and cancels through another gateway than the one that was
asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import outputs
from tests.support.system import System, collect, eventually, new_thread, stream

CHAT = "/api/v1/chat"
BOTH = '/tool publish {"text": "Rain."}\n/tool get_weather {"location": "Tokyo"}\n/text It is out.'


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    _, asked, answered, client, stopped, settled = outputs(standalone, "runs.md", tmp_path)
    assert json.loads(asked)["tool_call"]["arguments"] == {"text": "Rain in Tokyo."}
    approval, end = json.JSONDecoder().raw_decode(answered.strip())
    assert (approval["status"], approval["comment"], approval["arguments"]) == (
        "approved",
        "shorter",
        {"text": "Rain."},
    )
    order = ["approval.requested", "run.waiting", "approval.answered", "tool.called", "tool.returned", "run.completed"]
    assert [kind for kind in re.findall(r'"type":"([a-z.]*)"', answered.strip()[end:]) if kind in order] == order
    told = json.loads(client)
    assert (told["run"]["status"], told["message"]["content"]) == ("completed", "Now I know.")
    run, thread, many = map(json.loads, stopped.replace("}{", "}\n{").strip().splitlines())
    assert run["status"] == "cancelled" and run["ended_at"] is not None
    assert (thread["cancelled"], many) == ([], {"cancelled": [], "more": False})
    assert json.loads(settled)["error"] == "not_open"


async def test_several_are_answered_one_by_one_and_the_stream_shows_all_of_it(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client, "scripted")
        body = {"content": BOTH}
        seen: list[str] = []
        async with stream(client, "POST", f"{CHAT}/threads/{thread}/messages", json=body) as (_, frames):
            facts: dict[str, Any] = {}
            async for frame in frames:
                seen.append(frame.type)
                facts[frame.type] = frame.data
                if frame.type == "run.waiting":
                    break
            approval, call = facts["approval.requested"], facts["tool.called"]["tool_call"]
            assert facts["run.waiting"]["waits_for"] == "approval"
            assert set(facts["run.waiting"]["pending"]) == {approval["tool_call"]["id"], call["id"]}
            run = approval["run_id"]
            shown = await client.get(
                f"{CHAT}/runs/{run}", params={"min_position": f"{thread}@{facts['run.waiting']['seq']}"}
            )
            assert shown.json()["status"] == "waiting"
            given = await client.post(f"{CHAT}/runs/{run}/tools/{call['id']}", json={"content": "21 °C"})
            assert (given.status_code, given.json()["pending"]) == (202, []), given.text
            path = f"{CHAT}/approvals/{approval['approval_id']}"
            denied = await client.post(path, json={"decision": "deny", "comment": "not today"})
            assert (denied.status_code, denied.json()["status"]) == (200, "denied"), denied.text
            async for frame in frames:
                seen.append(frame.type)
                facts[frame.type] = frame.data
        assert seen[-1] == "run.completed"
        returned = facts["tool.returned"]["tool_call"]
        assert returned["status"] == "denied" and "not today" in returned["result"]
        again = await client.post(path, json={"decision": "approve"})
        assert (again.status_code, again.json()["error"]) == (409, "not_open")
        late = await client.post(f"{CHAT}/runs/{run}/tools/{call['id']}", json={"content": "22 °C"})
        assert (late.status_code, late.json()["error"]) == (409, "not_open")
        whole = await collect(client, "GET", f"{CHAT}/runs/{run}/events")
        assert [frame.type for frame in whole if ".delta" not in frame.type] == [k for k in seen if ".delta" not in k]


async def test_a_parked_run_and_the_one_behind_it_are_stopped_with_their_thread(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client, "scripted")
        first = (await client.post(f"{CHAT}/threads/{thread}/messages", json={"content": BOTH})).json()["run_id"]

        async def waits() -> bool:
            return bool((await client.get(f"{CHAT}/runs/{first}")).json()["status"] == "waiting")

        await eventually(waits)
        posted = await client.post(f"{CHAT}/threads/{thread}/messages", json={"content": "/text next"})
        assert posted.json()["status"] == "queued"
        second = posted.json()["run_id"]
        stopped = await client.post(f"{CHAT}/threads/{thread}/cancel", params={"wait": "20"})
        assert (stopped.status_code, set(stopped.json()["cancelled"])) == (200, {first, second}), stopped.text
        position = {"min_position": stopped.json()["position"]}
        for run in (first, second):
            assert (await client.get(f"{CHAT}/runs/{run}", params=position)).json()["status"] == "cancelled"
        listed = await client.get(f"{CHAT}/approvals", params={"thread_id": thread, **position})
        assert [item["status"] for item in listed.json()["items"]] == ["closed"]
        answer = await client.post(
            f"{CHAT}/threads/{thread}/messages", params={"wait": "30"}, json={"content": "/text Still here."}
        )
        assert answer.json()["message"]["content"] == "Still here.", answer.text


async def test_a_message_closes_what_only_the_client_was_waited_for(standalone: System) -> None:
    async with standalone.client() as client:
        thread = await new_thread(client, "scripted")
        path = f"{CHAT}/threads/{thread}/messages"
        content = '/tool get_weather {"location": "Tokyo"}\n/text Without it, then.'
        first = await client.post(path, json={"content": content}, params={"wait": "20"})
        assert (first.status_code, first.json()["waits_for"]) == (202, "client_tool"), "it is the client's turn"
        [call] = first.json()["pending"]
        second = await client.post(path, json={"content": "/text Never mind."}, params={"wait": "30"})
        assert second.json()["message"]["content"] == "Never mind.", second.text
        run = (await client.get(f"{CHAT}/runs/{first.json()['run_id']}")).json()
        assert run["status"] == "completed"
        messages = (await client.get(path, params={"limit": "50"})).json()["items"]
        [asked] = [one["tool_calls"][0] for one in messages if one["tool_calls"]]
        assert (asked["id"], asked["status"], asked["is_error"]) == (call, "error", True)
        answers = [one["content"] for one in messages if one["role"] == "assistant"]
        assert answers == ["Without it, then.", "Never mind."]


@pytest.mark.parametrize("edited", [{"text": 7}, {}])
async def test_arguments_that_do_not_fit_answer_nothing(standalone: System, edited: dict[str, Any]) -> None:
    async with standalone.client() as client:
        thread = await new_thread(client, "scripted")
        content = '/tool publish {"text": "Rain."}'
        await client.post(f"{CHAT}/threads/{thread}/messages", json={"content": content})

        async def asked() -> Any:
            found = await client.get(f"{CHAT}/approvals", params={"thread_id": thread, "status": "open"})
            return found.json()["items"]

        [approval] = await eventually(asked)
        path = f"{CHAT}/approvals/{approval['id']}"
        refused = await client.post(path, json={"decision": "approve", "arguments": edited})
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid"), refused.text
        assert (await client.get(path)).json()["status"] == "open"
        assert (await client.post(path, json={"decision": "deny"})).status_code == 200

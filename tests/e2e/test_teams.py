"""Teams, end to end: every mode, a takeover in the middle of a round, a member that waits, a team that is stopped."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from parley_events.partition import partition_of
from tests.support.processes import kill
from tests.support.sse import Frame
from tests.support.system import System, collect, eventually, stream
from tests.support.topics import owner_pid, read_topic

WHOLE = "".join(f"{i:04d} " for i in range(40)) + "end"
SCRIPT = "/stream 40 25\n/text end"


@asynccontextmanager
async def team_of(system: System, *names: str, **more: Any) -> AsyncIterator[tuple[httpx2.AsyncClient, str, list[str]]]:
    """A client, the path of a team of its own, and the ids of its members. `more`: of each member."""
    marker = uuid.uuid4().hex[:8]
    members = [f"{name}-{marker}" for name in names]
    async with system.client(key=system.ready()["admin_key"]) as admin, system.client() as client:
        for member in members:
            agent = {"id": member, "name": member.title(), "model": "scripted", "tools": ["*"], **more}
            assert (await admin.post("/api/v1/agents", json=agent)).status_code == 201
        body = {"id": f"team-{marker}", "name": "Team", "members": members, "lead": members[-1]}
        assert (await admin.post("/api/v1/teams", json=body)).status_code == 201
        yield client, f"/teams/team-{marker}", members


def said(frames: list[Frame], member: str) -> str:
    return "".join(f.data["content"] for f in frames if f.type == "text" and f.data["agent_id"] == member)


async def test_a_team_answers_in_each_mode(system: System) -> None:
    async with team_of(system, "ada", "bob") as (client, team, members):
        for mode, shown in (("brainstorm", [0, 0]), ("sequential", [0, 1]), ("debate", [2, 2])):
            conversation = (await client.post(f"{team}/chat", json={"message": "/text hi"})).json()["conversation_id"]
            body = {"message": "/text Mine.\n/show messages", "mode": mode, "conversation_id": conversation}
            answer = (await client.post(f"{team}/chat", json=body)).json()
            assert (answer["mode"], answer["conversation_id"]) == (mode, conversation)
            assert [one["agent_id"] for one in answer["responses"]] == members
            # What each was shown of this message: the answers of the others stand before the question.
            found = [json.loads(one["content"].removeprefix("Mine."))[-1]["content"] for one in answer["responses"]]
            assert [len(_answers(blocks)) for blocks in found] == shown
            summed = json.loads(answer["summary"].removeprefix("Mine."))[-1]["content"]
            assert [one["agent"] for one in _answers(summed)] == members
            assert (await client.delete(f"/api/v1/chat/threads/{conversation}")).status_code == 204


def _answers(blocks: list[dict[str, Any]]) -> list[dict[str, str]]:
    for block in blocks:
        if block["text"].startswith("<answers>"):
            found: list[dict[str, str]] = json.loads(block["text"][len("<answers>") : -len("</answers>")])
            return found
    return []


async def test_a_takeover_in_the_middle_of_a_round_makes_nobody_speak_twice(breakable: System) -> None:
    async with team_of(breakable, "ada", "bob", "cyd") as (client, team, members):
        body = {"message": SCRIPT, "mode": "sequential"}
        frames: list[Frame] = []
        async with asyncio.timeout(60), stream(client, "POST", f"{team}/chat/stream", json=body) as (response, coming):
            run = response.headers["parley-run-id"]
            killed = False
            async for frame in coming:
                frames.append(frame)
                if not killed and len(said(frames, members[1])) >= 50:
                    partition = partition_of(run[:36].encode(), 8)
                    facts = await read_topic(breakable.ready()["kafka"], "parley.events", partition)
                    kill(owner_pid(facts, partition))
                    killed = True
        assert killed and frames[-1].data == "[DONE]"
        assert {member: said(frames, member) for member in members} == dict.fromkeys(members, WHOLE)
        [summary] = [frame.data for frame in frames if frame.type == "summary"]
        assert (summary["agent_id"], summary["content"]) == (members[-1], WHOLE)
        found = (await client.get(f"{team}/runs/{run}")).json()
        assert [one["content"] for one in found["responses"]] == [WHOLE] * 3
        path = f"/api/v1/chat/threads/{run[:36]}/events"
        page = (await client.get(path, headers={"Accept": "application/json"}, params={"limit": 200})).json()["items"]
        kinds = [fact["type"] for fact in page]
        assert [kinds.count(kind) for kind in ("child.started", "run.completed", "model.returned")] == [3, 4, 4]
        assert max(fact["attempt"] for fact in page if fact["type"] == "model.called") == 2


async def test_a_member_that_waits_for_a_person_holds_the_team_up_until_there_is_a_word(system: System) -> None:
    script = '/tool publish {"text": "out"}\n/text done'
    async with team_of(system, "ada", "bob", approvals=["publish"]) as (client, team, members):
        waiting = await client.post(f"{team}/chat", params={"wait": 0}, json={"message": script, "mode": "sequential"})
        found = waiting.json()
        approvals = "/api/v1/chat/approvals"
        for _ in range(3):  # both members, and the lead: each plays the script

            async def asked() -> Any:
                params = {"status": "open", "thread_id": found["conversation_id"]}
                return (await client.get(approvals, params=params)).json()["items"]

            [approval] = await eventually(asked)
            answered = await client.post(f"{approvals}/{approval['id']}", json={"decision": "approve"})
            assert answered.status_code == 200
        frames = await collect(client, "GET", found["events_url"])
        assert [said(frames, member) for member in members] == ["done"] * 2
        assert (await client.get(f"{team}/runs/{found['run_id']}")).json()["summary"] == "done"


async def test_a_team_is_stopped_as_one(system: System) -> None:
    async with team_of(system, "ada", "bob") as (client, team, members):
        body = {"message": "/text Wait. \n/wait 60000"}
        async with asyncio.timeout(60), stream(client, "POST", f"{team}/chat/stream", json=body) as (response, coming):
            frames = [await anext(coming), await anext(coming)]
            assert {frame.data["agent_id"] for frame in frames} == set(members)
            run = response.headers["parley-run-id"]
            assert (await client.post(f"/api/v1/chat/runs/{run}/cancel")).status_code == 200
            frames += [frame async for frame in coming]
        ends = [frame.data for frame in frames if frame.type != "text"]
        errors = [{"type": "member_error", "agent_id": one, "content": "the run was cancelled"} for one in members]
        assert sorted(ends[:2], key=lambda one: one["agent_id"]) == errors
        assert ends[2:] == [{"type": "error", "content": "the run was cancelled"}, "[DONE]"]

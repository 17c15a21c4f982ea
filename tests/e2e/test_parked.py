"""Runs that wait, on the real parts: every dispatcher dies meanwhile, and answers come straight from Kafka."""

from __future__ import annotations

import json
import uuid
from typing import Any

from parley_events.partition import partition_of
from tests.e2e.test_restarts import whole_again
from tests.support.processes import kill
from tests.support.runs import post
from tests.support.system import System, eventually, new_thread
from tests.support.topics import Record, believed, put, read_topic

PARTITIONS = 8
LIMIT_S = 60.0


async def command(system: System, stream: str, kind: str, body: dict[str, Any]) -> str:
    """Put a command on Kafka, as docs/produce.md shows it; its id."""
    ready, command_id = system.ready(), str(uuid.uuid4())
    heads = {
        "ce_specversion": "1.0",
        "ce_id": command_id,
        "ce_source": "/tests",
        "ce_type": kind,
        "ce_workspaceid": ready["workspace_id"],
    }
    value = json.dumps({"principal": {"user_id": ready["user"]}, **body}).encode()
    partition = partition_of(stream.encode(), PARTITIONS)
    headers = [(name, text.encode()) for name, text in heads.items()]
    await put(ready["kafka"], "parley.commands", partition, stream.encode(), value, headers)
    return command_id


async def facts(system: System, stream: str) -> list[Record]:
    """What counts of a stream, refusals too."""
    partition = partition_of(stream.encode(), PARTITIONS)
    found = believed(await read_topic(system.ready()["kafka"], "parley.events", partition))
    return [record for record in found if record.key == stream.encode()]


async def wait_for(system: System, stream: str, kind: str, count: int = 1, **where: Any) -> Record:
    """The `count`-th fact of a type in the stream, with these things in its body."""

    async def found() -> Record | None:
        of_kind = [record for record in await facts(system, stream) if record.type == kind]
        fitting = [record for record in of_kind if where.items() <= record.body.items()]
        return fitting[count - 1] if len(fitting) >= count else None

    record: Record = await eventually(found, LIMIT_S)
    return record


async def outcome(system: System, stream: str, command_id: str) -> Record:
    async def found() -> Record | None:
        return next((one for one in await facts(system, stream) if one.head("ce_causationid") == command_id), None)

    record: Record = await eventually(found, LIMIT_S)
    return record


async def begin(system: System, script: str, agent_id: str = "scripted") -> tuple[str, str]:
    """A thread with a run that plays the script; both ids."""
    async with system.client() as client:
        thread = await new_thread(client, agent_id)
    return thread, (await post(system, thread, script, key=uuid.uuid4().hex))["run_id"]


def published(system: System, text: str) -> int:
    """How often a text was really published."""
    file = system.folder / "data" / "effects" / "published"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line.partition("\t")[2]) for line in lines].count(text)


async def kill_every_dispatcher(system: System) -> None:
    """All of them at once; what dies is started again."""
    before = list(system.ready()["pids"]["dispatcher"])
    for pid in before:
        kill(int(pid))

    async def replaced() -> bool:
        return not set(before) & set(system.ready()["pids"]["dispatcher"])

    await eventually(replaced, LIMIT_S)
    await whole_again(system)


async def test_a_parked_run_outlives_every_dispatcher_and_goes_on_when_it_is_answered(breakable: System) -> None:
    system = breakable
    await whole_again(system)
    text = f"rain {uuid.uuid4().hex}"
    calls = [f'/tool publish {{"text": "{text}"}}', '/tool get_weather {"location": "Tokyo"}']
    thread, run = await begin(system, "\n".join(["/text Let me ask.", *calls, "/show messages"]))
    request = (await wait_for(system, thread, "approval.requested")).body
    waiting = await wait_for(system, thread, "run.waiting")
    assert (waiting.body["waits_for"], len(waiting.body["tool_call_ids"])) == ("approval", 2)

    await kill_every_dispatcher(system)
    [weather] = [record.body for record in await facts(system, thread) if record.type == "tool.called"]
    assert (weather["effect"], weather["arguments"]) == ("client", {"location": "Tokyo"})
    answered = await command(
        system, thread, "tool.answer", {"tool_call_id": weather["tool_call_id"], "result": "It rains."}
    )
    assert (await outcome(system, thread, answered)).body["pending"] == []
    await wait_for(system, thread, "run.waiting", 2)
    assert published(system, text) == 0

    await kill_every_dispatcher(system)
    body = {"approval_id": request["approval_id"], "decision": "approve", "comment": "go"}
    approved = await command(system, thread, "approval.answer", body)
    assert (await outcome(system, thread, approved)).type == "approval.answered"
    late = await command(system, thread, "approval.answer", body)
    assert (await outcome(system, thread, late)).body["code"] == "not_open"
    await wait_for(system, thread, "run.completed", run_id=run)
    assert published(system, text) == 1

    told = await facts(system, thread)
    kinds = [record.type for record in told if record.head("ce_seq")]
    assert kinds.count("model.called") == 2, "no turn was repeated"
    assert [record.head("ce_seq") for record in told if record.head("ce_seq")] == [
        str(seq) for seq in range(1, len(kinds) + 1)
    ]
    shown = json.loads([record for record in told if record.type == "model.returned"][-1].body["blocks"][0]["text"])
    results = {block["tool_use_id"]: block["content"] for block in shown[-1]["content"]}
    assert results[weather["tool_call_id"]] == "It rains."
    assert f'"published": "{text}"' in results[request["tool_call_id"]]


async def test_an_approval_that_nobody_answers_expires_by_what_history_lists(breakable: System) -> None:
    system = breakable
    await whole_again(system)
    workspace, name = system.ready()["workspace_id"], f"hasty-{uuid.uuid4().hex[:8]}"
    spec = {
        "agent_id": name,
        "name": "Hasty",
        "tools": ["publish"],
        "approvals": [{"tool": "publish", "question": "Now?", "expires_s": 1}],
    }
    put_it = await command(system, f"ws:{workspace}", "agent.put", {"spec": spec})
    assert (await outcome(system, f"ws:{workspace}", put_it)).type == "agent.changed"

    async def known() -> bool:
        async with system.client() as client:
            return (await client.get(f"/api/v1/agents/{name}")).status_code == 200

    await eventually(known)
    text = uuid.uuid4().hex
    thread, run = await begin(system, f'/tool publish {{"text": "{text}"}}\n/text done', name)
    await wait_for(system, thread, "run.completed", run_id=run)
    told = await facts(system, thread)
    [request] = [record for record in told if record.type == "approval.requested"]
    [expired] = [record for record in told if record.type == "approval.expired"]
    assert expired.body["approval_id"] == request.body["approval_id"]
    assert request.body["question"] == "Now?"
    [returned] = [record for record in told if record.type == "tool.returned"]
    assert returned.body["status"] == "denied"
    assert published(system, text) == 0


async def test_a_parked_thread_that_is_cancelled_whole_ends_at_once(breakable: System) -> None:
    system = breakable
    await whole_again(system)
    text = uuid.uuid4().hex
    thread, run = await begin(system, f'/tool publish {{"text": "{text}"}}')
    await wait_for(system, thread, "run.waiting", run_id=run)
    queued = (await post(system, thread, "/text later", key=uuid.uuid4().hex))["run_id"]
    cancelled = await command(system, thread, "thread.cancel", {"reason": "enough"})
    assert (await outcome(system, thread, cancelled)).body["run_ids"] == [run, queued]
    for one in (run, queued):
        await wait_for(system, thread, "run.cancelled", run_id=one)
    assert (await wait_for(system, thread, "tool.returned")).body["status"] == "cancelled"
    again = (await post(system, thread, "/text still here", key=uuid.uuid4().hex))["run_id"]
    await wait_for(system, thread, "run.completed", run_id=again)
    assert published(system, text) == 0

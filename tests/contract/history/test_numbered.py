"""Messages by their numbers: whose they are, both ways through them, an answer that stops for the client's tools."""

from __future__ import annotations

from typing import Any

from parley_events import facts as f
from parley_events import reads
from parley_events.body import Block, ThreadSeed, Usage
from parley_history.settings import Settings
from tests.contract.history.conftest import running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, model_called, thread, workspace

WS = workspace(1)
MINE: dict[str, Any] = {"user_id": "ada", "agent_id": "assistant"}


def calls(writer: Writer, stream: str, run: str, text: str, *call_ids: str) -> None:
    """A turn that says something and calls tools that the client runs; the run waits for them."""
    call = writer.write(stream, WS, model_called(run, 0)).seq or 0
    blocks = (Block(kind="text", text=text), *(Block(kind="tool", tool_call_id=one, name="look") for one in call_ids))
    fields: dict[str, Any] = {"run_id": run, "call": call, "turn": 0, "blocks": blocks, "stop_reason": "tool_use"}
    writer.write(stream, WS, f.ModelReturned(usage=Usage(), **fields))
    for index, one in enumerate(call_ids):
        fields = {"run_id": run, "call": call, "index": index, "tool_call_id": one, "name": "look", "arguments": {}}
        writer.write(stream, WS, f.ToolCalled(effect="client", effect_key=f"{run}/{one}", **fields))
    writer.write(stream, WS, f.RunWaiting(run_id=run, waits_for="client_tool", tool_call_ids=call_ids))


def returned(writer: Writer, stream: str, run: str, call_id: str) -> None:
    fields: dict[str, Any] = {"run_id": run, "call": 2, "index": 0, "tool_call_id": call_id, "name": "look"}
    writer.write(stream, WS, f.ToolReturned(status="error", result="the user went on", **fields))


async def test_an_answer_that_stops_for_the_client_is_told_in_parts(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    stream = thread(1)
    run = writer.post(stream, WS)
    calls(writer, stream, run, "Let me look. ", "c1", "c2")
    for one, pending in (("c1", ("c2",)), ("c2", ())):
        writer.write(stream, WS, f.ToolAnswered(run_id=run, tool_call_id=one, result=one, pending=pending))
    calls(writer, stream, run, "", "c3")
    writer.write(stream, WS, f.ToolAnswered(run_id=run, tool_call_id="c3", result="c3"))
    writer.turn(stream, WS, run, "Sunny.", 2)
    writer.complete(stream, WS, run)
    async with running(settings, log) as client:
        await client.caught_up(log)
        page = await client.get(f"/workspaces/{WS}/messages", **MINE)
        numbers = [item["number"] for item in page["items"]]
        assert numbers == sorted(set(numbers)) and all(numbers)
        shown = [
            (item["role"], item["content"], [call["id"] for call in item["tool_calls"] or ()], item["client"])
            for item in page["items"]
        ]
        assert shown == [
            ("user", "hello", [], False),
            ("tool", "Let me look. ", ["c1", "c2"], True),
            ("tool", "c1", [], True),
            ("tool", "c2", [], True),
            ("tool", None, ["c3"], True),
            ("tool", "c3", [], True),
            ("assistant", "Sunny.", [], False),
        ]
        whole = (await client.get(f"/workspaces/{WS}/threads/{stream}/messages"))["items"]
        assert [item["content"] for item in whole if item["role"] == "assistant"] == ["Let me look. Sunny."]


async def test_a_call_that_the_client_never_answers_leaves_the_answer_a_number_of_its_own(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    stream = thread(1)
    run = writer.post(stream, WS)
    calls(writer, stream, run, "", "c1")
    returned(writer, stream, run, "c1")
    writer.turn(stream, WS, run, "Well.", 1)
    writer.complete(stream, WS, run)
    async with running(settings, log) as client:
        await client.caught_up(log)
        for tools, expected in (("false", 3), ("true", 4)):
            page = await client.get(f"/workspaces/{WS}/messages", tools=tools, **MINE)
            assert page["total"] == len(page["items"]) == expected
            assert len({item["number"] for item in page["items"]}) == expected


async def test_it_scrolls_both_ways_and_counts_the_whole(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    for place in range(5):
        stream = thread(place % 2)
        writer.complete(stream, WS, writer.post(stream, WS, f"q{place}", command=f"c{place}"))
    async with running(settings, log) as client:
        await client.caught_up(log)

        async def asked(**params: Any) -> list[int]:
            page = reads.NumberedPage.model_validate(await client.get(f"/workspaces/{WS}/messages", **MINE, **params))
            assert page.total == 10
            assert page.has_more is params.pop("more")
            return [item.number for item in page.items]

        every = await asked(limit=10, more=False)
        assert every == sorted(every)
        assert await asked(limit=4, more=True) == every[-4:]
        assert await asked(limit=4, before=every[4], more=False) == every[:4]
        assert await asked(limit=3, before=every[4], more=True) == every[1:4]
        assert await asked(limit=3, after=every[4], more=True) == every[5:8]
        assert await asked(limit=5, after=every[4], more=False) == every[5:]
        assert await asked(before=0, more=False) == [] == await asked(after=every[-1], more=False)
        for bad in ("-1", "x", str(2**53 + 1)):
            await client.get(f"/workspaces/{WS}/messages", before=bad, status=400, **MINE)


async def test_only_ones_own_are_found(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    seeds = {
        thread(1): ThreadSeed(user_id="ada", agent_id="assistant"),
        thread(2): ThreadSeed(user_id="bob", agent_id="assistant"),
        thread(3): ThreadSeed(user_id="ada", agent_id="other"),
        thread(4): ThreadSeed(user_id=None, agent_id="assistant"),
        thread(5): ThreadSeed(user_id="ada", agent_id="assistant", end_user="a customer"),
    }
    for stream, seed in seeds.items():
        run = writer.post(stream, WS, stream, opened=seed)
        calls(writer, stream, run, "", f"c-{stream}")
    async with running(settings, log) as client:
        await client.caught_up(log)
        page = await client.get(f"/workspaces/{WS}/messages", **MINE)
        assert {item["thread_id"] for item in page["items"]} == {thread(1)} and page["total"] == 2
        assert (await client.get(f"/workspaces/{WS}/threads/{thread(5)}"))["end_user"] == "a customer"
        for stream in seeds:
            wanted = 200 if stream == thread(1) else 404
            asked = {**MINE, "tool_call_id": f"c-{stream}"}
            found = await client.get(f"/workspaces/{WS}/client-call", status=wanted, **asked)
            assert wanted == 404 or (found["thread_id"], found["tool_calls"][0]["status"]) == (stream, "waiting")
            foreign = await client.get(f"/workspaces/{workspace(2)}/messages", thread_id=stream)
            assert (foreign["items"], foreign["total"]) == ([], 0)
            await client.get(f"/workspaces/{workspace(2)}/client-call", status=404, **asked)


async def test_of_two_calls_of_one_id_the_open_one_is_meant(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    runs = {}
    for place in (1, 2):
        runs[place] = writer.post(thread(place), WS, opened=ThreadSeed(user_id="ada", agent_id="assistant"))
        calls(writer, thread(place), runs[place], "", "same")
    writer.write(thread(2), WS, f.ToolAnswered(run_id=runs[2], tool_call_id="same", result="r"))
    async with running(settings, log) as client:
        await client.caught_up(log)
        found = await client.get(f"/workspaces/{WS}/client-call", tool_call_id="same", **MINE)
        assert (found["thread_id"], found["run_id"]) == (thread(1), runs[1])

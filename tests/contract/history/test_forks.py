"""Forks in the view: the messages and files of the source as they were, in rows of their own."""

from __future__ import annotations

from typing import Any

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Attachment, Block, Note, ThreadSeed, Usage
from parley_events.past import Past, Told, told
from parley_history.settings import Settings
from tests.contract.history.conftest import Client, running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, model_called, thread, workspace
from tests.contract.history.test_numbered import calls

WS = workspace(1)
FILE = Attachment(name="a.txt", content_type="text/plain", size=1, sha256="0" * 64)


def elsewhere(writer: Writer, source: str) -> str:
    """A thread on another partition."""
    return next(thread(n) for n in range(50, 99) if writer.partition(thread(n)) != writer.partition(source))


def fork(writer: Writer, source: str, made: str, at: int | None = None) -> tuple[str, f.ThreadForked]:
    past = Past(source, made, "ada")
    for fact in writer.written:
        if fact.stream == source and fact.seq is not None:
            data = fact.body.model_dump(mode="json")
            for one in told(Told(fact.seq, fact.type, fact.version, fact.time_ms, data)):
                if at is None or one.seq <= at:
                    past.take(one)
    seed = ThreadSeed(user_id="ada", agent_id="assistant", title="Plans")
    body = f.ThreadForked(source_thread_id=source, at=at or writer.seqs[source], seed=seed, past=past.made())
    fact = writer.write(made, WS, body)
    assert isinstance(fact.body, f.ThreadForked)
    return made, fact.body


def conversation(writer: Writer) -> str:
    """Files, contexts, tools of the server and of the client, a decision, a run that failed, and one that is open."""
    stream = thread(1)
    run = writer.post(stream, WS, "hello", attachments=(FILE,), context={"page": 1}, metadata={"k": 1})
    call = writer.write(stream, WS, model_called(run, 0)).seq or 0
    place: dict[str, Any] = {"run_id": run, "call": call, "index": 0, "tool_call_id": "t1", "name": "save"}
    blocks = (Block(kind="text", text="Saving. "), Block(kind="tool", tool_call_id="t1", name="save"))
    fields: dict[str, Any] = {"run_id": run, "call": call, "turn": 0, "blocks": blocks, "stop_reason": "tool_use"}
    writer.write(stream, WS, f.ModelReturned(usage=Usage(input_tokens=7), **fields))
    writer.write(stream, WS, f.ToolCalled(effect="unsafe", effect_key="k", arguments={"n": 1}, **place))
    note = Note(kind="decision", id="d1", title="Go")
    made = FILE.model_copy(update={"sha256": "1" * 64})
    writer.write(stream, WS, f.ToolReturned(status="ok", result="saved", files=(made,), note=note, **place))
    writer.turn(stream, WS, run, "Done.", 1)
    writer.complete(stream, WS, run)
    run = writer.post(stream, WS, "look", command="c2")
    calls(writer, stream, run, "Let me look. ", "c1")
    writer.write(stream, WS, f.ToolAnswered(run_id=run, tool_call_id="c1", result="sun"))
    writer.write(
        stream, WS, f.RunFailed(run_id=run, message_id=ids.answer_id(run), code="x", message="x", usage=Usage())
    )
    run = writer.post(stream, WS, "and now?", command="c3")
    calls(writer, stream, run, "Wait. ", "c2")
    return stream


async def rows(client: Client, stream: str, **asked: Any) -> list[Any]:
    """All messages of a thread, page by page."""
    found: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await client.get(f"/workspaces/{WS}/threads/{stream}/messages", **asked, **cursor)
        found += page["items"]
        if page["next_cursor"] is None:
            assert page["total"] == len(found)
            return found
        cursor = {"cursor": page["next_cursor"]}


def alike(rows: list[Any]) -> list[Any]:
    """What a message and its copy share."""
    return [
        {name: row[name] for name in row if name not in ("id", "seq", "thread_id", "run_id", "number")} for row in rows
    ]


async def test_a_fork_has_the_messages_of_its_source_and_its_files(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    source = conversation(writer)
    made, _ = fork(writer, source, elsewhere(writer, source))
    async with running(settings, log) as client:
        await client.caught_up(log)
        theirs, own = await rows(client, source, limit=200), await rows(client, made, limit=200)
        # What was unfinished is ended: the open call of the client's tool has a result, and what was said an end.
        assert alike(own)[: len(theirs) - 1] == alike(theirs)[:-1]
        last, result, answer = own[len(theirs) - 1 :]
        assert [call["status"] for call in last["tool_calls"]] == ["cancelled"]
        assert (result["role"], result["tool_call_id"], answer["content"]) == ("tool", "c2", "Wait. ")
        assert [row["seq"] for row in own] == sorted(row["seq"] for row in own)
        assert max(row["seq"] for row in own) == 0
        assert len({row["id"] for row in own}) == len(own)
        assert all(ids.thread_of(row["id"]) == ids.thread_of(row["run_id"]) == made for row in own)
        assert await rows(client, made, limit=2) == own
        assert await rows(client, made, limit=3, order="desc") == own[::-1]
        numbered = await client.get(f"/workspaces/{WS}/messages", thread_id=made, tools="true")
        numbers = [row["number"] for row in numbered["items"]]
        assert numbers == sorted(set(numbers)) and all(numbers)
        whole = await client.get(f"/workspaces/{WS}/messages", thread_id=source, tools="true")
        assert alike(numbered["items"])[:8] == alike(whole["items"])[:8], "also where an answer is told in parts"
        files = {"name", "kind", "content_type", "size", "sha256", "created_at"}
        listed = [
            [{name: file[name] for name in files} for file in page["items"]]
            for page in [await client.get(f"/workspaces/{WS}/threads/{one}/files") for one in (source, made)]
        ]
        assert listed[0] == listed[1] and len(listed[1]) == 2
        view = await client.get(f"/workspaces/{WS}/threads/{made}")
        assert (view["title"], view["message_count"]) == ("Plans", len(own))
        assert view["last_message_at"] == own[-1]["created_at"]


async def test_its_runs_ended_as_in_the_source_and_nothing_is_counted_twice(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    source = conversation(writer)
    made, _ = fork(writer, source, elsewhere(writer, source))
    async with running(settings, log) as client:
        await client.caught_up(log)
        theirs, own = [
            [await client.get(f"/workspaces/{WS}/runs/{run}") for run in dict.fromkeys(row["run_id"] for row in found)]
            for found in (await rows(client, source), await rows(client, made))
        ]
        same = ("agent_id", "agent_version", "stop_reason", "error", "answer", "last_text", "created_at")
        assert [[run[name] for name in same] for run in own] == [[run[name] for name in same] for run in theirs]
        assert [run["status"] for run in theirs] == ["completed", "failed", "waiting"]
        assert [run["status"] for run in own] == ["completed", "failed", "cancelled"]
        assert theirs[0]["usage"]["input_tokens"] > 0
        assert {count for run in own for count in run["usage"].values()} == {0}
        assert all(run["posted_seq"] <= run["ended_seq"] <= 0 for run in own)
        assert [row["id"] for row in (await client.get(f"/workspaces/{WS}/notes"))["items"]] == ["d1"]
        assert await client.rows("SELECT stream FROM dues WHERE stream = $1", made) == []
        runs = await client.get(f"/workspaces/{WS}/runs")
        assert [run["thread_id"] for run in runs["items"]] == [source], "what is open is open there"


async def test_a_fork_stands_when_its_source_goes_and_goes_when_it_is_cleared(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    source = conversation(writer)
    made, body = fork(writer, source, elsewhere(writer, source))
    async with running(settings, log, batch=1) as client:
        await client.caught_up(log)
        before = await rows(client, made)
        writer.write(source, WS, f.ThreadDeleted())
        await client.caught_up(log)
        assert await rows(client, made) == before
        run = writer.post(made, WS, "more", command="c9")
        writer.turn(made, WS, run, "Gladly.")
        writer.complete(made, WS, run)
        await client.caught_up(log)
        after = await rows(client, made)
        assert (after[: len(before)], [row["seq"] for row in after[len(before) :]]) == (before, [2, 5])
        assert min(row["number"] for row in after[len(before) :]) > max(body.numbers)
        writer.write(made, WS, f.ThreadCleared())
        await client.caught_up(log)
        assert await rows(client, made) == []
        assert (await client.get(f"/workspaces/{WS}/threads/{made}/files"))["items"] == []


async def test_a_fork_of_a_fork_in_the_middle_of_its_past(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    source = conversation(writer)
    made, _ = fork(writer, source, thread(50))
    async with running(settings, log) as client:
        await client.caught_up(log)
        first = await rows(client, made)
        question = next(row for row in first if row["content"] == "look")
        again, _ = fork(writer, made, thread(51), question["seq"])
        await client.caught_up(log)
        place = first.index(question)
        assert alike(await rows(client, again)) == alike(first[: place + 1])

"""Large contents and files: whole in the view, waited for while the object store is away, never skipped."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.body import Attachment
from parley_events.codec import encode_fact
from parley_events.contents import Contents
from parley_events.errors import ObjectMissing, ObjectsUnavailable
from parley_events.log.port import Incoming
from parley_events.objects import open_objects
from parley_history import batch, projector
from parley_history.rebuild import load
from parley_history.rebuild.run import rebuild
from parley_history.settings import Settings
from tests.contract.history.conftest import running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, thread, workspace
from tests.contract.history.test_projector import until

WS, T1 = workspace(1), thread(1)
LARGE = "\x01é" * 200_000


class Away:
    """An object store that can be taken away. `tries` counts what was asked meanwhile."""

    def __init__(self, error: type[Exception]) -> None:
        self._objects = open_objects("memory:")
        self.error: type[Exception] | None = None
        self._kind = error
        self.tries = 0

    def go(self) -> None:
        self.error = self._kind

    async def put(self, workspace_id: str, data: bytes) -> str:
        return await self._objects.put(workspace_id, data)

    async def get(self, workspace_id: str, sha256: str) -> bytes:
        if self.error is not None:
            self.tries += 1
            raise self.error("away")
        return await self._objects.get(workspace_id, sha256)


async def write_large(writer: Writer, objects: Away, stream: str, run: str) -> int:
    """Append a tool result of nearly a megabyte, as a dispatcher does; the bytes that it has on the log."""
    contents = Contents(objects)
    body = f.ToolReturned(
        run_id=run, call=2, index=0, tool_call_id="t", name="read", status="ok", result=LARGE, message_id="m"
    )
    fact = writer.make(stream, WS, body)
    await contents.keep(WS, fact.body)
    record = encode_fact(fact, writer.partition(stream), contents.stored)
    writer.log.append(record)
    return len(record.value or b"")


async def test_a_large_result_is_small_on_the_log_and_whole_in_the_view(settings: Settings) -> None:
    log, objects = ListLog(4), Away(ObjectsUnavailable)
    writer = Writer(log)
    run = writer.post(T1, WS)
    assert await write_large(writer, objects, T1, run) < 2000
    async with running(settings, log, objects) as client:
        await client.caught_up(log)
        page = await client.get(f"/workspaces/{WS}/threads/{T1}/messages", roles="tool")
        assert page["items"][0]["content"] == LARGE
        facts = (await client.get(f"/streams/{T1}/facts"))["items"]
        assert facts[-1]["body"]["result"] == LARGE
        assert "ce_objects" not in facts[-1]["headers"], "what is stored is whole, and says nothing else"


async def test_what_is_too_much_for_one_transaction_comes_in_several(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "BATCH_BYTES", 1_000_000)
    monkeypatch.setattr(load, "_WHOLE_BYTES", 1_000_000)
    log, objects = ListLog(4), Away(ObjectsUnavailable)
    writer = Writer(log)
    run = writer.post(T1, WS)
    for _ in range(4):
        await write_large(writer, objects, T1, run)
    writer.complete(T1, WS, run)
    sizes: list[int] = []
    reading = batch.read

    def weighed(start: batch.Position, partition: int, records: list[Incoming], *more: Any, **named: Any) -> Any:
        sizes.append(sum(batch.body_size(record) for record in records))
        return reading(start, partition, records, *more, **named)

    monkeypatch.setattr(projector, "read", weighed)
    monkeypatch.setattr(load, "read", weighed)
    async with running(settings, log, objects) as client:
        await client.caught_up(log)
        assert (await client.get(f"/streams/{T1}/facts"))["last_seq"] == 6
        outcome = await rebuild(settings, log, objects)
        assert outcome.switched and not outcome.differences
    assert max(sizes) < 3_000_000 < sum(sizes)


@pytest.mark.parametrize("error", [ObjectsUnavailable, ObjectMissing])
async def test_a_partition_waits_for_its_object_and_the_others_go_on(
    settings: Settings, error: type[Exception]
) -> None:
    log, objects = ListLog(4), Away(error)
    writer = Writer(log)
    other = next(thread(n) for n in range(2, 99) if writer.partition(thread(n)) != writer.partition(T1))
    run = writer.post(T1, WS)
    objects.go()
    await write_large(writer, objects, T1, run)
    writer.complete(T1, WS, run)
    async with running(settings, log, objects) as client:
        await until(lambda: _true(objects.tries > 0))
        later = writer.post(other, WS)
        async with asyncio.timeout(10):
            while (await client.http.get(f"/internal/workspaces/{WS}/runs/{later}")).status_code != 200:
                await asyncio.sleep(0.02)
        assert (await client.get(f"/streams/{T1}/facts"))["last_seq"] <= 1, "nothing behind it is shown"
        assert "stands still" in (await client.http.get("/readyz")).json()["waiting"]
        tries = objects.tries
        await until(lambda: _true(objects.tries > tries))
        objects.error = None
        await client.caught_up(log)
        assert (await client.get(f"/workspaces/{WS}/runs/{run}"))["status"] == "completed"
        assert (await client.get(f"/streams/{T1}/facts"))["items"][1]["body"]["result"] == LARGE


async def test_references_that_cannot_be_read_stop_their_partition_behind_what_came_before(settings: Settings) -> None:
    log, objects = ListLog(4), Away(ObjectsUnavailable)
    writer = Writer(log)
    run = writer.post(T1, WS)
    record = writer.record(writer.make(T1, WS, f.RunCancelling(run_id=run, by="ada")))
    log.append(replace(record, headers=(*record.headers, ("ce_objects", b"reason=nonsense"))))
    partition = writer.partition(T1)
    async with running(settings, log, objects) as client:
        await until(lambda: _true(partition in client.history.health.stopped))
        assert "not fetched" in client.history.health.stopped[partition]
        assert (await client.get(f"/streams/{T1}/facts"))["last_seq"] == 1
        outcome = await rebuild(settings, log, objects)
        assert outcome.switched and (await client.get(f"/streams/{T1}/facts"))["last_seq"] == 1


async def _true(value: bool) -> bool:
    return value


async def test_files_are_found_by_name_and_by_hash_and_go_when_the_thread_is_cleared(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    first, second = (
        Attachment(name="plan é.txt", content_type="text/plain", size=n, sha256=f"{n:064x}") for n in (1, 2)
    )
    writer.post(T1, WS, attachments=(first,), command="c1")
    run = writer.post(T1, WS, attachments=(second,), command="c2")
    fields = {"run_id": run, "call": 3, "index": 0, "tool_call_id": "t", "name": "save_artifact", "status": "ok"}
    made = Attachment(name="plan é.txt", content_type="text/markdown", size=3, sha256=f"{3:064x}")
    writer.write(T1, WS, f.ToolReturned.model_validate(fields | {"result": "", "files": (made,)}))
    async with running(settings, log) as client:
        await client.caught_up(log)

        async def sizes(**params: Any) -> list[int]:
            page = await client.get(f"/workspaces/{WS}/threads/{T1}/files", **params)
            return [item["size"] for item in page["items"]]

        assert await sizes() == [3, 2]
        assert await sizes(kind="attachment", name="plan é.txt") == [2]
        assert await sizes(name="plan é.txt", sha256=first.sha256) == [1], "an older version, by its hash"
        assert await sizes(name="plan") == []
        await client.get(f"/workspaces/{workspace(0)}/threads/{T1}/files", status=404)
        writer.write(T1, WS, f.ThreadCleared())
        writer.write(T1, WS, f.ToolReturned.model_validate(fields | {"index": 1, "result": "", "files": (made,)}))
        await client.caught_up(log)
        assert await sizes() == [], "what a cleared run made after all is hidden like its messages"

"""What cannot be folded: it is told where and why, an administrator has it skipped, every fold makes that choice."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from parley_events import facts as f
from parley_events.codec import Fact
from parley_events.errors import RetentionGap
from parley_events.log.port import Incoming
from parley_history import projector as projector_module
from parley_history.batch import SKIPPED, Position, read
from parley_history.projections import fold
from parley_history.projections.rows import View
from parley_history.settings import Settings
from tests.contract.history.conftest import Client, running
from tests.contract.history.listlog import ListLog, ListTail
from tests.contract.history.story import Writer, thread, workspace
from tests.contract.history.test_projector import until

WS, T1 = workspace(1), thread(1)
WHY: dict[str, Any] = {"reason": "written by a build that was taken back", "user_id": "ann", "key_id": "k1"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector_module, "TICK_S", 0.1)


def spoilt(log: ListLog, writer: Writer, value: bytes = b"no JSON") -> tuple[int, int]:
    """A fact of the thread whose body is none: its place."""
    record = replace(writer.record(writer.make(T1, WS, f.ThreadUpdated(title="lost", changes=("title",)))), value=value)
    return record.partition, log.append(record)


async def stopped(client: Client, many: int = 1) -> list[dict[str, Any]]:
    """What stands still, once that many do."""

    async def there() -> bool:
        return len((await client.get("/stops"))["items"]) == many

    await until(there)
    items: list[dict[str, Any]] = (await client.get("/stops"))["items"]
    return items


async def skip(client: Client, place: tuple[int, int], status: int = 200, **changes: Any) -> Any:
    asked = {"partition": place[0], "offset": place[1], **WHY, **changes}
    answer = await client.http.post("/internal/skips", content=json.dumps(asked))
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_skipped_record_leaves_its_place_and_nothing_else(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    place = spoilt(log, writer)
    writer.turn(T1, WS, run, "said after it")
    async with running(settings, log) as client:
        [stop] = await stopped(client)
        assert (stop["partition"], stop["offset"], stop["skippable"]) == (*place, True)
        assert (stop["type"], stop["stream"], stop["seq"], stop["workspace_id"]) == ("thread.updated", T1, "2", WS)
        assert f"offset {place[1]}" in stop["fault"] and stop["size"] == len(b"no JSON")
        made = await skip(client, place)
        assert made | WHY == {**made, **WHY} and not made["repeated"]
        await client.caught_up(log)
        assert (await client.get("/stops"))["items"] == [] and client.history.health.stopped == {}
        assert (await client.http.get("/readyz")).json()["status"] == "ready"
        found = await client.get(f"/workspaces/{WS}/threads/{T1}")
        assert found["title"] is None and found["position"] == f"{T1}@{writer.seqs[T1]}"
        assert (await client.get(f"/workspaces/{WS}/runs/{run}"))["answer"] == "said after it"
        page = await client.get(f"/streams/{T1}/facts")
        assert [item["headers"]["ce_seq"] for item in page["items"]] == [str(seq + 1) for seq in range(writer.seqs[T1])]
        assert page["items"][1]["headers"]["ce_type"] == SKIPPED and page["items"][1]["body"] == {}


async def test_the_bytes_and_the_choice_are_kept_and_nobody_changes_them(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    place = spoilt(log, writer, b"\x00\xff no JSON")
    async with running(settings, log) as client:
        await stopped(client)
        made = await skip(client, place)
        assert await skip(client, place) == {**made, "repeated": True}
        assert (await skip(client, place, 409, reason="another"))["error"] == "skipped_before"
        assert (await skip(client, place, 409, user_id="eve"))["error"] == "skipped_before"
        [row] = await client.rows("SELECT * FROM skips")
        record = log.records[place[0]][place[1]]
        assert (row["key"], row["value"], row["time_ms"]) == (record.key, record.value, record.time_ms)
        kept = [(name, base64.b64decode(value)) for name, value in json.loads(row["headers"])]
        assert tuple(kept) == record.headers
        listed = await client.get("/skips")
        assert listed["total"] == 1 and listed["items"][0]["reason"] == WHY["reason"]
        for sql in ("DELETE FROM skips", "UPDATE skips SET reason = ''"):
            with pytest.raises(Exception, match="permission denied"):
                async with client.history.writer.transaction() as con:
                    await con.run(sql)


async def test_only_the_record_at_which_a_partition_stands_still_can_be_skipped(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    partition, offset = spoilt(log, writer)
    async with running(settings, log) as client:
        await stopped(client)
        for place in ((partition, offset - 1), (partition, offset + 1), ((partition + 1) % 4, offset)):
            await skip(client, place, 404)
        await skip(client, (partition, offset), 400, reason="")
        await skip(client, (partition, offset), 400, partition=-1)
        assert (await client.get("/skips"))["items"] == []


async def test_a_fold_from_the_beginning_makes_the_same_choice(settings: Settings) -> None:
    """The view thrown away, the skips kept: as a rebuild does it."""
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    place = spoilt(log, writer)
    writer.turn(T1, WS, run, "said after it")
    async with running(settings, log) as client:
        await stopped(client)
        await skip(client, place)
        await client.caught_up(log)
        before = await client.get(f"/streams/{T1}/facts")
    async with running(settings, log) as client:
        for table in ("facts", "streams", "threads", "messages", "runs", "dues"):
            await client.rows(f"DELETE FROM {table}")
        await client.rows("UPDATE positions SET next_offset = 0, epoch = -1, claims = '{}'")
    async with running(settings, log) as client:
        await client.caught_up(log)
        assert await client.get(f"/streams/{T1}/facts") == before
        assert client.history.health.stopped == {}


async def test_any_replica_tells_it_and_the_one_that_folds_goes_on(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    async with running(settings, log) as first, running(settings, log) as second:
        await first.caught_up(log)
        place = spoilt(log, writer)
        for client in (first, second):
            await stopped(client)
        idle = second if first.history.health.stopped else first
        await skip(idle, place)
        await idle.caught_up(log)
        assert first.history.health.stopped == {} == second.history.health.stopped


async def test_a_record_whose_head_cannot_be_read_leaves_nothing(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    partition = writer.partition(T1)
    headers = (("ce_type", b"\xff"), ("ce_type", b"thread.updated"), ("odd", b"\x00"))
    offset = log.append(replace(writer.record(writer.written[-1]), headers=headers))
    writer.turn(T1, WS, run, "said after it")
    async with running(settings, log) as client:
        [stop] = await stopped(client)
        assert stop["stream"] is None and stop["skippable"]
        await skip(client, (partition, offset))
        await client.caught_up(log)
        assert (await client.get(f"/workspaces/{WS}/runs/{run}"))["answer"] == "said after it"


async def test_a_fact_that_a_projection_cannot_take_is_named_and_what_comes_before_it_is_folded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    bad = writer.write(T1, WS, f.ThreadUpdated(title="slip", changes=("title",)))
    offset = len(log.records[writer.partition(T1)]) - 1
    writer.turn(T1, WS, run, "said after it")

    def broken(view: View, partition: int, facts: list[Fact]) -> None:
        if any(fact.seq == bad.seq and fact.type == bad.type for fact in facts):
            raise KeyError("a slip")
        fold(view, partition, facts)

    monkeypatch.setattr(projector_module, "fold", broken)
    async with running(settings, log) as client:
        [stop] = await stopped(client)
        assert stop["offset"] == offset and "KeyError" in stop["fault"] and "a slip" not in stop["fault"]
        assert (await client.get(f"/workspaces/{WS}/threads/{T1}"))["position"] == f"{T1}@1"
        await skip(client, (writer.partition(T1), offset))
        await client.caught_up(log)
        assert (await client.get(f"/workspaces/{WS}/runs/{run}"))["answer"] == "said after it"


async def test_beyond_a_hole_a_stream_goes_on_with_what_comes_after_the_record_that_was_skipped(
    settings: Settings,
) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    writer.make(T1, WS, f.ThreadCleared())
    offset = len(log.records[writer.partition(T1)])
    writer.write(T1, WS, f.ThreadUpdated(title="after the hole", changes=("title",)))
    writer.turn(T1, WS, run, "said after it")
    async with running(settings, log) as client:
        [stop] = await stopped(client)
        assert stop["offset"] == offset and "hole" in stop["fault"]
        await skip(client, (writer.partition(T1), offset))
        await client.caught_up(log)
        assert (await client.get(f"/workspaces/{WS}/threads/{T1}"))["title"] is None
        assert (await client.get(f"/workspaces/{WS}/runs/{run}"))["answer"] == "said after it"


async def test_where_records_are_missing_there_is_nothing_to_skip(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ListLog(4)
    writer = Writer(log)
    partition = writer.partition(T1)

    def gap(self: ListTail, limit: int) -> list[Incoming]:
        if self._at.get(partition) == 0:
            raise RetentionGap("parley.events", partition, 0, 17)
        return []

    monkeypatch.setattr(ListTail, "_take", gap)
    async with running(settings, log) as client:
        [stop] = await stopped(client)
        assert (stop["offset"], stop["skippable"]) == (0, False) and "deleted before" in stop["fault"]
        await skip(client, (partition, 0), 404)


def test_a_claim_that_was_skipped_still_says_whose_the_partition_is() -> None:
    log = ListLog(1)
    writer = Writer(log)
    old, new = writer.claim(0), writer.claim(0)
    writer.post(T1, WS)
    batch = read(Position(), 0, log.records[0], frozenset({new}))
    assert batch.end.epoch == new != old and len(batch.facts) == 1 and batch.fenced == 0

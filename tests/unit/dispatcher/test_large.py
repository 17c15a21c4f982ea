"""Large contents in a dispatcher: fetched before a command is decided, stored before a fact refers to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from parley_dispatcher.state import MAX_SHOWN_CHARS
from parley_events import facts as f
from parley_events.codec import encode_command
from parley_events.commands import CancelRun
from parley_events.errors import ObjectMissing, ObjectsUnavailable
from parley_events.large import LARGE_BYTES, OBJECTS_HEADER
from parley_events.objects import Objects, open_objects
from tests.unit.dispatcher.world import ANN, PARTITIONS, World, command, eventually, new_thread, post

BIG = "\x01" * LARGE_BYTES


class Store:
    """An object store whose reads and writes can be made to fail."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.reads: Exception | None = None
        self.writes: Exception | None = None
        self.asked = 0

    async def put(self, workspace_id: str, data: bytes) -> str:
        self.asked += 1
        if self.writes is not None:
            raise self.writes
        return await self._objects.put(workspace_id, data)

    async def get(self, workspace_id: str, sha256: str) -> bytes:
        self.asked += 1
        if self.reads is not None:
            raise self.reads
        return await self._objects.get(workspace_id, sha256)


async def put_large(world: World, thread: str, text: str, **more: Any) -> str:
    """A message as a gateway sends it: its contents are stored first."""
    asked = command(thread, post(text), **more)
    await world.contents.keep(asked.workspace_id, asked.body)
    await world.send(encode_command(asked, PARTITIONS, world.contents.stored))
    return asked.id


async def test_a_large_message_is_decided_whole_and_stays_small_on_the_log(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        posted = await world.read.outcome(await put_large(world, thread, BIG))
        assert posted.text == BIG
        await world.read.ended(thread)
        (turn,) = [body for body in world.read.of(thread, f.ModelReturned) if BIG in body.blocks[0].text]
        assert turn.stop_reason == "end_turn"
    assert max(world.read.sizes) < 5000


async def test_a_large_message_that_came_whole_leaves_its_record_at_the_outcome(world: World) -> None:
    """Another producer knows nothing of objects: what it writes is stored before it is decided."""
    thread = new_thread()
    async with world.dispatcher():
        assert (await world.ask(thread, post(BIG, metadata={"m": BIG}))).metadata == {"m": BIG}
        await world.read.ended(thread)
    assert max(world.read.sizes) < 5000


async def test_what_comes_after_a_large_message_waits_for_it_and_other_threads_do_not(world: World) -> None:
    store = Store(world.objects)
    thread, other = new_thread(0), new_thread(0)
    async with world.dispatcher(objects=store):
        await world.ask(thread, post("/text warm"))
        store.reads = ObjectsUnavailable("away")
        first = await put_large(world, thread, BIG)
        second = await world.put(thread, post("/text second"))
        await world.ask(other, post("/text meanwhile"))
        await eventually(lambda: store.asked > 2)
        assert world.read.outcomes(first) == world.read.outcomes(second) == []
        store.reads = None
        assert (await world.read.outcome(second)).type == "message.posted"
        posted = [body.text for body in world.read.of(thread, f.MessagePosted)]
        assert posted == ["/text warm", BIG, "/text second"]


async def test_a_message_whose_object_is_missing_is_refused_and_the_next_one_is_decided(world: World) -> None:
    thread = new_thread()
    store = Store(open_objects("memory:"))
    async with world.dispatcher(objects=store) as dispatcher:
        refused = await world.read.outcome(await put_large(world, thread, BIG))
        assert (refused.type, refused.code) == ("command.rejected", "object_missing")
        assert (await world.ask(thread, post("/text next"))).type == "message.posted"
        await world.read.ended(thread)
        owner = dispatcher.owner(thread)
        await eventually(lambda: not owner._unfinished)


async def test_a_new_owner_reads_large_facts_from_its_window_and_waits_for_them(world: World) -> None:
    thread = new_thread(0)
    world.history.taking.close()
    store = Store(world.objects)
    async with world.dispatcher():
        await world.read.outcome(await put_large(world, thread, BIG, fresh=True))
        await world.read.ended(thread)
    store.reads = ObjectMissing("not there")
    async with world.dispatcher(objects=store):
        asked = await world.put(thread, post("/show messages"))
        await eventually(lambda: store.asked > 1)
        assert world.read.outcomes(asked) == []
        store.reads = None
        assert (await world.read.outcome(asked)).type == "message.posted"
        await world.read.ended(thread, 2)
    said = world.read.of(thread, f.ModelReturned)[-1].blocks[0].text
    assert said.count("\\u0001") > LARGE_BYTES, "the model was shown the text, not a reference to it"


async def test_a_long_tool_result_is_recorded_whole_and_shown_to_the_model_in_part(world: World) -> None:
    thread = new_thread()
    async with world.dispatcher():
        count = 2 * LARGE_BYTES
        await world.ask(thread, post(f'/tool repeat {{"text": "y", "times": {count}}}\n/show messages'))
        await world.read.ended(thread)
    (returned,) = world.read.of(thread, f.ToolReturned)
    assert returned.result == "y" * count
    shown = world.read.of(thread, f.ModelReturned)[-1].blocks[0].text
    assert f"these were {MAX_SHOWN_CHARS} of its {count} characters" in shown
    assert "y" * MAX_SHOWN_CHARS in shown and "y" * (MAX_SHOWN_CHARS + 1) not in shown
    assert max(world.read.sizes[:-1]) < LARGE_BYTES


async def test_while_the_store_is_away_a_result_that_fits_its_record_stays_in_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_dispatcher.owner._KEEP_S", 0.05)
    thread = new_thread()
    store = Store(world.objects)
    store.writes = ObjectsUnavailable("away")
    async with world.dispatcher(objects=store):
        await world.ask(thread, post(f'/tool repeat {{"text": "y", "times": {2 * LARGE_BYTES}}}\n/text done'))
        await world.read.ended(thread)
    (returned,) = world.read.of(thread, f.ToolReturned)
    assert returned.result == "y" * 2 * LARGE_BYTES
    assert max(world.read.sizes) > 2 * LARGE_BYTES


async def test_cancelling_while_a_large_answer_is_stored_keeps_what_was_said(world: World) -> None:
    thread = new_thread()
    store = Store(world.objects)
    store.writes = ObjectsUnavailable("away")
    async with world.dispatcher(objects=store):
        posted = await world.ask(thread, post("x" * (LARGE_BYTES - 20)))
        await eventually(lambda: store.asked > 0)
        await world.ask(thread, CancelRun(principal=ANN, run_id=posted.run_id))
        await world.read.ended(thread)
    end = world.read.of(thread, f.RunCancelled)[-1]
    assert end.run_id == posted.run_id and "x" * (LARGE_BYTES - 20) in end.blocks[0].text


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_run_is_cancelled_however_much_was_said(
    world: World, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    monkeypatch.setattr("parley_dispatcher.owner._KEEP_S", 0.05)
    thread = new_thread()
    store = Store(world.objects)
    async with world.dispatcher(objects=store):
        posted = await world.ask(thread, post(f"/text {'x' * LARGE_BYTES}\n/wait 60000"))
        await eventually(lambda: bool(world.read.pieces))
        monkeypatch.setattr("parley_events.codec.MAX_VALUE_BYTES", LARGE_BYTES)
        store.writes = None if comes_back else ObjectsUnavailable("away")
        await world.ask(thread, CancelRun(principal=ANN, run_id=posted.run_id))
        await world.read.ended(thread)
    (end,) = world.read.of(thread, f.RunCancelled)
    assert [len(block.text) for block in end.blocks] == ([LARGE_BYTES] if comes_back else [])


async def test_large_commands_that_wait_for_the_store_hold_up_the_reading(world: World) -> None:
    thread = new_thread()
    store = Store(world.objects)
    store.writes = ObjectsUnavailable("away")
    async with world.dispatcher(objects=store, window_mb=1) as dispatcher:
        asked = [await world.put(thread, post(f"/text {n}\n{BIG[: LARGE_BYTES // 2]}")) for n in range(3)]
        owner = dispatcher.owner(thread)
        await eventually(lambda: owner.waiting == 3)
        assert owner.choked
        store.writes = None
        for one in asked:
            assert (await world.read.outcome(one)).type == "message.posted"
        await eventually(lambda: not owner.choked)


async def test_a_command_that_refers_to_more_than_memory_should_hold_fetches_nothing(world: World) -> None:
    thread = new_thread()
    store = Store(world.objects)
    record = encode_command(command(thread, post("/text hello")), PARTITIONS)
    absurd = ",".join(f"field_{letter}={letter * 64}:{32 * 1024 * 1024}" for letter in "abc")
    async with world.dispatcher(objects=store):
        await world.send(replace(record, headers=(*record.headers, (OBJECTS_HEADER, absurd.encode()))))
        await world.ask(thread, post("/text next"))
    assert store.asked == 0
    assert len(world.read.of(thread, f.MessagePosted)) == 1

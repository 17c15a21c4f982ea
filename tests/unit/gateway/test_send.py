"""Sending: one request, one command, one answer; what happens when the log does not take it."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import httpx2
import pytest

from parley_events import ids
from parley_events.codec import COMMANDS_TOPIC, decode_command
from parley_events.errors import LogUnavailable, ProducerBroken
from parley_events.log import Outgoing
from parley_gateway.send import body_hash
from tests.support.sse import text_of
from tests.support.system import collect, new_thread
from tests.unit.gateway.world import World, silence, world

THREADS = "/api/v1/chat/threads"


def messages(thread: str) -> str:
    return f"{THREADS}/{thread}/messages"


async def commands(here: World) -> list[Any]:
    tail = await here.log.tail(COMMANDS_TOPIC, dict.fromkeys(range(here.log.partitions), 0))
    found = [decode_command(record) for record in await tail.batch(0.2)]
    await tail.close()
    return found


async def test_a_message_is_accepted_with_its_ids_and_position(here: World) -> None:
    here.dispatcher.play = silence
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        first = (await client.post(messages(thread), json={"content": "one"})).json()
        second = (await client.post(messages(thread), json={"content": "two"})).json()
    assert first["thread_id"] == first["conversation_id"] == thread
    assert first["position"] == f"{thread}@2" and second["position"] == f"{thread}@3"
    assert (first["status"], second["status"]) == ("running", "queued")
    assert ids.thread_of(first["run_id"]) == thread and ids.thread_of(first["message_id"]) == thread
    assert first["events_url"] == f"/api/v1/chat/runs/{first['run_id']}/events"
    [command] = [c for c in await commands(here) if c.type == "message.post" and c.body.text == "one"]
    assert (command.body.agent_id, command.body.agent_version) == ("scripted", 1), "the newest version is named"


async def test_a_thread_with_a_random_id_is_marked_as_fresh(here: World) -> None:
    async with here.client() as client:
        random = await new_thread(client, "scripted")
        keyed = (await client.post(THREADS, json={}, headers={"Idempotency-Key": "k"})).json()["id"]
    fresh = {c.stream: c.fresh for c in await commands(here)}
    assert fresh[random] is True
    assert fresh[keyed] is False


async def test_a_repeated_request_is_answered_byte_for_byte_on_any_gateway(here: World) -> None:
    here.dispatcher.play = silence
    await here.gateway()
    key = {"Idempotency-Key": "the same"}
    async with here.client() as client, here.client(1) as other:
        made = [
            await c.post(THREADS, json={"title": "t", "metadata": {"a": [1]}}, headers=key) for c in (client, other)
        ]
        assert {answer.status_code for answer in made} == {201}
        assert made[0].content == made[1].content
        assert ["idempotency-replayed" in answer.headers for answer in made] == [False, True]
        thread = made[0].json()["id"]
        said = await asyncio.gather(
            *((client, other)[n % 2].post(messages(thread), json={"content": "hi"}, headers=key) for n in range(10))
        )
        assert len({answer.content for answer in said}) == 1
        assert sum("idempotency-replayed" in answer.headers for answer in said) == 9
        conflict = await other.post(messages(thread), json={"content": "ho"}, headers=key)
        assert (conflict.status_code, conflict.json()["error"]) == (409, "idempotency_conflict")
        elsewhere = await new_thread(client, "scripted")
        assert (await client.post(messages(elsewhere), json={"content": "ho"}, headers=key)).status_code == 202


async def test_a_refusal_is_repeated_too(here: World) -> None:
    key = {"Idempotency-Key": "refused"}
    async with here.client() as client:
        path = messages(str(uuid.uuid4()))
        first = await client.post(path, json={"content": "hi"}, headers=key)
        again = await client.post(path, json={"content": "hi"}, headers=key)
    assert (first.status_code, first.json()["error"]) == (404, "not_found")
    assert (again.status_code, again.content) == (404, first.content)
    assert again.headers["Idempotency-Replayed"] == "true"


async def test_a_cut_stream_is_tried_again_as_a_stream_or_a_plain_call(here: World) -> None:
    key = {"Idempotency-Key": "cut"}
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        first = await collect(client, "POST", messages(thread), json={"content": "hi"}, headers=key)
        again = await collect(client, "POST", messages(thread), json={"content": "hi"}, headers=key)
        assert text_of(again) == text_of(first) == "Hello world"
        assert [f.data["seq"] for f in again if f.data["type"] == "message.posted"] == [2]
        waited = await client.post(messages(thread), json={"content": "hi"}, headers=key, params={"wait": "5"})
        assert waited.status_code == 200
        assert waited.json()["message"]["content"] == "Hello world"
        plain = await client.post(messages(thread), json={"content": "hi"}, headers=key)
        assert plain.status_code == 202 and plain.json()["run_id"] == first[0].data["run_id"]


async def test_waiting_ends_with_the_run_or_with_the_wait(here: World) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        here.past.away = True
        done = await client.post(messages(thread), json={"content": "hi"}, params={"wait": ""})
        assert done.status_code == 200, "built from the facts alone"
        body = done.json()
        assert body["run"]["status"] == "completed" and body["run"]["usage"] == {"input_tokens": 3, "output_tokens": 4}
        assert body["message"]["id"] == body["run"]["message_id"]
        here.past.away = False
        stored = await client.get(f"/api/v1/chat/runs/{body['run']['id']}")
        assert stored.json() == body["run"], "as history has it"
        kept = (await client.get(messages(thread))).json()["items"][-1]
        assert kept == body["message"]
        here.dispatcher.play = silence
        for wait in ("0", "0.05"):
            late = await client.post(messages(thread), json={"content": "hi"}, params={"wait": wait})
            assert late.status_code == 202
            assert {"run_id", "conversation_id", "events_url"} <= set(late.json())
        for wait in ("-1", "soon", "nan"):
            bad = await client.post(messages(thread), json={"content": "hi"}, params={"wait": wait})
            assert bad.status_code == 400, wait


async def test_no_outcome_in_time_is_202_with_the_ids_that_will_be() -> None:
    async with world(outcome_s=0.2) as here, here.client() as client:
        here.dispatcher.play = silence
        thread = await new_thread(client, "scripted")
        here.dispatcher.deaf = True
        key = {"Idempotency-Key": "late"}
        late = await client.post(messages(thread), json={"content": "hi"}, headers=key)
        assert late.status_code == 202
        here.dispatcher.deaf = False
        again = await client.post(messages(thread), json={"content": "hi"}, headers=key)
        assert again.status_code == 202
        assert again.json()["run_id"] == late.json()["run_id"]
        assert again.json()["message_id"] == late.json()["message_id"]


class DeadProducer:
    """Takes records and never gets rid of them."""

    broken = False
    closed = False

    def send(self, record: Outgoing, *, now: bool = False) -> asyncio.Future[int]:
        return asyncio.get_running_loop().create_future()

    async def close(self, grace_s: float = 5.0) -> None:
        self.closed = True


class BrokenProducer(DeadProducer):
    broken = True

    def send(self, record: Outgoing, *, now: bool = False) -> asyncio.Future[int]:
        raise ProducerBroken("broken")


async def test_a_log_that_takes_nothing_is_503_and_the_next_request_has_a_new_producer() -> None:
    async with world(outcome_s=0.2) as here, here.client() as client:
        thread = await new_thread(client, "scripted")
        dead = DeadProducer()
        here.core.sender._producer = dead
        answer = await client.post(messages(thread), json={"content": "hi"})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert answer.json()["error"] == "unavailable"
        assert dead.closed, "what was not sent is dropped: nothing is half-accepted"
        assert (await client.post(messages(thread), json={"content": "hi"})).status_code == 202


async def test_a_broken_producer_is_replaced_within_the_request(here: World) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        here.core.sender._producer = BrokenProducer()
        assert (await client.post(messages(thread), json={"content": "hi"})).status_code == 202


async def test_a_send_of_unknown_outcome_is_decided_by_the_log(here: World) -> None:
    """The acknowledgement is lost, the record is not: the outcome on the tail is the answer."""
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        real = here.core.sender._producer
        assert real is not None
        deliver = real.send

        class Lossy(DeadProducer):
            def send(self, record: Outgoing, *, now: bool = False) -> asyncio.Future[int]:
                deliver(record)
                lost: asyncio.Future[int] = asyncio.get_running_loop().create_future()
                lost.set_exception(LogUnavailable("no answer"))
                return lost

        here.core.sender._producer = Lossy()
        assert (await client.post(messages(thread), json={"content": "hi"})).status_code == 202
        here.core.sender._producer = real


async def test_a_log_without_producers_is_503(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")

        async def none() -> Any:
            raise LogUnavailable("away")

        here.core.sender._producer = None
        monkeypatch.setattr(here.log, "producer", none)
        answer = await client.post(messages(thread), json={"content": "hi"})
        assert answer.status_code == 503 and answer.headers["Retry-After"]


async def test_one_reads_ones_own_writes(here: World) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        await client.get(f"{THREADS}/{thread}")
        here.past.held.clear()
        changed = asyncio.create_task(client.patch(f"{THREADS}/{thread}", json={"title": "new"}))
        end = here.core.hub.end_of(thread)
        await here.eventually(lambda: here.core.hub.end_of(thread) != end)
        read = asyncio.create_task(client.get(f"{THREADS}/{thread}"))
        await here.eventually(lambda: here.past.asked[-2:] == [here.past.asked[-1]] * 2)
        here.past.held.set()
        assert (await changed).json()["title"] == "new"
        assert (await read).json()["title"] == "new"


async def test_an_id_from_another_gateway_is_waited_for(here: World) -> None:
    await here.gateway()
    here.dispatcher.play = silence
    async with here.client() as client, here.client(1) as other:
        here.past.held.clear()
        thread = await new_thread(client, "scripted")
        reading = asyncio.create_task(other.get(f"{THREADS}/{thread}"))
        await here.eventually(lambda: sum(f"threads/{thread}" in path for path in here.past.asked) >= 2)
        here.past.held.set()
        assert (await reading).status_code == 200
        run = (await client.post(messages(thread), json={"content": "hi"})).json()["run_id"]
        assert (await other.get(f"/api/v1/chat/runs/{run}")).status_code == 200


async def test_a_position_that_is_asked_for_is_waited_for_or_said_to_be_ahead(here: World) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        assert (await client.get(f"{THREADS}/{thread}", params={"min_position": f"{thread}@1"})).status_code == 200
        ahead = await client.get(f"{THREADS}/{thread}", params={"min_position": f"{thread}@9"})
        assert (ahead.status_code, ahead.json()["error"]) == (503, "behind")
        bad = await client.get(f"{THREADS}/{thread}", params={"min_position": "soon"})
        assert (bad.status_code, bad.json()["error"]) == (400, "bad_position")


async def test_sending_goes_on_while_reading_cannot(here: World) -> None:
    async with here.client() as client:
        thread = await new_thread(client, "scripted")
        here.past.away = True
        answers: list[httpx2.Response] = [
            await client.get(f"{THREADS}/{thread}"),
            await client.get(THREADS),
            await client.get(messages(thread)),
        ]
        assert {answer.status_code for answer in answers} == {503}
        assert all(answer.headers["Retry-After"] for answer in answers)
        assert (await client.post(messages(thread), json={"content": "hi"})).status_code == 202
        assert (await client.post(THREADS, json={})).status_code == 201
        assert (await client.patch(f"{THREADS}/{thread}", json={"title": "x"})).status_code == 202


def test_the_hash_of_a_body_does_not_depend_on_the_order_of_its_fields() -> None:
    assert body_hash("t", {"a": 1, "b": [2]}) == body_hash("t", {"b": [2], "a": 1})
    assert body_hash("t", {"a": 1}) != body_hash("u", {"a": 1})

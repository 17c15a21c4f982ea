"""The main way, on both kinds of system: a message in, an agent at work, the answer streamed and kept."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from pathlib import Path
from typing import Any

import httpx2

from tests.support.pages import outputs
from tests.support.sse import Frame, text_of
from tests.support.system import System, collect, eventually, new_thread, stream

MESSAGES = "/api/v1/chat/threads/{}/messages"
TALK = '/think Let me see.\n/text Looking  it up. \n/tool calculator {"expression": "6*7"}\n/text It is 42.'


async def post(client: httpx2.AsyncClient, thread: str, content: str, **options: Any) -> dict[str, Any]:
    answer = await client.post(MESSAGES.format(thread), json={"content": content}, **options)
    assert answer.status_code in (200, 202), answer.text
    return dict(answer.json())


async def messages(client: httpx2.AsyncClient, thread: str) -> list[dict[str, Any]]:
    answer = await client.get(MESSAGES.format(thread))
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_a_streamed_answer_is_the_stored_message(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        frames = await collect(client, "POST", MESSAGES.format(thread), json={"content": TALK})
        assert frames[0].type == "message.posted"
        assert frames[-1].type == "run.completed"
        assert all(frame.id for frame in frames if frame.type.endswith(".delta"))
        text = text_of(frames)
        assert text == "Looking  it up. It is 42."
        assert text_of(frames, "thought.delta") == "Let me see."
        run = frames[-1].data["run_id"]
        assert frames[-1].data["message_id"] == frames[1].data["message_id"]

        async def stored() -> list[dict[str, Any]]:
            return [m for m in await messages(client, thread) if m["role"] == "assistant"]

        [answer] = await eventually(stored)
        assert answer["content"] == text
        assert answer["id"] == frames[-1].data["message_id"]
        assert answer["run_id"] == run
        calls = [f for f in frames if f.type in ("tool.called", "tool.returned")]
        assert [c.data["tool_call"]["name"] for c in calls] == ["calculator", "calculator"]
        assert json.loads(calls[1].data["tool_call"]["result"]) == {"result": 42}
        view = (await client.get(f"/api/v1/chat/runs/{run}")).json()
        assert view["status"] == "completed"
        assert view["usage"]["output_tokens"] > 0


async def test_a_message_without_directives_gets_the_time_and_an_echo(system: System) -> None:
    async with system.client() as client:
        answer = await client.post(
            MESSAGES.format(await new_thread(client, "assistant")), params={"wait": "20"}, json={"content": "hello"}
        )
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["run"]["status"] == "completed"
        assert re.search(r'You said: "hello".*\d{4}-\d\d-\d\dT', body["message"]["content"])


async def test_202_names_what_can_be_read_at_once(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        accepted = await post(client, thread, "/text one two")
        assert accepted["thread_id"] == thread
        run = await client.get(f"/api/v1/chat/runs/{accepted['run_id']}", params={"min_position": accepted["position"]})
        assert run.status_code == 200, run.text
        frames = await collect(client, "GET", f"/api/v1/chat/runs/{accepted['run_id']}/events")
        assert text_of(frames) == "one two"
        page = (
            await client.get(f"/api/v1/chat/threads/{thread}/events", headers={"Accept": "application/json"})
        ).json()
        types = [item["type"] for item in page["items"]]
        assert types[:2] == ["thread.created", "message.posted"]
        assert types[-1] == "run.completed"
        assert [item["seq"] for item in page["items"]] == list(range(1, len(types) + 1))


async def test_every_id_of_a_stream_resumes_exactly(system: System) -> None:
    """200 pieces; from each id the rest is what one that never left saw, on the other gateway where there is one."""
    other = len(system.ready()["gateways"]) - 1
    async with system.client() as client, system.client(other) as second:
        thread = await new_thread(client)
        frames = await collect(
            client, "POST", MESSAGES.format(thread), json={"content": '/stream 200 1\n/tool echo {"a": 1}\n/text end'}
        )
        whole = text_of(frames)
        assert whole == "".join(f"{i:04d} " for i in range(200)) + "end"
        run = frames[0].data["run_id"]
        facts = [f.data for f in frames if not f.type.endswith(".delta")]

        async def resumed(place: int) -> None:
            before = frames[: place + 1]
            rest = await collect(
                second, "GET", f"/api/v1/chat/runs/{run}/events", headers={"Last-Event-ID": frames[place].id or ""}
            )
            together = before + rest
            assert text_of(together) == whole, f"resumed at {frames[place].id}"
            assert [f.data for f in together if not f.type.endswith(".delta")] == facts

        ids = [place for place, frame in enumerate(frames) if frame.id][:-1]
        for batch in range(0, len(ids), 16):
            await asyncio.gather(*(resumed(place) for place in ids[batch : batch + 16]))


async def test_a_stream_that_is_left_in_the_middle_is_taken_up_live(system: System) -> None:
    other = len(system.ready()["gateways"]) - 1
    async with system.client() as client, system.client(other) as second:
        thread = await new_thread(client)
        seen: list[Frame] = []
        async with stream(client, "POST", MESSAGES.format(thread), json={"content": "/stream 100 20"}) as (_, frames):
            async for frame in frames:
                seen.append(frame)
                if len(text_of(seen)) >= 100:
                    break
        rest = await collect(
            second,
            "GET",
            f"/api/v1/chat/runs/{seen[0].data['run_id']}/events",
            headers={"Last-Event-ID": seen[-1].id or ""},
        )
        assert text_of(seen + rest) == "".join(f"{i:04d} " for i in range(100))
        assert sum(1 for f in rest if f.type == "text.delta") > 5, "the rest came live, not only with the fact"


async def test_the_end_can_be_asked_for_again(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        frames = await collect(client, "POST", MESSAGES.format(thread), json={"content": "/text done"})
        run = frames[0].data["run_id"]
        again = await collect(
            client, "GET", f"/api/v1/chat/runs/{run}/events", headers={"Last-Event-ID": frames[-1].id or ""}
        )
        assert again == []


async def test_cursors_that_are_garbage_or_ahead_are_refused(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        run = (await post(client, thread, "/text x", params={"wait": "20"}))["run"]["id"]
        for cursor, code in (("garbage", "bad_cursor"), ("1/2", "bad_cursor"), ("999999", "cursor_ahead")):
            answer = await client.get(
                f"/api/v1/chat/runs/{run}/events", headers={"Last-Event-ID": cursor, "Accept": "text/event-stream"}
            )
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"] == code


async def test_two_messages_at_once_are_answered_one_after_the_other(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        first = await post(client, thread, "/stream 20 20")
        second = await post(client, thread, "/text second")
        assert second["status"] == "queued"
        frames = await collect(client, "GET", f"/api/v1/chat/runs/{second['run_id']}/events")
        assert text_of(frames) == "second"
        page = (
            await client.get(f"/api/v1/chat/threads/{thread}/events", headers={"Accept": "application/json"})
        ).json()
        order = [(i["type"], i["run_id"]) for i in page["items"] if i["type"] in ("model.called", "run.completed")]
        assert order == [
            ("model.called", first["run_id"]),
            ("run.completed", first["run_id"]),
            ("model.called", second["run_id"]),
            ("run.completed", second["run_id"]),
        ]


async def test_an_idempotency_key_answers_twenty_at_once_with_one_run(system: System) -> None:
    gateways = len(system.ready()["gateways"])
    async with system.client() as client, system.client(gateways - 1) as second:
        thread = await new_thread(client)
        key = {"Idempotency-Key": str(uuid.uuid4())}
        answers = await asyncio.gather(
            *(
                (client, second)[n % 2].post(MESSAGES.format(thread), json={"content": "/text once"}, headers=key)
                for n in range(20)
            )
        )
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.content for answer in answers}) == 1, "the same answer, byte for byte"
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 19
        other = await client.post(MESSAGES.format(thread), json={"content": "/text other"}, headers=key)
        assert other.status_code == 409, other.text
        await collect(client, "GET", f"/api/v1/chat/runs/{answers[0].json()['run_id']}/events")

        async def posted() -> bool:
            return len([m for m in await messages(second, thread) if m["role"] == "user"]) == 1

        await eventually(posted)
        made = [
            (await (client, second)[n % 2].post("/api/v1/chat/threads", json={"title": "t"}, headers=key)).json()["id"]
            for n in range(4)
        ]
        assert len(set(made)) == 1


async def test_model_errors_are_tried_again_and_the_text_is_the_last_attempts(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        frames = await collect(
            client, "POST", MESSAGES.format(thread), json={"content": "/text one two \n/error cut 2\n/text three"}
        )
        assert frames[-1].type == "run.completed"
        assert sum(f.type == "run.restarted" for f in frames) == 2
        assert text_of(frames) == "one two three"
        failed = await collect(client, "POST", MESSAGES.format(thread), json={"content": "/error 400\n/text no"})
        assert failed[-1].type == "run.failed"
        assert failed[-1].data["error"]["code"] == "model_400"
        spent = await collect(client, "POST", MESSAGES.format(thread), json={"content": "/error 529 always"})
        assert spent[-1].data["error"]["code"] == "model_529"
        assert sum(f.type == "model.failed" for f in spent) == 5


async def test_tools_at_once_fail_and_are_unknown_without_harm(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        script = (
            '/tool echo {"n": 1}\n/tool fail {"message": "no luck"}\n/tool nonsense {}\n/tool sleep {"ms": 20}\n'
            '/tool calculator {"expression": "1/0"}\n/tool append_line {"file": "a.txt", "line": "hello"}'
        )
        frames = await collect(client, "POST", MESSAGES.format(thread), json={"content": script})
        assert frames[-1].type == "run.completed"
        results = {f.data["tool_call"]["name"]: f.data["tool_call"] for f in frames if f.type == "tool.returned"}
        assert len(results) == 6
        assert [name for name, call in results.items() if call["is_error"]] != []
        assert {n for n, c in results.items() if c["is_error"]} == {"fail", "nonsense", "calculator"}
        line = (system.folder / "data" / "effects" / "a.txt").read_text().splitlines()[-1]
        assert line.endswith("\thello")


async def test_an_agent_asks_another(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        frames = await collect(
            client,
            "POST",
            MESSAGES.format(thread),
            json={"content": '/tool ask_agent {"agent_id": "analyst", "message": "/text The numbers are fine."}'},
        )
        [answer] = [f.data["tool_call"] for f in frames if f.type == "tool.returned"]
        assert answer["result"] == "The numbers are fine."
        assert not any(f.type == "text.delta" for f in frames), "a run's stream shows its own run only"


async def test_a_learned_skill_is_found_again_in_a_later_chat(system: System) -> None:
    slug = f"skill-{uuid.uuid4().hex[:8]}"
    async with system.client() as client:
        learn = json.dumps({"slug": slug, "name": "Launch campaigns", "body": "Step one."})
        await collect(
            client, "POST", MESSAGES.format(await new_thread(client)), json={"content": f"/tool learn_skill {learn}"}
        )
        frames = await collect(
            client,
            "POST",
            MESSAGES.format(await new_thread(client)),
            json={"content": f'/tool list_skills {{"query": "launch"}}\n/tool read_skill {{"slug": "{slug}"}}'},
        )
        listed, read = [f.data["tool_call"]["result"] for f in frames if f.type == "tool.returned"]
        assert slug in listed + read
        assert "Step one." in listed + read


async def test_a_run_can_be_cancelled_and_the_thread_goes_on(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        async with stream(client, "POST", MESSAGES.format(thread), json={"content": "/stream 1000 20"}) as (_, frames):
            seen = []
            async for frame in frames:
                seen.append(frame)
                if frame.type == "text.delta" and len(seen) < 30 and len(text_of(seen)) >= 10:
                    cancelled = await client.post(f"/api/v1/chat/runs/{seen[0].data['run_id']}/cancel")
                    assert cancelled.status_code == 200, cancelled.text
                    break
            seen += [frame async for frame in frames]
        assert seen[-1].type == "run.cancelled"
        text = text_of(seen)
        after = await post(client, thread, "/text on we go", params={"wait": "20"})
        assert after["message"]["content"] == "on we go"
        kept = [m for m in await messages(client, thread) if m["role"] == "assistant"]
        assert kept[0]["content"] == text


async def test_threads_are_listed_changed_and_deleted(system: System) -> None:
    async with system.client() as client:
        title = f"title {uuid.uuid4()}"
        thread = (await client.post("/api/v1/chat/threads", json={"title": title, "metadata": {"a": 1}})).json()
        assert thread["title"] == title and thread["metadata"] == {"a": 1} and thread["message_count"] == 0
        path = f"/api/v1/chat/threads/{thread['id']}"
        assert (await client.patch(path, json={"title": "new", "pinned": True})).json()["title"] == "new"
        assert (await client.get(path)).json()["pinned"] is True
        listed = (await client.get("/api/v1/chat/threads", params={"limit": "5"})).json()
        assert listed["items"][0]["id"] == thread["id"]
        assert listed["total"] >= 1
        assert (await client.patch(path, json={"archived": True})).status_code == 200
        hidden = (await client.get("/api/v1/chat/threads", params={"limit": "200"})).json()
        assert thread["id"] not in [item["id"] for item in hidden["items"]]
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == 404
        assert (await client.post(path + "/messages", json={"content": "x"})).status_code == 404


def test_the_lines_of_the_page_on_forks_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    _, copied, after = (json.loads(part or "null") for part in outputs(standalone, "forks.md", tmp_path))
    assert [item["content"] for item in copied["items"]] == [
        "/text Let us begin with tea.",
        "Let us begin with tea.",
    ]
    assert [item["seq"] <= 0 for item in copied["items"]] == [True, True]
    shown = json.loads(after["message"]["content"])
    assert [block["text"] for message in shown for block in message["content"]] == [
        "/text Let us begin with tea.",
        "Let us begin with tea.",
        "/show messages",
    ]


async def test_a_fork_is_what_its_source_was_and_goes_on_alone(system: System) -> None:
    """On whichever gateway it is made, read and gone on with."""
    last = len(system.ready()["gateways"]) - 1
    async with system.client() as client, system.client(last) as second:
        thread = await new_thread(client)
        await post(client, thread, TALK, params={"wait": "20"})
        await post(client, thread, '/tool save_artifact {"name": "a.txt", "content": "tea"}', params={"wait": "20"})
        running = await post(client, thread, "/text So far.\n/wait 2000\n/text And more.")

        source = await messages(client, thread)
        made = await second.post(f"/api/v1/chat/threads/{thread}/fork", json={"title": "branch"})
        assert made.status_code == 201, made.text
        fork = made.json()["id"]
        copies = await messages(client, fork)
        own = ("id", "seq", "thread_id", "run_id")
        assert [{n: one[n] for n in one if n not in own} for one in copies[: len(source)]] == [
            {n: one[n] for n in one if n not in own} for one in source
        ]
        assert (await client.get(f"/api/v1/chat/threads/{fork}/files/a.txt")).text == "tea"
        ran = (await second.get(f"/api/v1/chat/runs/{copies[0]['run_id']}")).json()
        assert (ran["status"], ran["usage"]["output_tokens"]) == ("completed", 0), "it ran in the source"

        earlier = source[-1]["seq"] - 1
        branch = (await client.post(f"/api/v1/chat/threads/{thread}/fork", json={"at": earlier})).json()["id"]
        ended = await collect(client, "GET", f"/api/v1/chat/runs/{running['run_id']}/events")
        assert (ended[-1].type, text_of(ended)) == ("run.completed", "So far.And more."), "it went on in the source"
        again = (await second.post(f"/api/v1/chat/threads/{thread}/fork", json={})).json()["id"]
        shown = [
            (await post(client, one, "/show messages", params={"wait": "20"}))["message"]["content"]
            for one in (thread, again)
        ]
        assert shown[0] == shown[1], "the model is shown the same"

        assert (await client.delete(f"/api/v1/chat/threads/{thread}")).status_code == 204
        assert await messages(second, fork) == copies
        answer = await post(second, branch, "/show messages", params={"wait": "20"})
        told = json.loads(answer["message"]["content"])
        assert json.dumps(told[-1]["content"]).endswith('"/show messages"}]')
        assert "So far" not in json.dumps(told)
        assert (await client.post(f"/api/v1/chat/threads/{thread}/fork", json={})).status_code == 404


async def test_bad_input_is_refused_in_the_contracts_words(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        path = MESSAGES.format(thread)
        as_json = {"Content-Type": "application/json"}
        cases: list[tuple[httpx2.Response, int]] = [
            (await client.post(path, content=b"{", headers=as_json), 400),
            (await client.post(path, content=b'"x"', headers=as_json), 400),
            (await client.post(path, content=b'{"content": "\xff"}', headers=as_json), 400),
            (await client.post(path, content=b'{"content": "\\ud800"}', headers=as_json), 400),
            (await client.post(path, json={"content": "a\x00b"}), 400),
            (await client.post(path, json={"content": ""}), 400),
            (await client.post(path, json={"content": 7}), 400),
            (await client.post(path, json={}), 400),
            (await client.post(path, content=b"[" * 100_000, headers=as_json), 400),
            (await client.post(path, json={"content": "x" * (1024 * 1024 + 1)}), 413),
            (await client.post(path, content=b"x", headers={"Content-Type": "text/plain"}), 415),
            (await client.post(path, json={"content": "x", "agent_id": "nobody"}), 400),
            (await client.put(path, json={}), 405),
            (await client.get("/api/v1/chat/nothing"), 404),
            (await client.get(MESSAGES.format(uuid.uuid4())), 404),
            (await client.get("/api/v1/chat/runs/garbage"), 404),
            (await client.get("/api/v1/chat/threads", params={"limit": "201"}), 400),
            (await client.get("/api/v1/chat/threads", params={"cursor": "garbage"}), 400),
            (await client.post(path, json={"content": "x"}, params={"wait": "-1"}), 400),
            (await client.get(path, params={"min_position": "garbage"}), 400),
        ]
        for answer, status in cases:
            assert answer.status_code in ((status, 404) if "nobody" in answer.text else (status,)), answer.text
            assert isinstance(answer.json()["error"], str), answer.text
            assert answer.json()["message"], answer.text


async def test_a_megabyte_message_goes_through(system: System) -> None:
    async with system.client() as client:
        thread = await new_thread(client)
        content = "/text ok\n" + "x" * (1024 * 1024 - 9)
        frames = await collect(client, "POST", MESSAGES.format(thread), json={"content": content})
        assert frames[0].data["content"] == content
        assert text_of(frames) == "ok"


async def test_keys_open_their_own_workspace_only(system: System) -> None:
    ready = system.ready()
    async with system.client() as client, system.client(key=ready["admin_key"]) as admin:
        thread = await new_thread(client)
        run = (await post(client, thread, "/text mine", params={"wait": "20"}))["run"]["id"]
        workspace = (await admin.post("/api/v1/workspaces", json={"name": f"w-{uuid.uuid4().hex[:8]}"})).json()
        made = await admin.post("/api/v1/keys", json={"workspace": workspace["id"], "user": "eve", "scopes": ["*"]})
        assert made.status_code == 201, made.text
        foreign = made.json()
        async with system.client(key=foreign["key"]) as eve:
            for path in (
                f"/api/v1/chat/threads/{thread}",
                f"/api/v1/chat/threads/{thread}/messages",
                f"/api/v1/chat/threads/{thread}/events",
                f"/api/v1/chat/runs/{run}",
                f"/api/v1/chat/runs/{run}/events",
            ):
                assert (await eve.get(path)).status_code == 404, path
            assert (await eve.post(MESSAGES.format(thread), json={"content": "hi"})).status_code == 404
            assert (await eve.get("/api/v1/chat/threads")).json()["items"] == []
            own = await new_thread(eve, "assistant")
            assert (await client.get(f"/api/v1/chat/threads/{own}")).status_code == 404
            assert (
                await admin.delete(f"/api/v1/keys/{foreign['id']}", params={"workspace": workspace["id"]})
            ).status_code in (204, 404)
        colleague = (await admin.post("/api/v1/keys", json={"user": "bob", "scopes": ["*"]})).json()
        async with system.client(key=colleague["key"]) as bob:
            assert (await bob.get(f"/api/v1/chat/threads/{thread}")).status_code == 404
            assert (await admin.delete(f"/api/v1/keys/{colleague['id']}")).status_code == 204

            async def locked_out() -> bool:
                return (await bob.get("/api/v1/chat/threads")).status_code == 401

            await eventually(locked_out, 2.0)
        async with system.client(key="nonsense") as nobody:
            assert (await nobody.get("/api/v1/chat/threads")).status_code == 401

"""Parley over MCP, with the official client: every tool, progress, what waits, what fails, and nobody else's things."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from parley_events.body import Attachment, Block
from parley_events.codec import Fact
from parley_events.keys import make_key
from parley_gateway.mcp import McpServer, endpoint, following
from tests.support.asgi import ask, exchange
from tests.support.mcp_client import connected, text_of
from tests.unit.gateway.world import (
    STRUCTURE,
    WORKSPACE,
    Dispatcher,
    World,
    say,
    silence,
    tool_block,
    world,
)

OTHER = "22222222-2222-4333-8444-555555555555"
HEADERS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def client(here: World, key: str | None = None, gateway: int = 0, **options: Any) -> Any:
    return connected(here.gateways[gateway][1], key or here.key, **options)


async def new_key(here: World, *scopes: str, user: str = "ann") -> str:
    async with here.client(key=here.admin_key) as http:
        made = await http.post("/api/v1/keys", json={"user": user, "scopes": list(scopes)})
    return str(made.json()["key"])


@pytest.mark.parametrize("modern", [False, True])
async def test_a_chat_from_its_first_word_to_its_history(here: World, modern: bool) -> None:
    here.dispatcher.play = say("Hello ", "wonderful ", "world")
    async with client(here, modern=modern) as parley:
        tools = (await parley.session.list_tools()).tools
        assert [tool.name for tool in tools] == [
            *("list_chat_threads", "create_chat_thread", "send_chat_message", "get_chat_thread", "do")
        ]
        assert all(tool.description and tool.input_schema["type"] == "object" for tool in tools)
        thread = await parley.data("create_chat_thread", system_prompt="Be brief.", agent_id="scripted", title="T")
        assert (thread["system_prompt"], thread["agent_id"], thread["title"]) == ("Be brief.", "scripted", "T")
        result = await parley.call("send_chat_message", thread_id=thread["id"], content="hi")
        assert not result.is_error and text_of(result) == "Hello wonderful world"
        assert "".join(message or "" for _, message in parley.told) == "Hello wonderful world"
        counts = [count for count, _ in parley.told]
        assert counts == sorted(set(counts)), "progress rises"
        assert result.structured_content["status"] == "completed"
        told = await parley.data("get_chat_thread", thread_id=thread["id"])
        assert told["thread"]["title"] == "T"
        assert [(m["role"], m["content"]) for m in told["messages"]] == [
            ("user", "hi"),
            ("assistant", "Hello wonderful world"),
        ]
        assert told["messages"][1]["run_id"] == result.structured_content["run_id"]
        listed = await parley.data("list_chat_threads", user_id="ann")
        assert [item["id"] for item in listed["items"]] == [thread["id"]] and listed["total"] == 1
        assert await parley.data("list_chat_threads") == listed


async def test_an_open_thread_needs_no_word_at_all(here: World) -> None:
    async with client(here) as parley:
        thread = await parley.data("create_chat_thread")
        assert thread["agent_id"] is None
        result = await parley.call("send_chat_message", thread_id=thread["id"], content="hi")
        assert text_of(result) == "Hello world"


async def test_do_is_the_shared_chat_of_a_role(here: World) -> None:
    async def launch(dispatcher: Dispatcher, posted: Fact) -> None:
        call = dispatcher.called(posted)
        dispatcher.returned(posted, call, Block(kind="text", text="I save. "), tool_block("save_artifact", call, {}))
        file = Attachment(name="config.json", content_type="application/json", size=2, sha256="0" * 64)
        dispatcher.use(posted, call, "save_artifact", {}, "{}", files=(file,))
        last = dispatcher.called(posted, turn=1)
        dispatcher.speak(posted, last, ("Launched ", "3 campaigns"))
        dispatcher.returned(posted, last, Block(kind="text", text="Launched 3 campaigns"), turn=1)
        dispatcher.completed(posted)

    here.dispatcher.play = launch
    node = {"structure_id": STRUCTURE, "role_id": "executive-office-cmo"}
    async with client(here) as parley:
        result = await parley.call("do", **node, message="Launch this week's paid campaigns.")
        assert text_of(result) == "Launched 3 campaigns"
        data = result.structured_content
        assert (data["summary"], data["artifacts"]) == ("Launched 3 campaigns", ["config.json"])
        assert any("Launched" in (message or "") for _, message in parley.told)
    async with here.client() as http:
        rows = (await http.get("/api/org/chat/history", params=node)).json()
        assert rows[-1]["content"] == "Launch this week's paid campaigns." and rows[0]["run_id"] == data["run_id"]


async def test_any_replica_serves_any_request(here: World) -> None:
    """A session begun at one gateway goes on at another: there is nothing to know of it."""
    await here.gateway()
    async with client(here) as parley:
        thread = await parley.data("create_chat_thread", agent_id="scripted")
    async with client(here, gateway=1) as parley:
        assert text_of(await parley.call("send_chat_message", thread_id=thread["id"], content="hi")) == "Hello world"
    async with here.client(1) as http:
        for method, params in (("tools/list", {}), ("ping", None)):
            body = {"jsonrpc": "2.0", "id": 1, "method": method} | ({} if params is None else {"params": params})
            answer = await http.post("/mcp", json=body, headers=HEADERS)
            assert answer.status_code == 200 and "mcp-session-id" not in answer.headers, answer.text


# ---- what does not end


async def test_a_run_that_waits_for_a_person_and_the_client_answers_at_once_and_says_what_for(here: World) -> None:
    async def park(dispatcher: Dispatcher, posted: Fact) -> None:
        call = dispatcher.called(posted)
        dispatcher.speak(posted, call, ("I would pay.",))
        blocks = (tool_block("ledger__pay", call, {"eur": 3}), tool_block("get_weather", call, {"location": "Tokyo"}))
        dispatcher.returned(posted, call, Block(kind="text", text="I would pay."), *blocks)
        handed = dispatcher.handed(posted, call, "get_weather", {"location": "Tokyo"}, index=1)
        dispatcher.asked(posted, call, "ledger__pay", {"eur": 3}, question="Shall it be paid?")
        dispatcher.parked(posted, f"call-{call}-ledger__pay", handed, waits_for="approval")

    here.dispatcher.play = park
    async with client(here) as parley:
        thread = await parley.data("create_chat_thread", agent_id="scripted")
        result = await parley.call("send_chat_message", thread_id=thread["id"], content="pay")
        data = result.structured_content
        assert not result.is_error and data["status"] == "waiting" and data["run_id"].startswith(thread["id"])
        weather, approval = data["waits_for"]
        assert approval["approval_id"] == f"{thread['id']}.p6" and approval["question"] == "Shall it be paid?"
        assert approval["expires_at"] and weather["expires_at"]
        assert weather["tool_call"]["arguments"] == {"location": "Tokyo"} and "approval_id" not in weather
        assert (approval["tool_call"]["name"], approval["tool_call"]["arguments"]) == ("ledger__pay", {"eur": 3})
        assert "waits for somebody" in text_of(result) and approval["approval_id"] in text_of(result)


async def test_a_run_that_lasts_longer_than_the_wait_answers_with_its_ids_and_goes_on(here: World) -> None:
    here.dispatcher.play = silence
    async with client(here) as parley:
        thread = await parley.data("create_chat_thread", agent_id="scripted")
        for wait_s in (0, 0.05):
            result = await parley.call("send_chat_message", thread_id=thread["id"], content="hi", wait_s=wait_s)
            data = result.structured_content
            assert not result.is_error and data["status"] in ("running", "queued")
            assert "has not ended yet" in text_of(result) and data["run_id"] in text_of(result)
        assert here.core.hub.listening == 0
        run = (await parley.data("get_chat_thread", thread_id=thread["id"]))["messages"][0]["run_id"]
    async with here.client() as http:
        assert (await http.get(f"/api/v1/chat/runs/{run}")).json()["status"] == "running"


async def test_a_silent_run_is_said_to_be_alive(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "ALIVE_S", 0.02)
    here.dispatcher.play = silence
    async with client(here) as parley:
        thread = await parley.data("create_chat_thread", agent_id="scripted")
        await parley.call("send_chat_message", thread_id=thread["id"], content="hi", wait_s=0.5)
        assert len(parley.told) > 3 and all(message is None for _, message in parley.told)


async def test_a_client_that_leaves_stops_no_run_and_leaves_nothing_behind(here: World) -> None:
    started = asyncio.Event()

    async def slow(dispatcher: Dispatcher, posted: Fact) -> None:
        started.set()

    here.dispatcher.play = slow
    async with client(here) as parley:
        thread = await parley.data("create_chat_thread", agent_id="scripted")
        calling = asyncio.create_task(parley.call("send_chat_message", thread_id=thread["id"], content="hi"))
        await started.wait()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    await here.eventually(lambda: here.core.hub.listening == 0)
    assert not here.dispatcher.state(thread["id"]).outcomes.keys() - {c.id for c in here.dispatcher.heard}
    assert [c.type for c in here.dispatcher.heard if c.stream == thread["id"]] == ["thread.create", "message.post"]


# ---- what fails


async def test_what_becomes_of_a_run_that_ends_otherwise(here: World) -> None:
    async def fail(dispatcher: Dispatcher, posted: Fact) -> None:
        dispatcher.ended(posted, "cut", "the stream broke")

    async def cancel(dispatcher: Dispatcher, posted: Fact) -> None:
        dispatcher.cancelled(posted, None)

    async with client(here) as parley:
        thread = await parley.data("create_chat_thread", agent_id="scripted")
        for play, code in ((fail, "model_cut"), (cancel, "cancelled")):
            here.dispatcher.play = play
            error = await parley.error("send_chat_message", thread_id=thread["id"], content="hi")
            assert error["error"] == code and error["details"]["run_id"].startswith(thread["id"])


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("create_chat_thread", {"agent_id": "nobody"}, "unknown_agent"),
        ("create_chat_thread", {"agent_id": ""}, "invalid_request"),
        ("create_chat_thread", {"system_prompt": 1}, "invalid_request"),
        ("send_chat_message", {}, "invalid_request"),
        ("send_chat_message", {"thread_id": "x", "content": "hi"}, "not_found"),
        ("send_chat_message", {"thread_id": OTHER, "content": "hi"}, "not_found"),
        ("send_chat_message", {"thread_id": OTHER, "content": " "}, "invalid_message"),
        ("send_chat_message", {"thread_id": OTHER, "content": "x" * (1024 * 1024 + 1)}, "too_large"),
        ("send_chat_message", {"thread_id": OTHER, "content": "x", "wait_s": 301}, "invalid_request"),
        ("send_chat_message", {"thread_id": OTHER, "content": "x", "wait_s": -1}, "invalid_request"),
        ("get_chat_thread", {"thread_id": "x"}, "not_found"),
        ("get_chat_thread", {"thread_id": OTHER}, "not_found"),
        ("get_chat_thread", {"thread_id": OTHER, "limit": 201}, "invalid_request"),
        ("list_chat_threads", {"user_id": "bob"}, "forbidden"),
        ("list_chat_threads", {"limit": 0}, "invalid_request"),
        ("do", {"structure_id": "x", "role_id": "r", "message": "m"}, "invalid_structure_id"),
        ("do", {"structure_id": OTHER, "role_id": "r", "message": "m"}, "not_found"),
        ("do", {"structure_id": WORKSPACE, "role_id": "nobody", "message": "m"}, "not_found"),
        ("do", {"structure_id": WORKSPACE, "role_id": "scripted", "message": ""}, "invalid_message"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_bad_input_is_a_tool_error_in_the_contracts_words(
    here: World, tool: str, arguments: dict[str, Any], code: str
) -> None:
    async with client(here) as parley:
        result = await parley.call(tool, **arguments)
        assert result.is_error and result.structured_content["error"] == code, text_of(result)
        assert json.loads(text_of(result)) == result.structured_content and result.structured_content["message"]


async def test_a_failure_of_ours_says_no_more_than_that(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret is 42")

    async with client(here) as parley:
        await parley.data("list_chat_threads")
        monkeypatch.setattr(here.core.reads, "threads", broken)
        error = await parley.error("list_chat_threads")
        assert error["error"] == "internal" and "42" not in str(error)
        here.past.away = True
        assert (await parley.error("get_chat_thread", thread_id=OTHER))["error"] == "unavailable"


async def test_an_unknown_tool_and_an_unknown_method_are_errors_of_the_protocol(here: World) -> None:
    async with client(here) as parley:
        with pytest.raises(MCPError, match="no tool 'launch'"):
            await parley.call("launch")
    async with here.client() as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "nothing/here"}
        assert "Method not found" in (await http.post("/mcp", json=body, headers=HEADERS)).text


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b"[]", {}, 400, "invalid_json"),
        (b'{"a": "\xff"}', {}, 400, "invalid_json"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, {}, 400, "invalid_json"),
        (b'{"a": "\\u0000"}', {}, 400, "invalid_text"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_no_message_is_refused_before_anybody_reads_it(
    here: World, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with here.client() as http:
        sent = {"Content-Type": "application/json", **HEADERS, **headers}
        answer = await http.post("/mcp", content=content, headers=sent)
        assert (answer.status_code, answer.json()["error"]) == (status, code)


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(here: World) -> None:
    body = {"a": "x" * (9 * 1024 * 1024)}
    found = await ask(here.gateways[0][0], "POST", "/mcp", key=here.key, body=body, headers=HEADERS)
    assert (found.status, found.json()["error"]) == (413, "too_large")


async def test_there_is_nothing_to_listen_to_and_nothing_to_end(here: World) -> None:
    async with here.client() as http:
        for method in ("GET", "DELETE", "PUT"):
            answer = await http.request(method, "/mcp", headers=HEADERS)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        for content in (b"{}", b'{"jsonrpc": "2.0"}', b'{"jsonrpc": "2.0", "id": 1, "method": 5}', b""):
            answer = await http.post("/mcp", content=content, headers={"Content-Type": "application/json", **HEADERS})
            assert answer.status_code == 400 and answer.json()["error"]["code"] < 0, content
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        assert (await http.post("/mcp", json=ping, headers={"Accept": "application/json"})).status_code == 406


# ---- who may


async def test_without_a_good_key_there_is_no_server(here: World) -> None:
    async with httpx2.AsyncClient(base_url=here.gateways[0][1], trust_env=False) as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {make_key(OTHER, b'x' * 32)}"}):
            answer = await http.post("/mcp", json=body, headers={**HEADERS, **headers})
            assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_lent_key_is_not_lent_to_pages_in_a_browser() -> None:
    async with world() as here:
        url = await here.gateway(anonymous_key=here.key)
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        async with httpx2.AsyncClient(base_url=url, trust_env=False) as http:
            assert (await http.post("/mcp", json=body, headers=HEADERS)).status_code == 200
            page = await http.post("/mcp", json=body, headers={**HEADERS, "Origin": "http://evil.example"})
            assert (page.status_code, page.json()["error"]) == (403, "forbidden")
            own = {**HEADERS, "Origin": "http://app.example", "Authorization": f"Bearer {here.key}"}
            assert (await http.post("/mcp", json=body, headers=own)).status_code == 200


CALLS: dict[str, dict[str, Any]] = {
    "list_chat_threads": {},
    "create_chat_thread": {"agent_id": "scripted"},
    "send_chat_message": {"content": "hi", "wait_s": 0},
    "get_chat_thread": {},
    "do": {"structure_id": WORKSPACE, "role_id": "scripted", "message": "hi", "wait_s": 0},
}
CHATS = {"create_chat_thread", "send_chat_message", "do"}
READS = {"list_chat_threads", "get_chat_thread"}


def _on(thread: str, tool: str) -> dict[str, Any]:
    return CALLS[tool] | ({"thread_id": thread} if tool in ("send_chat_message", "get_chat_thread") else {})


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (("*",), CHATS | READS),
        (("chat",), CHATS),
        (("read",), READS),
        (("agent:scripted",), CHATS | READS),
        (("agent:assistant",), {"list_chat_threads"}),
        (("team:pair",), {"list_chat_threads"}),
        (("approve",), set()),
        (("admin",), set()),
    ],
    ids=str,
)
async def test_a_scope_allows_what_it_says_with_every_tool(
    here: World, scopes: tuple[str, ...], allowed: set[str]
) -> None:
    key = await new_key(here, *scopes)
    async with client(here) as parley:
        thread = (await parley.data("create_chat_thread", agent_id="scripted"))["id"]
    async with client(here, key) as parley:
        for tool in CALLS:
            heard = len(here.dispatcher.heard)
            result = await parley.call(tool, **_on(thread, tool))
            if tool in allowed:
                assert not result.is_error, (tool, text_of(result))
            else:
                assert result.structured_content["error"] == "forbidden", (tool, text_of(result))
                assert len(here.dispatcher.heard) == heard


async def test_other_users_and_tenants_never_meet(here: World) -> None:
    async with client(here) as parley:
        thread = (await parley.data("create_chat_thread", agent_id="scripted", title="a secret"))["id"]
        await parley.call("send_chat_message", thread_id=thread, content="a secret")
    foreign = make_key(OTHER, b"f" * 32)
    await here.workspace(OTHER, "other", {"admin": foreign}, user="ann")
    bob = await new_key(here, "*", user="bob")
    before = len(here.past.facts[thread])
    for key in (foreign, bob):
        async with client(here, key) as parley:
            assert (await parley.data("list_chat_threads"))["items"] == []
            for tool in ("send_chat_message", "get_chat_thread"):
                error = await parley.error(tool, **_on(thread, tool))
                assert error["error"] == "not_found" and "secret" not in str(error), tool
    async with client(here, foreign) as parley:
        assert (await parley.error("do", **CALLS["do"]))["error"] == "not_found", "another workspace's structure"
        assert (await parley.data("list_chat_threads", user_id="ann"))["items"] == []
    assert len(here.past.facts[thread]) == before
    async with client(here, here.admin_key) as parley:
        assert (await parley.data("get_chat_thread", thread_id=thread))["thread"]["title"] == "a secret"


async def test_a_call_under_a_key_is_made_once(here: World) -> None:
    key = {"parley/idempotency-key": "once"}
    async with client(here) as parley:
        threads = [
            (await parley.call("create_chat_thread", key, agent_id="scripted")).structured_content["id"]
            for _ in range(2)
        ]
        assert threads[0] == threads[1]
        runs = set()
        for _ in range(2):
            result = await parley.call("send_chat_message", key, thread_id=threads[0], content="hi")
            assert text_of(result) == "Hello world"
            runs.add(result.structured_content["run_id"])
        assert len(runs) == 1
        other = await parley.call("send_chat_message", key, thread_id=threads[0], content="ho")
        assert other.structured_content["error"] == "idempotency_conflict"
        bad = await parley.call("create_chat_thread", {"parley/idempotency-key": "é"})
        assert bad.structured_content["error"] == "bad_idempotency_key"


async def test_calls_at_the_same_time_are_bounded(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here.dispatcher.play = silence
    monkeypatch.setattr(endpoint, "MOST_AT_ONCE", 2)
    async with client(here) as parley:
        thread = (await parley.data("create_chat_thread", agent_id="scripted"))["id"]

    async def hold() -> None:
        async with client(here) as parley:
            await parley.call("send_chat_message", thread_id=thread, content="hi", wait_s=2)

    held = [asyncio.create_task(hold()) for _ in range(2)]
    await here.eventually(lambda: here.core.hub.listening == 2)
    async with here.client() as http:
        answer = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=HEADERS)
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable") and answer.headers["retry-after"]
    await asyncio.gather(*held)
    async with here.client() as http:
        answer = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=HEADERS)
        assert answer.status_code == 200


@pytest.mark.parametrize("modern", [False, True])
async def test_a_client_that_takes_nothing_is_let_go(
    here: World, monkeypatch: pytest.MonkeyPatch, modern: bool
) -> None:
    monkeypatch.setattr(endpoint, "ANSWER_S", 0.5)
    here.dispatcher.play = silence
    async with client(here) as parley:
        thread = (await parley.data("create_chat_thread", agent_id="scripted"))["id"]
    call: dict[str, Any] = {"name": "send_chat_message", "arguments": {"thread_id": thread, "content": "hi"}}
    headers = dict(HEADERS)
    if modern:
        headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": call["name"]}
        about = "io.modelcontextprotocol"
        call["_meta"] = {f"{about}/protocolVersion": "2026-07-28", f"{about}/clientCapabilities": {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    async with exchange(here.gateways[0][0], "POST", "/mcp", key=here.key, body=body, headers=headers) as x:
        x.held.clear()
        await here.eventually(lambda: here.core.hub.listening == 1)
        await x.end()
        assert not x.sends
    await here.eventually(lambda: here.core.hub.listening == 0)


async def test_a_server_that_broke_is_an_error_once_and_is_made_anew(here: World) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    async with here.client() as http:
        assert (await http.post("/mcp", json=ping, headers=HEADERS)).status_code == 200
        server = mcp_of(here)
        assert server._serving is not None
        first = server._serving
        first._manager._task_group = None
        answer = await http.post("/mcp", json=ping, headers=HEADERS)
        assert (answer.status_code, answer.json()["error"]) == (500, "internal")
        assert server.answering == 0
        await first.close()
        assert (await http.post("/mcp", json=ping, headers=HEADERS)).status_code == 200
        assert server._serving is not first


def mcp_of(here: World) -> McpServer:
    server: McpServer = here.gateways[0][0].state.mcp
    return server

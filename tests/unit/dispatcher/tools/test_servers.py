"""MCP servers in use, as real processes: what they offer, what they did, and what is said when they fail."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from parley_dispatcher.errors import ToolDoubt, ToolError
from parley_dispatcher.tools import mcp as mcp_module
from parley_dispatcher.tools import servers as servers_module
from parley_dispatcher.tools.base import Result, Tool
from parley_dispatcher.tools.servers import Servers
from parley_events.body import McpServer, McpTool
from tests.support.mcp_server import PNG
from tests.support.mcp_servers import Ledger, liar, over_http, over_stdio
from tests.unit.dispatcher.tools.test_everyday import call_of
from tests.unit.dispatcher.world import WORKSPACE, eventually, within

LIMIT_S = 20.0


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


class Shop:
    """The servers of a dispatcher, and an agent that may use all of theirs."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.servers, self.call = servers, replace(call_of(folder), workspace_id=WORKSPACE)

    async def tools(
        self, *declared: McpServer, patterns: Iterable[str] = ("*/*",), connectors: Iterable[str] = ()
    ) -> dict[str, Tool]:
        async with asyncio.timeout(LIMIT_S):
            return await self.servers.tools(WORKSPACE, declared, connectors, patterns)

    async def use(self, tool: Tool, /, **arguments: Any) -> Result:
        async with asyncio.timeout(LIMIT_S):
            return await tool.run(self.call, tool.arguments.model_validate(arguments))

    def pid(self, name: str = "ledger") -> int:
        [child] = [p for p in psutil.Process().children() if "stdio" in p.cmdline()]
        return child.pid


@asynccontextmanager
async def shop(folder: Path, values: Callable[[str], str | None] = lambda _: None, **more: Any) -> AsyncIterator[Shop]:
    servers = Servers(values, **{"start_s": 10.0, "idle_s": 600.0, "commands_allowed": True, **more})
    await servers.start()
    try:
        yield Shop(servers, folder)
    finally:
        await servers.close()


# ---- what is offered


async def test_a_server_offers_its_tools_page_after_page_with_the_effects_that_it_hints_at(
    tmp_path: Path, ledger: Ledger
) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger))
        assert len(tools) == 15 and all(name.startswith("ledger__") for name in tools)
        effects = {name.removeprefix("ledger__"): tool.effect for name, tool in tools.items()}
        assert (effects["look"], effects["set"], effects["pay"]) == ("read_only", "idempotent", "unsafe")
        shown = tools["ledger__pay"].schema()
        assert shown["name"] == "ledger__pay" and shown["input_schema"]["required"] == ["amount"]


async def test_what_the_file_says_of_a_tool_counts_before_what_the_server_says(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        server = over_stdio(ledger, tools={"look": "unsafe", "pay": "idempotent", "set": "checkable"})
        tools = await it.tools(server)
        assert [tools[f"ledger__{name}"].effect for name in ("look", "pay", "set")] == [
            "unsafe",
            "idempotent",
            "checkable",
        ]


async def test_an_agent_has_what_its_patterns_name_and_everything_of_the_connectors(
    tmp_path: Path, ledger: Ledger
) -> None:
    async with shop(tmp_path) as it:
        a, b = over_stdio(ledger, "a"), over_stdio(ledger, "b")
        assert set(await it.tools(a, b, patterns=("a/p*", "clock"))) == {"a__pay", "a__picture"}
        assert await it.tools(a, b, patterns=("*",)) == {}
        found = await it.tools(a, b, patterns=("a/pay",), connectors=("b",))
        assert {name for name in found if name.startswith("a__")} == {"a__pay"}
        assert len(found) == 1 + 15


async def test_a_list_that_changes_is_asked_for_again(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger))
        assert "ledger__grown" not in tools
        await it.use(tools["ledger__grow"])

        async def grown() -> bool:
            return "ledger__grown" in await it.tools(over_stdio(ledger))

        async with asyncio.timeout(LIMIT_S):
            while not await grown():
                await asyncio.sleep(0.02)


async def test_workspaces_never_share_a_connection(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        for workspace in ("w1", "w2"):
            tools = await it.servers.tools(workspace, [over_stdio(ledger)], (), ("*/*",))
            await it.use(tools["ledger__look"])
        assert len({entry["pid"] for entry in ledger.entries("look")}) == 2


# ---- calls


@pytest.mark.parametrize("way", ["stdio", "http"])
async def test_a_call_reaches_the_server_once_with_its_effect_key(tmp_path: Path, ledger: Ledger, way: str) -> None:
    async with shop(tmp_path, {"T": "Bearer t0ken"}.get) as it:
        with over_http(tmp_path, ledger, "Bearer t0ken") as http:
            web = McpServer(name="ledger", url=http.url, headers={"Authorization": "env:T"})
            server = over_stdio(ledger) if way == "stdio" else web
            tools = await it.tools(server)
            result = await it.use(tools["ledger__pay"], amount=5, model_config={"x": [1, None]})
    assert result.text == 'pay: {"amount": 5, "model_config": {"x": [1, null]}}'
    [entry] = ledger.entries("pay")
    assert entry["arguments"] == {"amount": 5, "model_config": {"x": [1, None]}}
    assert entry["meta"] == {"parley/effect-key": "key"}


async def test_images_and_files_go_to_the_object_store_under_safe_names(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger))
        result = await it.use(tools["ledger__picture"])
        image, blob = result.files
        assert (image.content_type, image.size) == ("image/png", len(PNG))
        assert image.name.startswith("picture-") and image.name.endswith("-1.png")
        assert await it.call.objects.get(it.call.workspace_id, image.sha256) == PNG
        assert (blob.name, blob.content_type) == ("pass_wd.bin", "application/octet-stream")
        assert await it.call.objects.get(it.call.workspace_id, blob.sha256) == b"\0\1\2"
    assert "Here it is:" in result.text and "a note" in result.text and "not valid base64" in result.text


async def test_a_tools_own_error_is_for_the_model(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger))
        with pytest.raises(ToolError, match=r"^no money$"):
            await it.use(tools["ledger__fail"])


async def test_a_structured_result_is_text_and_a_wrong_one_comes_with_a_note(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger))
        assert json.loads((await it.use(tools["ledger__sum"])).text) == {"sum": 3}
        wrong = (await it.use(tools["ledger__wrong_sum"])).text
    assert wrong.startswith('{"sum": "three"}')
    assert "not what the tool's schema promises: 'sum' is not of the type integer" in wrong


# ---- what goes wrong


async def test_a_server_killed_in_a_call_is_doubt_and_the_next_call_starts_it_anew(
    tmp_path: Path, ledger: Ledger
) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger))
        with pytest.raises(ToolDoubt):
            await it.use(tools["ledger__die"])
        assert len(ledger.entries("die")) == 1
        await it.use(tools["ledger__pay"], amount=1)
        assert ledger.entries("pay")[0]["pid"] != ledger.entries("die")[0]["pid"]


async def test_what_only_reads_is_called_again_with_the_same_key(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger, tools={"die_once": "read_only"}))
        assert (await it.use(tools["ledger__die_once"])).text == "die_once: {}"
    first, second = ledger.entries("die_once")
    assert first["meta"] == second["meta"] == {"parley/effect-key": "key"}
    assert first["pid"] != second["pid"]


async def test_a_call_without_an_answer_ends_in_time_and_the_server_is_told(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger, timeout_s=1.5))
        with pytest.raises(ToolDoubt):
            await it.use(tools["ledger__hang"])
        await eventually(lambda: len(ledger.entries("cancelled")) == 1, LIMIT_S)
        with pytest.raises(ToolError, match=r"gave no answer: it did not answer within 1\.5 s"):
            await it.use(tools["ledger__hang_looking"])
        assert (len(ledger.entries("hang")), len(ledger.entries("hang_looking"))) == (1, 1)
        # It answers otherwise: it is not started anew.
        await it.use(tools["ledger__look"])
        assert {entry["pid"] for entry in ledger.entries()} == {ledger.entries("look")[0]["pid"]}


async def test_a_call_that_is_cancelled_tells_the_server(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger))
        call = asyncio.create_task(it.use(tools["ledger__hang"]))
        await eventually(lambda: bool(ledger.entries("hang")), LIMIT_S)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await eventually(lambda: bool(ledger.entries("cancelled")), LIMIT_S)


async def test_a_server_that_hangs_whole_is_started_anew(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        server = over_stdio(ledger, timeout_s=1.5)
        tools = await it.tools(server)
        pid = it.pid()
        psutil.Process(pid).suspend()
        with pytest.raises(ToolDoubt):
            await it.use(tools["ledger__pay"], amount=1)
        await it.use((await it.tools(server))["ledger__look"])
        await eventually(lambda: not psutil.pid_exists(pid), LIMIT_S)
        assert ledger.entries("look")[0]["pid"] != pid


async def test_a_server_that_is_away_is_left_out_for_a_while_and_never_waited_for_long(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(servers_module, "_RETRY_S", 0.2)
    script = tmp_path / "server"
    broken = McpServer(name="broken", command=(str(script),))
    slow = McpServer(name="slow", command=("sleep", "60"))
    async with shop(tmp_path, start_s=2.0) as it:
        assert await within(it.tools(broken, slow)) == {}
        assert await within(it.tools(slow), 1.5) == {}, "the same attempt is waited for only once"
        await eventually(lambda: "broken is away" in caplog.text, LIMIT_S)
        assert caplog.text.count("broken is away") == 1
        declared = over_stdio(ledger)
        script.write_text("#!/bin/sh\nexec " + " ".join(declared.command))
        script.chmod(0o700)
        broken = replace_env(broken, ledger)
        async with asyncio.timeout(LIMIT_S):
            while not await it.tools(broken):
                await asyncio.sleep(0.05)


def replace_env(server: McpServer, ledger: Ledger) -> McpServer:
    return server.model_copy(update={"env": {"LEDGER": str(ledger.path)}})


async def test_an_http_server_that_forgot_the_session_gets_a_new_one_and_one_that_is_away_is_said_to_be(
    tmp_path: Path, ledger: Ledger
) -> None:
    async with shop(tmp_path) as it:
        with over_http(tmp_path, ledger) as http:
            server = McpServer(name="ledger", url=http.url, timeout_s=5)
            tools = await it.tools(server)
            await it.use(tools["ledger__pay"], amount=1)
            http.kill()
            with pytest.raises(ToolError, match="The server ledger cannot be reached: nothing was done"):
                await it.use(tools["ledger__pay"], amount=2)
            http.start()

            async def paid() -> bool:
                try:
                    return bool(await it.use(tools["ledger__pay"], amount=3))
                except ToolError:
                    return False

            async with asyncio.timeout(LIMIT_S):
                while not await paid():
                    await asyncio.sleep(0.05)
            http.kill()
            http.start()
            await it.use(tools["ledger__pay"], amount=4)
            with pytest.raises(ToolDoubt):
                await it.use(tools["ledger__die"])
    assert [entry["arguments"]["amount"] for entry in ledger.entries("pay")] == [1, 3, 4]


async def test_a_refused_key_is_said_without_the_key(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop(tmp_path, {"T": "Bearer wr0ng-t0ken"}.get) as it:
        with over_http(tmp_path, ledger, "Bearer right"):
            pass
        with over_http(tmp_path, ledger, "Bearer right") as http:
            server = McpServer(name="ledger", url=http.url, headers={"Authorization": "env:T", "X": "env:NOT_SET"})
            assert await it.tools(server) == {}
            assert await it.tools(server.model_copy(update={"headers": {"Authorization": "env:T"}})) == {}
    assert "headers.X wants the variable NOT_SET, which is not set" in caplog.text
    assert "it answered with HTTP 401" in caplog.text
    assert "wr0ng" not in caplog.text


async def test_a_secret_is_in_no_log_and_no_result(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with shop(tmp_path, {"S": "Bearer pass-w0rd"}.get) as it:
        tools = await it.tools(over_stdio(ledger, env={"SECRET": "env:S"}))
        result = await it.use(tools["ledger__secret"])
        await eventually(lambda: "ledger says: stderr of secret" in caplog.text, LIMIT_S)
    assert result.text == "the secret is ***"
    assert "pass-w0rd" not in caplog.text


async def test_commands_are_started_only_where_they_are_allowed(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop(tmp_path, commands_allowed=False) as it:
        assert await it.tools(over_stdio(ledger)) == {}
    assert "PARLEY_MCP_COMMANDS" in caplog.text
    assert not ledger.path.exists()


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("version", "Unsupported protocol version"),
        ("schema is a text", "its list of tools is not valid"),
        ("no list", "its list of tools is not valid"),
        ("silent", "it gave no list of tools within"),
    ],
)
async def test_a_server_whose_list_cannot_be_used_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lie: str, said: str
) -> None:
    async with shop(tmp_path, start_s=2.0) as it:
        assert await it.tools(liar(lie)) == {}
        await eventually(lambda: said in caplog.text, LIMIT_S)


async def test_a_tool_that_no_model_can_be_shown_is_left_out_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(liar("bad tools"))
    assert set(tools) == {"liar__good", "liar__same_name", "liar__either"}
    assert len(tools["liar__good"].description) < 10_000
    assert "anyOf" not in tools["liar__either"].schema()["input_schema"]
    for word in ("'invalid'", "'same/name'", "nnn", "''", "'huge'", "'property'"):
        assert word in caplog.text, word


@pytest.mark.parametrize("lie", ["the same page for ever", "garbage", "only the newer protocol"])
async def test_a_server_of_other_manners_is_used_all_the_same(tmp_path: Path, lie: str) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(liar(lie))
        assert set(tools) == {"liar__a"}
        assert (await it.use(tools["liar__a"])).text == "yes"


@pytest.mark.parametrize("lie", ["no content", "strange content"])
async def test_an_answer_that_is_none_is_a_clear_error(tmp_path: Path, lie: str) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(liar(lie))
        with pytest.raises(ToolError, match="The tool was called, but its answer is not valid"):
            await it.use(tools["liar__a"])


async def test_an_answer_beyond_all_bounds_ends_the_connection_and_not_the_dispatcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_module, "MAX_ANSWER_BYTES", 1_000_000)
    async with shop(tmp_path) as it:
        tools = await it.tools(liar("an answer without end"))
        with pytest.raises(ToolDoubt):
            await it.use(tools["liar__a"])
        assert set(await it.tools(liar("an answer without end"))) == {"liar__a"}, "it is there again"


async def test_arguments_that_no_message_can_hold_are_an_error_and_harm_no_other_call(
    tmp_path: Path, ledger: Ledger
) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger))
        with pytest.raises(ToolError, match="cannot be sent"):
            await it.use(tools["ledger__look"], at="\ud800")
        await it.use(tools["ledger__look"], at="sea", number=2**70)
    [entry] = ledger.entries("look")
    assert entry["arguments"] == {"at": "sea", "number": 2**70}


# ---- the end


async def test_nothing_that_was_started_is_left_after_the_stop(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        tools = await it.tools(over_stdio(ledger))
        hanging = asyncio.create_task(it.use(tools["ledger__hang"]))
        await eventually(lambda: bool(ledger.entries("hang")), LIMIT_S)
        pid = it.pid()
    assert not psutil.pid_exists(pid)
    with pytest.raises(ToolDoubt):
        await hanging


async def test_an_unused_connection_is_closed_and_opened_again(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path, idle_s=1.5) as it:
        tools = await it.tools(over_stdio(ledger))
        pid = it.pid()
        await eventually(lambda: not psutil.pid_exists(pid), LIMIT_S)
        await it.use(tools["ledger__look"])


async def test_another_declaration_is_another_connection(tmp_path: Path, ledger: Ledger) -> None:
    async with shop(tmp_path) as it:
        before = over_stdio(ledger)
        await it.tools(before)
        pid = it.pid()
        after = before.model_copy(update={"tools": {"pay": McpTool(effect="read_only")}})
        assert (await it.tools(after))["ledger__pay"].effect == "read_only"
        await eventually(lambda: not psutil.pid_exists(pid), LIMIT_S)

"""Claude over real HTTP, against a server that speaks the wire format and refuses what the API would refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from parley_dispatcher.errors import ModelError
from parley_dispatcher.providers import claude as module
from parley_dispatcher.providers.base import Event, Kept, Request, Said, Signed, Stopped, Used
from parley_dispatcher.providers.claude import Claude
from parley_events.body import Usage
from parley_events.objects import open_objects
from tests.support.messages_api import (
    KEY,
    NEW,
    OLD,
    SIGNATURE,
    Cut,
    Forever,
    Hold,
    MessagesApi,
    Play,
    Raw,
    block,
    end,
    error_event,
    failure,
    framed,
    numbered,
    redacted,
    start,
    text,
    thought,
    tool,
    turn,
)

NOW_MS = 1_750_000_000_000
LIMIT_S = 5.0
PING = {"type": "ping"}
UNNAMED = block({"type": "tool_use", "input": {}})
REQUEST = Request(
    model="claude-sonnet-5-5",
    system="Be kind.",
    messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    tools=[{"name": "clock", "description": "Tells the time.", "input_schema": {"type": "object"}}],
    max_tokens=1024,
    temperature=None,
    question="hello",
    turn=0,
    attempt=1,
    call_id="r_0",
    workspace_id="11111111-2222-4333-8444-555555555555",
)


@asynccontextmanager
async def model(api: MessagesApi | str, **more: Any) -> AsyncIterator[Claude]:
    """A provider whose main address is that server (or that address)."""
    base_url = api if isinstance(api, str) else api.base_url
    options: dict[str, Any] = {"api_key": KEY, "base_url": base_url, "stall_s": LIMIT_S, "secret_of": {}.get} | more
    claude = Claude(open_objects("memory:"), clock=lambda: NOW_MS, **options)
    try:
        yield claude
    finally:
        await claude.close()


@dataclass
class Heard:
    """What came of an attempt."""

    events: list[Event]
    error: ModelError | None = None

    @property
    def failed(self) -> ModelError:
        assert self.error is not None, self.events
        return self.error

    @property
    def stopped(self) -> Stopped:
        assert self.error is None, self.error
        last = self.events[-1]
        assert isinstance(last, Stopped)
        return last


async def hear(claude: Claude, request: Request = REQUEST) -> Heard:
    heard = Heard([])
    try:
        async with asyncio.timeout(LIMIT_S):
            async for event in claude.stream(request):
                heard.events.append(event)
    except ModelError as error:
        heard.error = error
    return heard


async def answer(play: Play, request: Request = REQUEST, **more: Any) -> Heard:
    """What comes of one attempt that the server answers so."""
    async with MessagesApi(play) as api, model(api, **more) as claude:
        heard = await hear(claude, request)
        assert api.violations == []
        return heard


# ---- what is said


async def test_a_turn_is_its_thought_its_text_and_its_calls_in_order() -> None:
    play = turn(
        thought("Two ", "things."),
        text("Let", " me look."),
        tool("clock", "toolu_1"),
        tool("echo", "toolu_2", '{"te', 'xt": "h', 'i"}'),
        stop="tool_use",
    )
    heard = await answer(play)
    assert heard.events == [
        Said(0, "thought", "Two "),
        Said(0, "thought", "things."),
        Signed(0, SIGNATURE),
        Said(1, "text", "Let"),
        Said(1, "text", " me look."),
        Used(2, "toolu_1", "clock", {}),
        Used(3, "toolu_2", "echo", {"text": "hi"}),
        Stopped("tool_use", Usage(input_tokens=25, output_tokens=15)),
    ]


async def test_pieces_come_as_they_are_said() -> None:
    hold = Hold()
    play = Play([start(), *numbered(text("one"))[:2], hold, *numbered(text("two"))[1:], *end()])
    async with MessagesApi(play) as api, model(api) as claude:
        events = aiter(claude.stream(REQUEST))
        assert await anext(events) == Said(0, "text", "one")
        assert not hold.gate.is_set()
        hold.gate.set()
        assert await anext(events) == Said(0, "text", "two")


@pytest.mark.parametrize(
    "reason",
    [
        "end_turn",
        "tool_use",
        "max_tokens",
        "stop_sequence",
        "refusal",
        "pause_turn",
        "model_context_window_exceeded",
        "something_new",
    ],
)
async def test_the_stop_reason_is_the_models(reason: str) -> None:
    assert (await answer(turn(text("so"), stop=reason))).stopped.stop_reason == reason


async def test_usage_has_the_cache_figures_and_the_last_word_is_the_deltas() -> None:
    cached = {"cache_creation_input_tokens": 300, "cache_read_input_tokens": 2000}
    play = Play([start(7, **cached), *numbered(text("hi")), *end(output_tokens=42, input_tokens=9)])
    assert (await answer(play)).stopped.usage == Usage(
        input_tokens=9, output_tokens=42, cache_read_tokens=2000, cache_write_tokens=300
    )


async def test_what_only_the_provider_understands_is_kept_whole_and_in_its_place() -> None:
    search = block(
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"query": '},
        {"type": "input_json_delta", "partial_json": '"kafka"}'},
    )
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"encrypted_content": "Ev8D"}]}
    heard = await answer(turn(redacted("EmwKAhgB"), text("I search."), search, block(found), text("Found.")))
    assert heard.events[:-1] == [
        Kept(0, {"type": "redacted_thinking", "data": "EmwKAhgB"}),
        Said(1, "text", "I search."),
        Kept(2, {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "kafka"}}),
        Kept(3, found),
        Said(4, "text", "Found."),
    ]


async def test_a_thought_that_is_not_shown_is_its_signature_and_a_block_that_says_nothing_has_no_number() -> None:
    heard = await answer(turn(thought(), text(), thought("plain", signature=None), text("hi")))
    assert heard.events[:-1] == [Signed(0, SIGNATURE), Said(1, "thought", "plain"), Said(2, "text", "hi")]


# ---- calls of tools that are not as they should be


@pytest.mark.parametrize(
    "given", ['{"a": 1', "[1]", "1", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"a":' + "[" * 70 + "]" * 70]
)
async def test_arguments_that_are_no_json_object_are_kept_as_they_came(given: str) -> None:
    heard = await answer(turn(tool("clock", "t", given), text("on"), stop="tool_use"))
    used = heard.events[0]
    assert isinstance(used, Used)
    assert used.arguments == {} and used.malformed in (given, given.replace("{}", ""))


async def test_the_same_id_twice_becomes_two() -> None:
    heard = await answer(turn(tool("a", "t"), tool("b", "t"), tool("c", "t"), stop="tool_use"))
    assert [event.tool_call_id for event in heard.events if isinstance(event, Used)] == ["t", "t_2", "t_3"]


@pytest.mark.parametrize("partial", ["", '{"path": "a', '{"path": "a", '])
@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded", "refusal"])
async def test_a_call_that_was_cut_off_is_never_one_without_arguments(partial: str, reason: str) -> None:
    heard = await answer(turn(tool("a", "t1", '{"b": 1}'), tool("delete", "t2", partial), stop=reason))
    assert heard.events[:-1] == [Used(0, "t1", "a", {"b": 1}), Used(1, "t2", "delete", {}, partial)]


async def test_arguments_may_stand_in_the_beginning_of_their_block() -> None:
    whole = block({"type": "tool_use", "id": "t", "name": "clock", "input": {"a": [1]}})
    assert (await answer(turn(whole, stop="tool_use"))).events[0] == Used(0, "t", "clock", {"a": [1]})


async def test_an_error_in_words_that_no_record_can_hold_is_an_error_all_the_same() -> None:
    play = Play([Raw(b'{"error": {"message": "no \\ud800 way"}}')], 400, {"content-type": "application/json"})
    assert (await answer(play)).failed.message == "the model's server answered 400: no ? way"


async def test_a_hundred_calls_are_a_hundred_calls() -> None:
    heard = await answer(turn(*(tool("clock", f"t{i}", f'{{"n": {i}}}') for i in range(100)), stop="tool_use"))
    assert [e.arguments["n"] for e in heard.events if isinstance(e, Used)] == list(range(100))


async def test_a_turn_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley_dispatcher.providers.reading.MAX_CHARS", 1000)
    monkeypatch.setattr("parley_dispatcher.providers.reading.MAX_BLOCKS", 10)
    signed = block(
        {"type": "thinking", "thinking": "", "signature": ""},
        *[{"type": "signature_delta", "signature": "0123456789"}] * 101,
    )
    filled = [block({"type": "text", "text": "", "more": "0123456789" * 11}, stop=False) for _ in range(10)]
    plays = (
        turn(text(*["0123456789"] * 101)),
        turn(*(text("x") for _ in range(11))),
        turn(signed),
        turn(*filled),
        turn(*(block({"type": "text", "text": ""}, stop=False) for _ in range(11))),
    )
    for play in plays:
        failed = (await answer(play)).failed
        assert (failed.kind, failed.retry) == ("too_long", False)


# ---- what goes wrong


async def test_of_a_refusal_without_end_only_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    play = failure(429, "rate_limit_error", "y" * 10_000)
    assert "y" * 500 in (await answer(play)).failed.message
    monkeypatch.setattr(module, "MAX_REFUSAL_BYTES", 300)
    failed = (await answer(play)).failed
    assert (failed.kind, failed.retry) == ("429", True)
    assert "y" * 400 not in failed.message


@pytest.mark.parametrize(
    ("status", "kind", "retry"),
    [
        (400, "invalid_request_error", False),
        (401, "authentication_error", False),
        (402, "billing_error", False),
        (403, "permission_error", False),
        (404, "not_found_error", False),
        (413, "request_too_large", False),
        (408, "timeout_error", True),
        (429, "rate_limit_error", True),
        (500, "api_error", True),
        (502, "api_error", True),
        (503, "api_error", True),
        (504, "timeout_error", True),
        (529, "overloaded_error", True),
    ],
)
async def test_an_error_has_its_status_and_says_whether_to_try_again(status: int, kind: str, retry: bool) -> None:
    async with MessagesApi(failure(status, kind, "max_tokens: too many")) as api, model(api) as claude:
        failed = (await hear(claude)).failed
        assert len(api.requests) == 1, "the SDK must not retry: attempts are journaled"
    assert (failed.kind, failed.retry, failed.retry_after_ms) == (str(status), retry, None)
    assert failed.message == f"the model's server answered {status}: max_tokens: too many"


IN_TEN_S = format_datetime(datetime.fromtimestamp(NOW_MS / 1000 + 10, UTC), usegmt=True)
LONG_AGO = format_datetime(datetime.fromtimestamp(0, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("asked", "wait_ms"),
    [
        ("7", 7000),
        ("0.25", 250),
        ("0", 0),
        ("-3", 0),
        ("86400", module.MAX_WAIT_MS),
        ("inf", module.MAX_WAIT_MS),
        (IN_TEN_S, 10_000),
        (LONG_AGO, 0),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
async def test_the_pause_that_a_server_asks_for_is_kept_within_bounds(asked: str, wait_ms: int | None) -> None:
    heard = await answer(failure(429, "rate_limit_error", retry_after=asked))
    assert heard.failed.retry_after_ms == wait_ms
    if asked == "7":
        heard = await answer(failure(529, "overloaded_error", retry_after=asked, retry_after_ms="1500"))
        assert heard.failed.retry_after_ms == 1500


async def test_an_answer_that_is_no_error_of_the_api_is_its_status_alone() -> None:
    page = Play([Raw(b"<html>key sk-1</html>")], 502, {"content-type": "text/html"})
    failed = (await answer(page)).failed
    assert (failed.kind, failed.message, failed.retry) == ("502", "the model's server answered 502", True)


@pytest.mark.parametrize(
    ("kind", "status", "retry"),
    [
        ("overloaded_error", "529", True),
        ("api_error", "500", True),
        ("rate_limit_error", "429", True),
        ("invalid_request_error", "400", False),
        ("authentication_error", "401", False),
        ("an_error_of_tomorrow", "500", True),
    ],
)
async def test_an_error_in_the_middle_of_a_stream_says_what_was_spent(kind: str, status: str, retry: bool) -> None:
    play = Play([start(33), *numbered(text("half"))[:2], error_event(kind, "Overloaded")])
    heard = await answer(play)
    assert heard.events == [Said(0, "text", "half")]
    assert (heard.failed.kind, heard.failed.retry, heard.failed.message) == (status, retry, "Overloaded")
    assert heard.failed.usage == Usage(input_tokens=33, output_tokens=1)


@pytest.mark.parametrize("ending", [[], [Cut()]])
async def test_a_stream_that_breaks_off_is_cut_and_says_what_was_spent(ending: list[Any]) -> None:
    heard = await answer(Play([start(33), *numbered(text("half"))[:2], *ending]))
    assert heard.events == [Said(0, "text", "half")]
    assert (heard.failed.kind, heard.failed.retry) == ("cut", True)
    assert heard.failed.usage == Usage(input_tokens=33, output_tokens=1)


@pytest.mark.parametrize(
    "steps",
    [
        [Raw(b"<html>Welcome to the hotel</html>")],
        [Raw(b'{"type": "message", "content": []}')],
        [Raw(b"data: {not json}\n\n")],
        [Raw(b"data: [1]\n\n")],
        [Raw(b'data: {"no": "type"}\n\n')],
        [start(), {"type": "content_block_delta", "index": 5, "delta": {"type": "text_delta", "text": "x"}}],
        [start(), Raw(framed({"type": "content_block_start", "index": 0, "content_block": None}))],
        [start(), {"type": "message_delta", "delta": None}],
        [start(), *numbered(text("x"))[:2], *end()],
        [start(), {"type": "message_stop"}],
        [start(), *(Raw(framed({**event, "index": 0})) for event in UNNAMED), *end("tool_use")],
    ],
)
async def test_what_is_no_stream_of_the_api_is_garbled(steps: list[Any]) -> None:
    failed = (await answer(Play(steps))).failed
    assert (failed.kind, failed.retry) == ("garbled", True)
    assert "hotel" not in failed.message


async def test_an_event_without_end_is_garbled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_EVENT_BYTES", 10_000)
    assert (await answer(Play([start(), Raw(b"data: " + b"x" * 20_000)]))).failed.kind == "garbled"


async def test_line_ends_of_windows_and_comments_are_read_too() -> None:
    steps: list[Any] = [Raw(b": hello\r\n\r\n"), start(), *numbered(text("ü", "ber")), *end()]
    whole = b"".join(s.data if isinstance(s, Raw) else framed(s).replace(b"\n", b"\r\n") for s in steps)
    bytewise = [Raw(whole[i : i + 1]) for i in range(len(whole))]
    heard = await answer(Play(bytewise))
    assert heard.events[:-1] == [Said(0, "text", "ü"), Said(0, "text", "ber")]


async def test_a_server_that_is_not_there_is_worth_another_attempt() -> None:
    async with MessagesApi() as gone:
        address = gone.base_url
    async with model(address) as claude:
        failed = (await hear(claude)).failed
    assert (failed.kind, failed.retry) == ("connect", True)
    assert "127.0.0.1" not in failed.message


@pytest.mark.parametrize("steps", [[], [start()], [start(), *numbered(text("half"))[:2]]])
async def test_a_model_that_says_nothing_has_stalled(steps: list[Any]) -> None:
    hold = Hold()
    async with MessagesApi(Play([*steps, hold])) as api, model(api, stall_s=0.2) as claude:
        failed = (await hear(claude)).failed
        await asyncio.wait_for(api.hung_up.wait(), LIMIT_S)
    assert (failed.kind, failed.retry) == ("stall", True)
    assert failed.usage.input_tokens == (25 if steps else 0)


async def test_pings_are_signs_of_life_for_a_while_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [start(), *[PING] * 50, *numbered(text("at last")), *end()]
    assert (await answer(Play(steps), stall_s=0.2)).stopped.stop_reason == "end_turn"
    monkeypatch.setattr(module, "PATIENCE", 3)
    async with MessagesApi(Play([start(), Forever(PING, 0.02)])) as api, model(api, stall_s=0.1) as claude:
        began = asyncio.get_running_loop().time()
        failed = (await hear(claude)).failed
        took = asyncio.get_running_loop().time() - began
    assert (failed.kind, failed.retry) == ("stall", True)
    assert took > 0.25, "pings were not taken for life at all"


async def test_a_cancelled_attempt_hangs_up_at_once() -> None:
    hold = Hold()
    async with MessagesApi(Play([start(), *numbered(text("half"))[:2], hold])) as api, model(api) as claude:
        task = asyncio.create_task(hear(claude))
        await asyncio.wait_for(hold.reached.wait(), LIMIT_S)
        assert not api.hung_up.is_set()
        task.cancel()
        await asyncio.wait_for(api.hung_up.wait(), 1.0)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_connection_is_used_again_and_closed_at_the_end() -> None:
    async with MessagesApi(turn(text("a")), failure(529, "overloaded_error"), turn(text("b"))) as api:
        async with model(api) as claude:
            heard = [await hear(claude) for _ in range(3)]
        assert [h.error is None for h in heard] == [True, False, True]
        assert api.connections == 1
        assert len(api.requests) == 3


# ---- keys and addresses


async def test_the_main_key_goes_to_the_main_address_and_to_no_other() -> None:
    async with (
        MessagesApi(turn(text("main"))) as main,
        MessagesApi(turn(text("own")), key=None) as own,
        model(main) as m,
    ):
        assert (await hear(m)).events[0] == Said(0, "text", "main")
        assert (await hear(m, replace(REQUEST, base_url=own.base_url + "/"))).events[0] == Said(0, "text", "own")
        assert main.requests[0].headers["x-api-key"] == KEY
        assert KEY not in str(own.requests[0])


async def test_an_agent_with_a_server_of_its_own_has_a_key_of_its_own() -> None:
    secrets = {"env:OWN": "sk-own", "env:SAME": KEY}.get
    async with MessagesApi(turn(text("own")), key="sk-own") as own, model("http://127.0.0.1:9", secret_of=secrets) as m:
        request = replace(REQUEST, base_url=own.base_url, api_key="env:OWN")
        assert (await hear(m, request)).events[0] == Said(0, "text", "own")
        for name, said in (("env:NOT_SET", "env:NOT_SET"), ("env:SAME", "main key")):
            failed = (await hear(m, replace(request, api_key=name))).failed
            assert (failed.kind, failed.retry) == ("401", False)
            assert said in failed.message and KEY not in failed.message
        assert len(own.requests) == 1


async def test_without_a_key_the_call_fails_at_once_and_says_what_to_set() -> None:
    async with model("", api_key="") as claude:
        failed = (await hear(claude)).failed
    assert (failed.kind, failed.retry) == ("401", False)
    assert "ANTHROPIC_API_KEY" in failed.message and "scripted" in failed.message


async def test_a_server_that_is_named_in_the_settings_may_need_no_key() -> None:
    async with MessagesApi(turn(text("free")), key=None) as api, model(api, api_key="") as claude:
        assert (await hear(claude)).events[0] == Said(0, "text", "free")


async def test_a_redirect_does_not_take_the_key_elsewhere() -> None:
    async with MessagesApi() as elsewhere:
        play = Play([], 307, {"location": elsewhere.base_url + "/v1/messages", "content-type": "text/html"})
        failed = (await answer(play)).failed
        assert elsewhere.requests == []
    assert failed.kind == "307" and not failed.retry


async def test_no_key_is_in_an_error_whatever_the_server_says() -> None:
    for play in (
        failure(401, "authentication_error", f"invalid x-api-key {KEY}"),
        Play([start(), error_event("api_error", f"no {KEY}")]),
    ):
        failed = (await answer(play)).failed
        assert KEY not in failed.message and "[the key]" in failed.message


async def test_nothing_that_the_environment_holds_for_the_sdk_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Secret: from-the-environment")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token-from-the-environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    async with MessagesApi(turn(text("own")), key=None) as own, model("http://127.0.0.1:9") as claude:
        assert (await hear(claude, replace(REQUEST, base_url=own.base_url))).events[0] == Said(0, "text", "own")
        assert "environment" not in str(own.requests[0]) and own.violations == []


# ---- versions of the API


async def test_a_temperature_is_sent_to_the_version_of_the_api_that_has_it_and_to_models_that_take_it() -> None:
    async with MessagesApi(turn(text("a")), turn(text("b")), turn(text("c"))) as api, model(api) as claude:
        for name in ("claude-haiku-4-5", "claude-sonnet-5-5"):
            await hear(claude, replace(REQUEST, model=name, temperature=0.3))
        await hear(claude, replace(REQUEST, model="claude-haiku-4-5"))
        versions = [(r.headers["anthropic-version"], r.body.get("temperature")) for r in api.requests]
        assert versions == [(OLD, 0.3), (NEW, None), (NEW, None)]
        assert api.violations == []


async def test_few_calls_with_large_files_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE_AT_ONCE", 2)
    source = {"type": "object", "sha256": "0" * 64, "media_type": "image/png", "name": "p", "size": 2_000_000}
    large = replace(REQUEST, messages=[{"role": "user", "content": [{"type": "image", "source": source}]}])
    holds = [Hold(), Hold(), Hold()]
    plays = [Play([start(), hold, *numbered(text("ok")), *end()]) for hold in holds]
    async with MessagesApi(*plays) as api, model(api) as claude:
        tasks = [asyncio.create_task(hear(claude, large)) for _ in range(3)]
        for hold in holds[:2]:
            await asyncio.wait_for(hold.reached.wait(), LIMIT_S)
        assert len(api.requests) == 2
        for hold in holds:
            hold.gate.set()
        heard = await asyncio.gather(*tasks)
        assert [h.stopped.stop_reason for h in heard] == ["end_turn"] * 3
        assert len(api.requests) == 3

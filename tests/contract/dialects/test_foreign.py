"""Whatever is another's is out of reach: every route, with every name of it, with every scope that a stranger has."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import parley_gateway
from parley_events.body import Block
from parley_events.codec import Fact
from parley_events.facts import ToolCalled
from parley_events.keys import make_key
from parley_gateway.http import Wire
from tests.contract.dialects.foreign import FOREIGN, PERSONAL, PRIVATE, STRANGERS, WAYS, Stranger, leak
from tests.contract.dialects.test_rights import CHAT, DEEDS, GRANTS
from tests.support.asgi import ask, exchange
from tests.unit.gateway.world import WORKSPACE, Dispatcher, World, run_id_of, tool_block

OTHER = "22222222-2222-4333-8444-555555555555"


async def parked(d: Dispatcher, posted: Fact) -> None:
    """A run that waits for a person and for the client: whoever reached it could do something to it."""
    call = d.called(posted)
    if posted.body.play is not None:  # type: ignore[attr-defined]
        d.completed(posted)
        return
    names = ("publish", "get_weather")
    blocks = [tool_block(name, call, {"text": "a secret"}) for name in names]
    d.returned(posted, call, Block(kind="text", text="a secret"), *blocks)
    d.asked(posted, call, "publish", {"text": "a secret"})
    weather = d.handed(posted, call, "get_weather", {"location": "a secret"}, index=1)
    d.parked(posted, f"call-{call}-publish", weather, waits_for="approval")


async def do(here: World, key: str, method: str, path: str, **options: Any) -> Any:
    found = await ask(here.gateways[0][0], method, path, key=key, **options)
    assert found.status < 300, (method, path, found.body)
    return found.json()


async def staged(here: World) -> dict[str, str]:
    """Something of everything, all of it the user ann's or her workspace's; the names of it."""
    here.dispatcher.play = parked
    hidden = {"id": "a-hidden-one", "name": "a secret agent", "system_prompt": "a secret"}
    agent = await do(here, here.admin_key, "POST", "/api/v1/agents", body=hidden)
    team = {"id": "a-hidden-team", "name": "a secret team", "members": ["a-hidden-one"]}
    made = await do(here, here.admin_key, "POST", "/api/v1/teams", body=team)
    key = await do(here, here.admin_key, "POST", "/api/v1/keys", body={"user": "zoe", "scopes": ["chat"]})
    body = {"title": "t", "content": "a secret"}
    document = await do(here, here.key, "POST", "/api/v1/knowledge", body=body)
    thread = (await do(here, here.key, "POST", f"{CHAT}/threads", body={"agent_id": "scripted"}))["id"]
    file = {"name": "secret.txt", "content_base64": "YSBzZWNyZXQ=", "content_type": "text/plain"}
    message = {"content": "a secret", "attachments": [file], "metadata": {"a": "secret"}}
    await do(here, here.key, "POST", f"{CHAT}/threads/{thread}/messages", body=message)
    facts = here.past.facts
    await here.eventually(lambda: facts.get(thread, [(0, None)])[-1][1].type == "run.waiting")  # type: ignore[union-attr]
    [posted] = [fact for _, fact in facts[thread] if fact.type == "message.posted"]
    files = await do(here, here.key, "GET", f"{CHAT}/threads/{thread}/files")
    asked = await ask(here.gateways[0][0], "POST", "/teams/pair/chat", key=here.key, body={"message": "a secret"})
    [question, *_] = (await do(here, here.key, "GET", f"{CHAT}/threads/{thread}/messages"))["items"]
    [approval] = (await do(here, here.key, "GET", f"{CHAT}/approvals", params={"thread_id": thread}))["items"]
    return {
        "workspace": WORKSPACE,
        "organisation": "default",
        "user": "ann",
        "thread_id": thread,
        "session_id": thread,
        "conversation_id": thread,
        "message_id": question["id"],
        "run_of_team": asked.headers["parley-run-id"],
        "run_id": run_id_of(posted),
        "approval_id": approval["id"],
        "tool_call_id": next(fact.body.tool_call_id for _, fact in facts[thread] if isinstance(fact.body, ToolCalled)),
        "knowledge_id": document["id"],
        "key_id": key["id"],
        "rejected_id": "0-7",
        "record_id": "0-7",
        "name": "secret.txt",
        "sha256": files["items"][0]["sha256"],
        "hidden": agent["id"],
        "hidden_uuid": agent["uuid"],
        "team_id": made["id"],
        "team_uuid": made["uuid"],
    }


@pytest.mark.parametrize("stranger", STRANGERS, ids=[stranger.who for stranger in STRANGERS])
async def test_a_stranger_reaches_nothing_by_any_name_with_any_scope(
    here: World, stranger: Stranger, capsys: pytest.CaptureFixture[str]
) -> None:
    places = await staged(here)
    admin, places["own_organisation"] = here.admin_key, places["organisation"]
    user = stranger.user.format(**places)
    if stranger.foreign:
        admin, places["own_organisation"] = make_key(OTHER, b"f" * 32), "other"
        await here.workspace(OTHER, "other", {"admin": admin}, user="root")
    whole = await do(here, admin, "POST", "/api/v1/keys", body={"user": user, "scopes": ["*"]})
    own = await do(here, whole["key"], "POST", f"{CHAT}/threads", body={"agent_id": "assistant"})
    places["own_thread"] = own["id"]
    before = {stream: len(facts) for stream, facts in here.past.facts.items() if OTHER not in stream}
    before.pop(own["id"], None)
    statuses, leaks = Counter[int](), []
    for scopes in stranger.scopes:
        key = (await do(here, admin, "POST", "/api/v1/keys", body={"user": user, "scopes": list(scopes)}))["key"]
        if not stranger.foreign:
            before[f"ws:{WORKSPACE}"] += 1
        for way in stranger.ways:
            asked = way.filled(places)
            options: dict[str, Any] = {"params": asked.params, "headers": {}}
            if asked.body is not None:
                options["body"] = asked.body
            if asked.path == "/mcp":
                options["headers"] = {"Accept": "application/json, text/event-stream"}
            found = await ask(here.gateways[0][0], asked.method, asked.path, key=key, **options)
            statuses[found.status] += 1
            if (why := leak(way, found.status, found.body, places)) is not None:
                leaks.append((why, scopes, way, found.status, found.body[:300]))
    assert not leaks
    tried = sum(statuses.values())
    assert tried == len(stranger.scopes) * len(stranger.ways)
    if not stranger.foreign:
        before[f"ws:{WORKSPACE}"] += 1
    after = {stream: len(facts) for stream, facts in here.past.facts.items() if stream in before}
    assert after[places["thread_id"]] == before[places["thread_id"]], "something was done to it"
    assert stranger.foreign is False or after == before
    with capsys.disabled():
        print(f"\n{stranger.who}: {tried} tried, 0 leaks ({dict(sorted(statuses.items()))})")


async def test_the_owner_reaches_it_by_each_of_these_names(here: World) -> None:
    """What strangers are refused is there: no name is misspelt."""
    places = await staged(here)
    own = await do(here, here.key, "POST", f"{CHAT}/threads", body={"agent_id": "assistant"})
    places |= {"own_thread": own["id"], "own_organisation": "default"}
    for way in PRIVATE:
        asked = way.filled(places)
        mistaken = "own_thread" in way.names or "/assistant/" in way.path or way.path == "/teams/pair/runs/{run_id}"
        if way.method == "GET" and not (mistaken and way.names & PERSONAL):
            options: dict[str, Any] = {"params": asked.params}
            async with exchange(here.gateways[0][0], "GET", asked.path, key=here.key, **options) as x:
                await x.until(lambda x: x.sends)
                assert x.status in (200, 202), (way, x.status)


def test_as_much_is_tried_as_the_tables_have() -> None:
    """Every route with a name in its path, by everybody; beside it every other place for a name."""
    # An agent alone is the workspace's: what is another's at these paths stands in the query or the body.
    named = [deed for deed in DEEDS if "{" in deed.path.replace("{agent_id}", "" if "v1" not in deed.path else "{}")]
    paths = {deed.template() for deed in named}
    tried = {(way.method, re.sub(r"{\w+}|scripted|pair", "{}", way.path)) for way in WAYS}
    assert {(method, re.sub(r"{\w+}", "{}", path)) for method, path in paths} <= tried
    assert set(FOREIGN) <= {name for way in WAYS for name in way.names}
    total = sum(len(stranger.scopes) * len(stranger.ways) for stranger in STRANGERS)
    assert total >= 2 * len(GRANTS) * (len(paths) + 60) and len(PRIVATE) > 60


def test_every_field_and_query_that_takes_a_name_is_tried() -> None:
    """Read off the gateway itself: a new place for a name must be tried, or said here to be none."""
    source = "".join(path.read_text() for path in Path(parley_gateway.__file__).parent.rglob("*.py"))
    queries = set(re.findall(r'query\(\s*request,\s*"(\w+)"', source))
    fields = {field.alias or name for model in models(Wire) for name, field in model.model_fields.items()}
    places = {name for name in fields if re.search(r"(_ids?|Id)$", name)} | {"workspace", "members", "lead", "up_to"}
    none = {"events", "limit", "cursor", "order", "include", "status", "kind", "pinned", "archived", "wait", "version"}
    texts = " ".join(f"{way.params} {way.body}" for way in WAYS)
    assert len(places) >= 12
    for name in queries - none | places:
        assert f"'{name}'" in texts, f"nobody has tried {name}"


def models(base: type[Wire]) -> list[type[Wire]]:
    """Everything that clients send."""
    return [model for child in base.__subclasses__() for model in (child, *models(child))]

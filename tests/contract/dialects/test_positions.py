"""`Parley-Position` on every route there is: what was written or read can be named to the next read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from parley_events.positions import PartitionPosition, StreamPosition, parse_positions
from tests.contract.dialects.test_rights import CHAT, DEEDS, OF_A_TEAM, Deed, Scene, code_of, parked_once, staged
from tests.support.asgi import ask
from tests.unit.gateway.world import world

BEGINS_NOW = f"{CHAT}/events"
OF_THE_LOG = {"/api/v1/rejected", "/api/v1/rejected/{rejected_id}"}
"""Read from the log itself, not from a view."""
READS = [deed for deed in DEEDS if deed.method == "GET" and deed.path not in {BEGINS_NOW, *OF_THE_LOG}]
WRITES = [deed for deed in DEEDS if deed.method != "GET" and deed.path != "/mcp"]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with world(sockets=False) as here:
        here.dispatcher.play = parked_once
        yield await staged(here)


async def test_every_writes_answer_says_where_it_stands_and_a_read_takes_it(scene: Scene) -> None:
    said: set[tuple[str, str]] = set()
    for deed in WRITES:
        before = sum(map(len, scene.here.dispatcher.written.values()))
        found = await scene.do(deed, scene.here.admin_key)
        wrote = sum(map(len, scene.here.dispatcher.written.values())) - before
        if found.status >= 400:
            assert "parley-position" not in found.headers, deed
            continue
        position = found.headers.get("parley-position")
        if not wrote:
            continue
        assert position is not None, (deed, found.status, found.headers)
        for one in parse_positions(position):
            if isinstance(one, StreamPosition):
                assert len(scene.here.dispatcher.written[one.stream]) >= one.seq > 0, deed
        params = {"min_position": position}
        read = await ask(scene.here.gateways[0][0], "GET", f"{CHAT}/threads", key=scene.here.admin_key, params=params)
        assert read.status == 200, (deed, position, read.body)
        said.add(deed.template())
    # What is answered 400 and above, or finds nothing to do, in this scene.
    silent = {f"{deed.method} {deed.path}" for deed in WRITES if deed.template() not in said}
    assert len(said) > 25 and not {name for name in silent if "chat/threads" in name}, sorted(silent)


async def test_every_reads_answer_says_how_new_it_is_and_a_read_takes_it(scene: Scene) -> None:
    said: set[tuple[str, str]] = set()
    for deed in READS:
        found = await scene.do(deed, scene.here.admin_key)
        if found.status >= 400:
            assert "parley-position" not in found.headers, deed
            continue
        position = found.headers.get("parley-position")
        assert position is not None, (deed, found.headers)
        assert parse_positions(position)
        again = await scene.do(_with(deed, position), scene.here.admin_key)
        assert again.status == 200, (deed, again.body)
        said.add(deed.template())
    assert {deed.path for deed in READS} - {path for _, path in said} <= {
        f"{CHAT}/threads/{{thread_id}}/files/{{name}}",
        "/api/org/chat/artifacts/{name}",
        "/api/v3/ai/agents/{agent_id}/sessions/{session_id}",
    } | {deed.path for deed in READS if "runs/{run_id}" in deed.path or "executions" in deed.path}


async def test_every_read_waits_for_the_position_that_it_is_given(scene: Scene) -> None:
    """Garbage is 400; one that never comes is 503."""
    ahead = f"{scene.places['thread_id']}@999999"
    for deed in [deed for deed in DEEDS if deed.method == "GET"]:
        bad = await scene.do(_with(deed, "soon"), scene.here.admin_key)
        assert (bad.status, code_of(bad)) == (400, "bad_position"), (deed, bad.body)
    for path in (f"{CHAT}/threads", f"{CHAT}/threads/{{thread_id}}", "/api/v1/agents", "/api/v1/keys"):
        late = await scene.do(_with(Deed("GET", path, "read"), ahead), scene.here.admin_key)
        assert (late.status, code_of(late)) == (503, "behind"), path


async def test_a_read_of_a_thread_names_the_thread_and_one_of_many_the_whole_view(scene: Scene) -> None:
    thread = scene.places["thread_id"]
    one = await scene.do(Deed("GET", f"{CHAT}/threads/{{thread_id}}", "read"), scene.here.key)
    [position] = parse_positions(one.headers["parley-position"])
    assert isinstance(position, StreamPosition) and position.stream == thread
    many = await scene.do(Deed("GET", f"{CHAT}/threads", "read"), scene.here.key)
    kinds = {type(position) for position in parse_positions(many.headers["parley-position"])}
    assert PartitionPosition in kinds


async def test_many_writes_of_one_request_are_said_as_the_ends_of_their_partitions(scene: Scene) -> None:
    app, here = scene.here.gateways[0][0], scene.here
    tools = "/api/agents/scripted/chat"
    for _ in range(12):
        made = await ask(app, "POST", tools, key=here.key, body={"message": "hi"})
        assert made.status == 200
    for number in range(12):
        body = {"agent_id": "scripted", "title": str(number)}
        await ask(app, "POST", f"{CHAT}/threads", key=here.key, body=body)
    cleared = await ask(app, "DELETE", tools, key=here.key)
    assert cleared.status == 200
    positions = parse_positions(cleared.headers["parley-position"])
    assert positions and all(isinstance(position, PartitionPosition) for position in positions)
    read = await ask(app, "GET", tools, key=here.key, params={"min_position": cleared.headers["parley-position"]})
    assert read.json()["messages"] == []


def _with(deed: Deed, position: str) -> Deed:
    path = deed.path.replace("{run_id}", "{run_of_team}") if deed.path in OF_A_TEAM else deed.path
    return deed._replace(path=f"{path}?min_position={position}")


async def test_a_waiting_calls_answer_is_as_new_as_the_end_that_it_tells(scene: Scene) -> None:
    here, thread = scene.here, scene.places["thread_id"]
    path = f"{CHAT}/threads/{thread}/messages"
    found = await ask(here.gateways[0][0], "POST", path, key=here.key, body={"content": "hi"}, params={"wait": ""})
    assert found.json()["run"]["status"] == "completed"
    assert found.headers["parley-position"] == f"{thread}@{here.dispatcher.state(thread).seq}"

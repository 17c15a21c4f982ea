"""Agents: a version is asked for once, the newest always, and the workspace's context is never long out of date."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import orjson
import pytest

from parley_dispatcher import agents as agents_module
from parley_dispatcher.agents import Agents
from parley_dispatcher.errors import HistoryUnavailable
from parley_dispatcher.history import History
from tests.unit.dispatcher.world import WORKSPACE, agent, eventually, within


async def context_of(history: Answers) -> str | None:
    found = await history.agents.workspace(WORKSPACE)
    assert found is not None
    return found.context


class Answers:
    """History that knows the versions of one agent and a context, and counts what it is asked."""

    def __init__(self) -> None:
        self.newest, self.deleted, self.away, self.context, self.seq = 1, False, False, "first", 1
        self.asked: list[str] = []
        self.now_ms = 0
        client = History(("http://history",), "token", transport=httpx2.MockTransport(self._serve))
        self.agents = Agents(client, lambda: self.now_ms)

    def _serve(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(str(request.url).removeprefix("http://history/internal/workspaces/"))
        if self.away:
            return httpx2.Response(503)
        if "agents" not in request.url.path:
            wanted = request.url.params.get("min_position", "@0")
            if int(wanted.rpartition("@")[2]) > self.seq:
                return httpx2.Response(503, json={"error": "behind"})
            return answer({"id": WORKSPACE, "name": "n", "context": self.context, "seq": self.seq})
        version = int(request.url.params.get("version", self.newest))
        if version > self.newest or "ghost" in request.url.path:
            return httpx2.Response(404)
        spec = agent("a", description=f"version {version}").model_dump(mode="json")
        return answer({"id": "a", "uuid": "u", "version": version, "spec": spec, "deleted": self.deleted})


def answer(body: dict[str, Any]) -> httpx2.Response:
    return httpx2.Response(200, content=orjson.dumps(body))


async def test_a_version_that_is_known_needs_no_answer() -> None:
    history = Answers()
    assert await history.agents.resolve(WORKSPACE, "a", 1) == 1
    assert history.agents.known(WORKSPACE, "a", 1)
    history.away = True
    assert await history.agents.resolve(WORKSPACE, "a", 1) == 1
    found = await history.agents.spec(WORKSPACE, "a", 1)
    assert found is not None and found.description == "version 1"
    assert len(history.asked) == 1


async def test_without_a_version_the_newest_is_asked_every_time() -> None:
    history = Answers()
    assert await history.agents.resolve(WORKSPACE, "a", None) == 1
    history.newest = 2
    assert await history.agents.resolve(WORKSPACE, "a", None) == 2
    assert not history.agents.known(WORKSPACE, "a", None)
    history.deleted = True
    assert await history.agents.resolve(WORKSPACE, "a", None) is None
    assert await history.agents.resolve(WORKSPACE, "ghost", None) is None


async def test_a_version_that_history_has_not_seen_yet_is_waited_for() -> None:
    history = Answers()
    waiting = asyncio.create_task(history.agents.resolve(WORKSPACE, "a", 2))
    await eventually(lambda: len(history.asked) >= 2)
    history.newest = 2
    assert await within(waiting) == 2


async def test_a_version_that_never_comes_gives_way_to_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_module, "_WAIT_S", 0.0)
    history = Answers()
    assert await history.agents.resolve(WORKSPACE, "a", 9) == 1
    assert await history.agents.spec(WORKSPACE, "a", 9) is None


async def test_while_history_is_away_it_is_said_so() -> None:
    history = Answers()
    history.away = True
    for ask in (history.agents.resolve(WORKSPACE, "a", 1), history.agents.resolve(WORKSPACE, "a", None)):
        with pytest.raises(HistoryUnavailable):
            await ask
    with pytest.raises(HistoryUnavailable):
        await context_of(history)


async def test_while_history_is_away_the_newest_version_that_is_known_answers() -> None:
    history = Answers()
    assert await history.agents.resolve(WORKSPACE, "a", 1) == 1
    history.newest = 2
    assert await history.agents.resolve(WORKSPACE, "a", None) == 2
    history.away = True
    assert await history.agents.resolve(WORKSPACE, "a", None) == 2
    with pytest.raises(HistoryUnavailable):
        await history.agents.resolve(WORKSPACE, "b", None)


async def test_the_context_is_waited_for_once_and_then_read_again_beside() -> None:
    history = Answers()
    assert await context_of(history) == "first"
    history.context = "second"
    history.now_ms = 1999
    assert await context_of(history) == "first"
    assert len(history.asked) == 1
    history.now_ms = 2000
    assert await context_of(history) == "first"
    await eventually(lambda: not history.agents._refreshing)
    assert await context_of(history) == "second"
    assert len(history.asked) == 2


async def test_an_old_context_stays_while_history_is_away() -> None:
    history = Answers()
    await context_of(history)
    history.away = True
    for _ in range(3):
        history.now_ms += 2000
        assert await context_of(history) == "first"
    await eventually(lambda: not history.agents._refreshing)
    assert await context_of(history) == "first"


async def test_a_run_never_sees_less_of_its_workspace_than_the_writer_of_its_message() -> None:
    history = Answers()
    assert await context_of(history) == "first"
    history.context, history.seq = "second", 5
    found = await history.agents.workspace(WORKSPACE, 5)
    assert found is not None and (found.context, found.seq) == ("second", 5), "read anew, and waited for"
    assert len(history.asked) == 2
    for seq in (None, 1, 5):
        await history.agents.workspace(WORKSPACE, seq)
    assert len(history.asked) == 2, "what is new enough is not asked for again"
    history.seq = 6
    await asyncio.gather(*(history.agents.workspace(WORKSPACE, 6) for _ in range(20)))
    assert len(history.asked) == 3, "runs that begin together ask once"


async def test_the_first_look_at_a_workspace_is_new_enough_too_or_what_there_is() -> None:
    for seq, asked in ((1, 1), (9, 2)):
        history = Answers()
        found = await history.agents.workspace(WORKSPACE, seq)
        assert found is not None and found.context == "first"
        assert len(history.asked) == asked


async def test_a_view_that_does_not_come_that_far_holds_nobody_up_for_long() -> None:
    history = Answers()
    await context_of(history)
    for _ in range(3):
        found = await history.agents.workspace(WORKSPACE, 9)
        assert found is not None and found.context == "first", "what is known, rather than nothing"
    assert len(history.asked) == 2, "the others do not wait for it again"
    history.now_ms, history.seq, history.context = 2000, 9, "second"
    found = await history.agents.workspace(WORKSPACE, 9)
    assert found is not None and found.context == "first", "it is read again behind the answer"
    await eventually(lambda: not history.agents._refreshing)
    found = await history.agents.workspace(WORKSPACE, 9)
    assert found is not None and found.context == "second"
    history.seq, history.away = 10, True
    assert await history.agents.workspace(WORKSPACE, 10) == found
    history.now_ms, history.away = 12_000, False
    found = await history.agents.workspace(WORKSPACE, 10)
    assert found is not None and found.seq == 10

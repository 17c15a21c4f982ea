"""The read API: filters, pages, cursors, refusals; what it says is in the shapes that both sides know."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import orjson
import pytest

from parley_events import facts as f
from parley_events import ids, reads
from parley_events.body import AgentSpec, TeamSpec, ThreadSeed
from parley_events.codec import fact_from
from parley_history.reads import streams
from parley_history.settings import Settings
from tests.contract.history.conftest import running
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, model_called, thread, workspace

WS, T1 = workspace(1), thread(1)


async def test_a_stored_fact_decodes_to_the_fact_that_was_written(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS, "h\x00llo é 😀")
    writer.turn(T1, WS, run, "answer")
    async with running(settings, log) as client:
        await client.caught_up(log)
        page = reads.FactsPage.model_validate(await client.get(f"/streams/{T1}/facts"))
        found = [
            fact_from(
                item.headers,
                orjson.dumps(item.body),
                item.offset,
                item.time_ms,
            )
            for item in page.items
        ]
        assert found == writer.written


async def test_facts_are_paged_both_ways(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(T1, WS)
    for _ in range(9):
        writer.write(T1, WS, f.ThreadCleared())

    async with running(settings, log) as client:
        await client.caught_up(log)

        async def seqs(**params: Any) -> list[int]:
            page = await client.get(f"/streams/{T1}/facts", **params)
            assert page["last_seq"] == 10
            assert page["next_offset"] == 11
            return [int(item["headers"]["ce_seq"]) for item in page["items"]]

        assert await seqs(after=3, limit=4) == [4, 5, 6, 7]
        assert await seqs(order="desc", limit=3) == [10, 9, 8]
        assert await seqs(order="desc", after=8, limit=3) == [7, 6, 5]
        assert await seqs(after=10) == []
        assert await seqs(workspace_id=WS, limit=2) == [1, 2]
        foreign = await client.get(f"/streams/{T1}/facts", workspace_id=workspace(2))
        assert (foreign["items"], foreign["last_seq"]) == ([], 0)
        unknown = await client.get(f"/streams/{thread(5)}/facts")
        assert (unknown["items"], unknown["last_seq"]) == ([], 0)


async def test_a_page_of_large_facts_is_cut_short_but_never_empty(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "FACTS_BYTES", 3000)
    log = ListLog(4)
    writer = Writer(log)
    for number in range(6):
        writer.post(T1, WS, "x" * 2000, command=f"c{number}")
    async with running(settings, log) as client:
        await client.caught_up(log)
        after, sizes = 0, []
        while True:
            page = await client.get(f"/streams/{T1}/facts", after=after)
            sizes.append(len(page["items"]))
            after = int(page["items"][-1]["headers"]["ce_seq"])
            if after == page["last_seq"]:
                break
        assert sizes == [2, 2, 2]
        assert len((await client.get(f"/streams/{T1}/facts", order="desc"))["items"]) == 2


async def test_threads_are_filtered_and_listed_by_latest_activity(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    for number in range(1, 8):
        seed = ThreadSeed(
            user_id="ada" if number % 2 else "bob",
            agent_id="assistant" if number < 4 else None,
            team_id="pair" if number > 3 else None,
            channel="slack" if number == 7 else "threads",
            title=f"t{number}",
        )
        writer.write(thread(number), WS, f.ThreadCreated(seed=seed))
    writer.write(thread(2), WS, f.ThreadUpdated(pinned=True, changes=("pinned",)))
    writer.write(thread(6), WS, f.ThreadUpdated(archived=True, changes=("archived",)))
    writer.write(thread(5), WS, f.ThreadDeleted())
    writer.post(thread(1), WS)
    async with running(settings, log) as client:
        await client.caught_up(log)

        async def titles(**params: Any) -> tuple[list[str], int]:
            page = await client.get(f"/workspaces/{WS}/threads", **params)
            return [item["title"] for item in page["items"]], page["total"]

        assert await titles() == (["t1", "t7", "t4", "t3", "t2"], 5)
        assert await titles(user_id="ada") == (["t1", "t7", "t3"], 3)
        assert await titles(agent_id="assistant") == (["t1", "t3", "t2"], 3)
        assert await titles(team_id="pair") == (["t7", "t4"], 2)
        assert await titles(pinned="true") == (["t2"], 1)
        assert await titles(pinned="false", channel="threads") == (["t1", "t4", "t3"], 3)
        assert await titles(archived="true") == (["t6"], 1)
        assert await titles(channel="slack") == (["t7"], 1)
        first = await client.get(f"/workspaces/{WS}/threads", limit=2)
        second = await client.get(f"/workspaces/{WS}/threads", limit=2, cursor=first["next_cursor"])
        third = await client.get(f"/workspaces/{WS}/threads", limit=2, cursor=second["next_cursor"])
        found = [item["title"] for page in (first, second, third) for item in page["items"]]
        assert found == ["t1", "t7", "t4", "t3", "t2"]
        assert third["next_cursor"] is None and {page["total"] for page in (first, second, third)} == {5}


async def test_messages_are_paged_both_ways_and_by_role(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    for number in range(3):
        run = writer.post(T1, WS, f"q{number}", command=f"c{number}", system_prompt="be brief")
        writer.turn(T1, WS, run, f"a{number}")
        writer.complete(T1, WS, run)
    async with running(settings, log) as client:
        await client.caught_up(log)

        async def texts(pages: int = 1, **params: Any) -> list[str]:
            found: list[str] = []
            for _ in range(pages):
                page = await client.get(f"/workspaces/{WS}/threads/{T1}/messages", **params)
                found += [item["content"] for item in page["items"]]
                params["cursor"] = page["next_cursor"]
            assert params["cursor"] is None
            return found

        everything = [text for number in range(3) for text in ("be brief", f"q{number}", f"a{number}")]
        assert await texts() == everything
        assert await texts(order="desc") == everything[::-1]
        assert await texts(pages=5, limit=2) == everything
        assert await texts(pages=5, limit=2, order="desc") == everything[::-1]
        assert await texts(roles="user,assistant") == [text for text in everything if text != "be brief"]
        assert await texts(roles="system", pages=2, limit=2) == ["be brief"] * 3
        page = await client.get(f"/workspaces/{WS}/threads/{T1}/messages", roles="user", limit=1)
        assert page["total"] == 3


async def test_skills_are_found_by_words(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    for number, (slug, body) in enumerate([("fold-paper", "First a Crease."), ("boil-eggs", "Seven minutes.")]):
        note = {"kind": "skill", "id": f"n{number}", "slug": slug, "name": slug.title(), "body": body}
        fields = {"run_id": run, "call": 2, "index": number, "tool_call_id": f"t{number}", "name": "learn_skill"}
        writer.write(T1, WS, f.ToolReturned.model_validate(fields | {"status": "ok", "result": "kept", "note": note}))
    async with running(settings, log) as client:
        await client.caught_up(log)

        async def slugs(**params: Any) -> set[str]:
            items = (await client.get(f"/workspaces/{WS}/skills", **params))["items"]
            assert all(item["body"] is None for item in items)
            return {reads.SkillView.model_validate(item).slug for item in items}

        assert await slugs() == {"fold-paper", "boil-eggs"} == await slugs(agent_id="assistant")
        assert await slugs(query="crease") == {"fold-paper"}
        assert await slugs(agent_id="other") == set()
        found = await client.get(f"/workspaces/{WS}/skills/boil-eggs", agent_id="assistant")
        assert found["body"] == "Seven minutes."
        await client.get(f"/workspaces/{WS}/skills/nothing", status=404)


SKILLS = {
    "fold-paper": ("Folding paper", "Boats and hats from one sheet.", "First a crease. Nothing is said of eggs."),
    "boil-eggs": ("Boiling eggs", "Hard or soft.", "Seven minutes. Grüße aus der Küche."),
    "invoice": ("Écrire une facture", "When a customer's order is done", "C:\\temp\\x 100% it's <b>50</b> e-mail"),
    "origami": ("折纸的方法", "", "先把纸对折"),
    "empty": ("x", "", "  "),
}


async def test_the_best_match_comes_first_and_no_query_is_an_error(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    for slug, (name, description, body) in SKILLS.items():
        fact = f.SkillChanged(agent_id="assistant", slug=slug, name=name, description=description, body=body)
        writer.write(ids.workspace_stream(WS), WS, fact)
    async with running(settings, log) as client:
        await client.caught_up(log)

        async def slugs(query: str) -> list[str]:
            items = (await client.get(f"/workspaces/{WS}/skills", query=query))["items"]
            return [reads.SkillView.model_validate(item).slug for item in items]

        for query, found in (
            ("eggs", ["boil-eggs", "fold-paper"]),
            ("EGGS paper", ["fold-paper", "boil-eggs"]),
            ("how do I fold a sheet", ["fold-paper", "invoice"]),
            ("fol", ["fold-paper"]),
            ("küche", ["boil-eggs"]),
            ("facture", ["invoice"]),
            ("e-mail", ["invoice"]),
            ("100% it's", ["invoice"]),
            ("C:\\temp", ["invoice"]),
            ("纸", ["origami"]),
            ("nutes. Gr", ["boil-eggs"]),
            ("nothing-of-the-kind", ["fold-paper"]),
            ("zebra", []),
            ("' | ! & ( ) : * <-> \\", []),
            ("'", ["invoice"]),
            ("\0", []),
        ):
            assert await slugs(query) == found, query
        everything = await slugs("")
        assert set(everything) == set(SKILLS) == set(await slugs(" "))
        for query in ("a:*", "'a' <-> !b", "a\\':*", "\x01\u2028", "(((", "http://example.com/z?q='a'b\\c", "😀" * 300):
            await slugs(query)


async def test_the_longest_text_of_a_skill_stops_nothing(settings: Settings) -> None:
    """PostgreSQL holds at most 1 MiB of words in a row, and no word longer than 2 KiB."""
    log = ListLog(4)
    writer = Writer(log)
    letters = [chr(number) for number in range(0x20000, 0x20000 + 200)]
    many = " ".join(f"{a}{b}-{b}{a}" for a in letters for b in letters)
    for slug, body in (("many", many[:200_000]), ("long", "x" * 200_000), ("deep", "a-" * 100_000)):
        fact = f.SkillChanged(agent_id="assistant", slug=slug, name=slug * 300, description=body, body=body)
        writer.write(ids.workspace_stream(WS), WS, fact)
    async with running(settings, log) as client:
        await client.caught_up(log)
        assert len((await client.get(f"/workspaces/{WS}/skills", query=letters[0] + letters[1]))["items"]) == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/workspaces/{WS}/threads?limit=0", "bad_limit"),
        (f"/workspaces/{WS}/threads?limit=201", "bad_limit"),
        (f"/workspaces/{WS}/threads?limit=x", "bad_limit"),
        (f"/workspaces/{WS}/threads?limit=-1", "bad_limit"),
        (f"/workspaces/{WS}/threads?cursor=abc", "bad_cursor"),
        (f"/workspaces/{WS}/threads?cursor=WzEsMl0", "bad_cursor"),
        (f"/workspaces/{WS}/threads?cursor=%F0%9F%98%80", "bad_cursor"),
        (f"/workspaces/{WS}/threads/{T1}/messages?cursor=WzEsIngiXQ", "bad_cursor"),
        (f"/workspaces/{WS}/threads/{T1}/messages?order=up", "bad_order"),
        (f"/workspaces/{WS}/threads?pinned=maybe", "bad_pinned"),
        (f"/workspaces/{WS}/notes?limit=999", "bad_limit"),
        (f"/workspaces/{WS}/approvals?limit=0", "bad_limit"),
        (f"/workspaces/{WS}/approvals?cursor=abc", "bad_cursor"),
        (f"/workspaces/{WS}/runs?cursor=WzEsMl0", "bad_cursor"),
        (f"/workspaces/{WS}/runs?until_ms=x", "bad_until_ms"),
        (f"/streams/{T1}/facts?limit=1001", "bad_limit"),
        (f"/streams/{T1}/facts?after=x", "bad_after"),
        ("/positions?min_position=garbage", "bad_position"),
        (f"/positions?min_position={T1}@1&wait_ms=10001", "bad_wait_ms"),
        ("/due?partitions=0", "bad_until_ms"),
        ("/due?until_ms=1", "bad_partitions"),
        ("/due?until_ms=1&partitions=0,256", "bad_partitions"),
        ("/due?until_ms=1&partitions=0,-1", "bad_partitions"),
    ],
)
async def test_what_makes_no_sense_is_refused(settings: Settings, path: str, code: str) -> None:
    async with running(settings, ListLog(4)) as client:
        await client.caught_up(ListLog(4))
        answer = await client.http.get(f"/internal{path}")
        assert (answer.status_code, answer.json()["error"]) == (400, code)


@pytest.mark.parametrize(
    "path",
    [
        f"/workspaces/{WS}",
        "/workspaces/garbage",
        "/workspaces/garbage/threads",
        f"/workspaces/{WS}/keys/by-hash/00",
        f"/workspaces/{WS}/agents/nobody",
        f"/workspaces/{WS}/agents/a%00b",
        f"/workspaces/{WS}/threads/{T1}",
        f"/workspaces/{WS}/threads/{T1}/messages",
        f"/workspaces/{WS}/runs/{T1}.r0",
        f"/workspaces/{WS}/approvals/{T1}.p1",
        "/workspaces/garbage/approvals",
        "/workspaces/garbage/runs",
        "/partitions/4",
        "/nothing",
    ],
)
async def test_what_is_not_there_is_404(settings: Settings, path: str) -> None:
    async with running(settings, ListLog(4)) as client:
        await client.caught_up(ListLog(4))
        assert await client.get(path, status=404) == {"error": "not_found"}


async def test_nobody_reads_without_the_token(settings: Settings) -> None:
    async with running(settings, ListLog(4)) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}):
            transport = client.http._transport
            async with httpx2.AsyncClient(transport=transport, base_url="http://h", headers=headers) as stranger:
                assert (await stranger.get("/internal/positions")).status_code == 401
                assert (await stranger.get("/livez")).status_code == 200
        posted = await client.http.post("/internal/positions")
        assert (posted.status_code, posted.json()) == (405, {"error": "method_not_allowed"})


async def test_a_read_waits_for_the_position_that_it_names(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    async with running(settings, log) as client:
        await client.caught_up(log)
        waiting = asyncio.create_task(
            client.get(f"/workspaces/{WS}/threads/{T1}", min_position=[f"{T1}@1", f"{writer.partition(T1)}.2"])
        )
        behind = await client.get(f"/workspaces/{WS}/threads/{T1}", 503, min_position=f"{T1}@1", wait_ms=80)
        assert behind == {"error": "behind"}
        assert not waiting.done()
        writer.post(T1, WS)
        assert (await waiting)["position"] == f"{T1}@1"


async def test_a_read_waits_for_what_another_replica_folds(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.post(thread(2), WS)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(settings, log))
        await first.caught_up(log)
        # The second has a log of its own, where nothing is: what it answers, the first has folded.
        second = await stack.enter_async_context(running(settings, ListLog(4)))
        await second.caught_up(log)
        waiting = asyncio.create_task(second.get(f"/workspaces/{WS}/threads/{T1}", min_position=f"{T1}@1"))
        await asyncio.sleep(0)
        writer.post(T1, WS)
        assert (await waiting)["id"] == T1


async def test_due_lists_what_is_due_by_then(settings: Settings) -> None:
    """The deadline of a run, until it is parked; what it waits for, until that is there or the run has ended."""
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    writer.write(T1, WS, model_called(run, 0, due_at_ms=5000))
    partition = writer.partition(T1)

    async def due(until_ms: int = 2**60) -> set[tuple[str, int]]:
        await client.caught_up(log)
        found = await client.get("/due", partitions=partition, until_ms=until_ms)
        assert all((item["stream"], item["workspace_id"]) == (T1, WS) for item in found["items"])
        return {(due.due_key, due.due_at_ms) for due in reads.DueList.model_validate(found).items}

    async with running(settings, log) as client:
        assert (await due(4999), await due(5000)) == (set(), {(run, 5000)})
        fields = {"run_id": run, "call": 2, "index": 0, "tool_call_id": "t", "name": "get_weather", "arguments": {}}
        called = writer.write(
            T1, WS, f.ToolCalled.model_validate({**fields, "effect": "client", "effect_key": "k", "due_at_ms": 7000})
        )
        asked = writer.write(
            T1, WS, f.ApprovalRequested.model_validate({**fields, "approval_id": f"{T1}.p4", "due_at_ms": 8000})
        )
        assert (called.seq, asked.seq) == (3, 4)
        wait = f.RunWaiting(run_id=run, waits_for="approval", tool_call_ids=("t",), due_at_ms=7000)
        writer.write(T1, WS, wait)
        assert await due() == {(f"{T1}.t3", 7000), (f"{T1}.p4", 8000)}, "a parked run's deadline stands still"
        assert (await client.get(f"/partitions/{partition}"))["waiting_threads"] == [T1]
        writer.write(T1, WS, f.ToolExpired(run_id=run, call=2, index=0, tool_call_id="t"))
        assert await due() == {(f"{T1}.p4", 8000)}
        assert (await client.get(f"/partitions/{partition}"))["waiting_threads"] == [], "it is to be told"
        writer.write(T1, WS, model_called(run, 1, due_at_ms=9000))
        assert await due() == {(f"{T1}.p4", 8000), (run, 9000)}
        writer.complete(T1, WS, run)
        assert await due() == set()
        assert (await client.get(f"/workspaces/{WS}/approvals/{T1}.p4"))["status"] == "closed"


async def test_an_idle_thread_expires_by_the_clock_before_its_fact_is_there(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS, opened=ThreadSeed(idle_s=60))
    now_ms = writer.now_ms

    async def expired() -> bool:
        await client.caught_up(log)
        found = await client.get(f"/workspaces/{WS}/threads/{T1}")
        assert (await client.get(f"/workspaces/{WS}/threads"))["items"] == [found]
        return bool(found["expired"])

    async with running(settings, log, clock=lambda: now_ms) as client:
        now_ms += 10**6
        assert not await expired(), "something runs"
        end = writer.complete(T1, WS, run)
        now_ms = end.time_ms + 59_999
        assert not await expired()
        now_ms += 1
        assert await expired()
        partition = writer.partition(T1)
        [due] = (await client.get("/due", partitions=partition, until_ms=now_ms))["items"]
        assert (due["due_key"], due["due_at_ms"]) == ("session", now_ms)
        writer.write(T1, WS, f.ThreadExpired(idle_since_ms=end.time_ms))
        now_ms = 0
        assert await expired()
        assert (await client.get("/due", partitions=partition, until_ms=2**60))["items"] == []


async def test_open_runs_are_found_by_who_where_and_since_when(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    runs = {}
    for number, (user, agent) in enumerate(
        [("ada", "assistant"), ("ada", "analyst"), ("bob", "assistant"), (None, "a")]
    ):
        stream = thread(number + 1)
        seed = ThreadSeed(user_id=user, agent_id=agent)
        runs[number] = writer.post(stream, WS, opened=seed, agent_id=agent)
    first_ms = writer.written[0].time_ms
    ended = writer.post(thread(9), WS, opened=ThreadSeed(user_id="ada"))
    writer.complete(thread(9), WS, ended)
    writer.write(thread(3), WS, f.RunWaiting(run_id=runs[2], waits_for="approval", tool_call_ids=()))
    async with running(settings, log) as client:
        await client.caught_up(log)

        async def found(**asked: Any) -> list[int]:
            page = await client.get(f"/workspaces/{WS}/runs", **asked)
            views = reads.OpenRunPage.model_validate(page).items
            return [next(n for n, run in runs.items() if run == view.id) for view in views]

        assert await found() == [0, 1, 2, 3]
        assert await found(agent_id="assistant") == [0, 2]
        assert await found(user_id="ada") == [0, 1]
        assert await found(user_id="ada", thread_id=thread(4)) == [3], "a shared thread, named"
        assert await found(user_id="ada", thread_id=thread(3)) == []
        assert await found(until_ms=first_ms) == [0]
        page = await client.get(f"/workspaces/{WS}/runs", limit=2)
        assert await found(limit=2, cursor=page["next_cursor"]) == [2, 3]
        assert (await client.get(f"/workspaces/{workspace(2)}/runs"))["items"] == []


async def test_what_was_asked_in_a_thread_goes_with_its_messages(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    run = writer.post(T1, WS)
    fields = {"run_id": run, "call": 1, "index": 0, "tool_call_id": "t", "name": "pay", "arguments": {}}
    writer.write(T1, WS, f.ApprovalRequested.model_validate({**fields, "approval_id": f"{T1}.p2", "due_at_ms": 8000}))
    async with running(settings, log) as client:
        await client.caught_up(log)
        assert (await client.get(f"/workspaces/{WS}/approvals"))["total"] == 1
        await client.get(f"/workspaces/{workspace(2)}/approvals/{T1}.p2", status=404)
        writer.write(T1, WS, f.ThreadCleared(by="ada"))
        writer.write(T1, WS, f.ApprovalAnswered(approval_id=f"{T1}.p2", run_id=run, decision="deny", by="ada"))
        await client.caught_up(log)
        assert (await client.get(f"/workspaces/{WS}/approvals"))["total"] == 0
        await client.get(f"/workspaces/{WS}/approvals/{T1}.p2", status=404)


async def test_a_workspaces_facts_are_read_by_its_stream(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    stream = ids.workspace_stream(WS)
    writer.write(stream, WS, f.WorkspaceCreated(workspace_id=WS, name="default"))
    async with running(settings, log) as client:
        await client.caught_up(log)
        page = await client.get(f"/streams/{stream}/facts")
        assert [item["body"]["name"] for item in page["items"]] == ["default"]
        assert (await client.get(f"/workspaces/{WS}"))["name"] == "default"


async def test_every_version_of_an_agent_or_a_team_is_kept_and_listed_while_it_is_there(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    stream = ids.workspace_stream(WS)
    writer.write(stream, WS, f.WorkspaceCreated(workspace_id=WS, name="w"))
    for version in (1, 2, 3):
        for name in ("a", "b"):
            spec = AgentSpec(agent_id=name, name=f"{name}{version}")
            writer.write(stream, WS, f.AgentChanged(agent_version=version, spec=spec))
            team = TeamSpec(team_id=f"t{name}", name=f"t{name}{version}", members=("a",))
            writer.write(stream, WS, f.TeamChanged(team_version=version, spec=team))
    writer.write(stream, WS, f.AgentDeleted(agent_id="b"))
    writer.write(stream, WS, f.TeamDeleted(team_id="tb"))
    async with running(settings, log) as client:
        await client.caught_up(log)
        for name, shape in (("agents/a", reads.AgentVersions), ("teams/ta", reads.TeamVersions)):
            path = f"/workspaces/{WS}/{name}/versions"
            first = shape.model_validate(await client.get(path, limit=2))
            assert ([item.version for item in first.items], first.total) == ([3, 2], 3)
            assert [item.spec.name for item in first.items] == [f"{name.split('/')[1]}{v}" for v in (3, 2)]
            assert first.items[0].created_at > first.items[1].created_at > "2"
            rest = shape.model_validate(await client.get(path, limit=2, cursor=first.next_cursor))
            assert ([item.version for item in rest.items], rest.next_cursor) == ([1], None)
            [second] = (await client.get(path, version=2))["items"]
            assert shape.model_validate({"items": [second], "next_cursor": None, "total": 1}).items == first.items[1:]
            by_uuid = f"/workspaces/{WS}/{name.split('/')[0]}/{second['uuid']}/versions"
            assert (await client.get(by_uuid, version=2))["items"] == [second]
            assert (await client.get(path, version=4))["items"] == []
            assert (await client.get(path, 400, cursor="x"))["error"] == "bad_cursor"
        for gone in ("agents/b", "teams/tb", "agents/nobody", "teams/nobody"):
            await client.get(f"/workspaces/{WS}/{gone}/versions", 404)
            await client.get(f"/workspaces/{workspace(2)}/{gone}/versions", 404)

"""The routes of `threads`: thin. `inbound` makes commands, `core` sends and follows, `outbound` words the answers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_events import ids
from parley_events.commands import DeleteThread
from parley_events.errors import LogError
from parley_events.reads import AgentView, RunView
from parley_gateway import core as core_
from parley_gateway import files
from parley_gateway.auth import Principal
from parley_gateway.core import Core, Said
from parley_gateway.dialects.threads import approvals, fork, inbound, knowledge, outbound, past_runs, runs, wire
from parley_gateway.dialects.threads.access import BASE, WAIT_S, agent_named, may_change, thread_id_of
from parley_gateway.errors import Behind, Problem, Unavailable, forbidden, invalid
from parley_gateway.feed.cursor import START, Cursor, cursor_ahead, parse_cursor
from parley_gateway.feed.follow import ShownFact, run_of
from parley_gateway.feed.join import PAGE
from parley_gateway.feed.recall import open_at
from parley_gateway.feed.sse import MEDIA_TYPE
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    as_of,
    body_of,
    endpoint,
    idempotency_key,
    min_position,
    query,
    query_flag,
    query_limit,
    query_wait,
    resume_point,
    traceparent,
    wants,
)
from parley_gateway.reads import check_position
from parley_gateway.workspaces import DEFAULT_AGENT

THREADS_AT_ONCE = 100
"""How many threads one stream may name."""

# ---- threads


async def _create(core: Core, request: Request, who: Principal) -> Response:
    asked = await body_of(request, wire.NewThread, core.settings.body_mb)
    agent = None if asked.agent_id is None else await agent_named(core, who, asked.agent_id)
    who.to_chat(agent.id if agent else None)
    key = idempotency_key(request)
    thread_id = core.sender.thread_id(who, "thread.create", key)
    command = core.sender.command(
        who,
        core.sender.command_id(who, "thread.create", thread_id, key),
        thread_id,
        inbound.create_thread(who, asked, agent),
        asked.model_dump(),
        fresh=key is None,
        traceparent=traceparent(request),
    )
    outcome = await core.sender.ask(who, command)
    core.bind(thread_id, agent.id if agent else None)
    if outcome.pending:
        return answer(202, {"id": thread_id, "status": "accepted"})
    view = outbound.new_thread(who.workspace_id, thread_id, outcome.receipt["seed"], outcome.time_ms, outcome.position)
    return answer(201, outbound.thread(view, asked.agent_id), REPLAYED if outcome.repeated else None)


async def _list(core: Core, request: Request, who: Principal) -> Response:
    user_id = query(request, "user_id") or who.user_id
    if user_id != who.user_id and not who.admin:
        raise forbidden("another user's threads need a key with the scope admin")
    asked_agent = query(request, "agent_id")
    agent_id = asked_agent
    if asked_agent is not None:
        known = (await core.workspaces.get(who.workspace_id)).named(asked_agent)
        agent_id = known.id if known else asked_agent
    elif len(who.agents) == 1 and not who.may_read(None):
        (agent_id,) = who.agents
    team_id = next(iter(who.teams)) if agent_id is None and len(who.teams) == 1 and not who.may_read(None) else None
    who.to_read(agent_id, team_id)
    pinned, archived = query_flag(request, "pinned"), query_flag(request, "archived")
    params = {
        "user_id": user_id,
        "agent_id": agent_id,
        "team_id": team_id,
        "pinned": None if pinned is None else str(pinned).lower(),
        "archived": None if archived is None else str(archived).lower(),
        "limit": query_limit(request),
        "cursor": query(request, "cursor"),
    }
    page = await core.reads.threads(who, params, min_position(request))
    items = [outbound.thread(view, asked_agent) for view in page.items]
    return answer(200, {"items": items, "next_cursor": page.next_cursor, "total": page.total})


async def _get(core: Core, request: Request, who: Principal) -> Response:
    position, then = min_position(request), as_of(request)
    view = await core.reads.thread(who, request.path_params["thread_id"], position)
    core.bind(view.id, view.agent_id)
    if then is not None:
        history, w, name = core.history, who.workspace_id, view.id
        view = await core.reads.then(view.id, lambda at: history.thread(w, name, at, as_of=then))
    return answer(200, outbound.thread(view))


async def _patch(core: Core, request: Request, who: Principal) -> Response:
    thread_id = thread_id_of(request)
    asked = await body_of(request, wire.ThreadChanges, core.settings.body_mb)
    body = inbound.update_thread(who, asked)
    await may_change(core, who, thread_id)
    if body is None:
        return answer(200, outbound.thread(await core.reads.thread(who, thread_id)))
    command = core.sender.command(who, core.new_uuid(), thread_id, body, traceparent=traceparent(request))
    outcome = await core.sender.ask(who, command)
    if outcome.pending:
        return answer(202, {"id": thread_id, "position": outcome.position})
    try:
        view = await core.history.thread(who.workspace_id, thread_id, [outcome.position], 5000)
    except (Unavailable, Behind):
        # The change is on the log; what the thread looks like now cannot be read.
        return answer(202, {"id": thread_id, "position": outcome.position})
    return answer(200, outbound.thread(view))


async def _delete(core: Core, request: Request, who: Principal) -> Response:
    thread_id = thread_id_of(request)
    await may_change(core, who, thread_id)
    body = DeleteThread(principal=who.asker)
    command = core.sender.command(who, core.new_uuid(), thread_id, body, traceparent=traceparent(request))
    outcome = await core.sender.ask(who, command)
    if outcome.pending:
        return answer(202, {"id": thread_id, "position": outcome.position})
    return Response(status_code=204)


# ---- messages


async def _post(core: Core, request: Request, who: Principal) -> Response:
    thread_id = thread_id_of(request)
    asked = await body_of(request, wire.NewMessage, core.settings.body_mb, files.BASE64_MB)
    wait_s = query_wait(request, WAIT_S)
    streaming = wants(request, MEDIA_TYPE)
    agent = await answering(core, who, thread_id, asked.agent_id)
    key = idempotency_key(request)
    command_id = core.sender.command_id(who, "message.post", thread_id, key)
    if asked.knowledge_ids:
        again = None if key is None else ids.run_id(thread_id, command_id)
        await knowledge.check_attached(core, who, asked.knowledge_ids, again)
    given = await files.uploads(asked.attachments)
    command = core.sender.command(
        who,
        command_id,
        thread_id,
        inbound.post_message(who, asked, agent, tuple(file.attachment for file in given)),
        files.meaning(asked, given),
        traceparent=traceparent(request),
    )
    await files.store(core.objects, who.workspace_id, given)
    follow = streaming or bool(wait_s)
    said = await core_.say(core, who, command, follow=follow, pieces=streaming)
    headers = {"Parley-Run-Id": said.run_id, **(REPLAYED if said.outcome.repeated else {})}
    if not follow or said.outcome.pending:
        return answer(202, _accepted(said), headers)
    feed = await core_.feed_of(core, who, said, restarts=True)
    if streaming:
        return core_.stream(core, feed, outbound.Frames(thread_id), headers)
    # An approval is waited for with the rest; when it is the client's turn, only this answer can tell it.
    run, _ = await core_.told(feed, said.run_id, thread_id, wait_s or 0, lambda run: run.waits_for == "client_tool")
    if run.ended_seq is None:
        return answer(202, {**_accepted(said), **runs.waiting(run)}, headers)
    message = run.message()
    return answer(
        200,
        {
            "thread_id": thread_id,
            "message_id": said.question_id,
            "run": outbound.run(run.view(), asked.agent_id),
            "message": None if message is None else outbound.message(message),
        },
        headers,
    )


def _accepted(said: Said) -> dict[str, object]:
    return {
        "thread_id": said.thread_id,
        "message_id": said.question_id,
        "run_id": said.run_id,
        "status": "queued" if said.queued else "running",
        "position": said.position,
        "conversation_id": said.thread_id,
        "events_url": f"{BASE}/runs/{said.run_id}/events",
    }


async def _messages(core: Core, request: Request, who: Principal) -> Response:
    order = query(request, "order")
    if order not in (None, "asc", "desc"):
        raise invalid("order must be asc or desc")
    params = {"limit": query_limit(request), "cursor": query(request, "cursor"), "order": order or "asc"}
    position, then = min_position(request), as_of(request)
    view = await core.reads.thread(who, request.path_params["thread_id"], position)
    if then is not None:
        w, asked = who.workspace_id, {**params, **then}
        page = await core.reads.then(view.id, lambda at: core.history.messages(w, view.id, asked, at))
    else:
        page = await core.reads.messages(who, view.id, params, position)
    items = [outbound.message(message) for message in page.items]
    return answer(200, {"items": items, "next_cursor": page.next_cursor, "total": page.total})


# ---- files


async def _files(core: Core, request: Request, who: Principal) -> Response:
    position = min_position(request)
    params = {"kind": files.asked_kind(request), "limit": query_limit(request), "cursor": query(request, "cursor")}
    view = await core.reads.thread(who, request.path_params["thread_id"], position)
    page = await core.reads.files(who, view.id, params, position)
    items = [files.entry(file) for file in page.items]
    return answer(200, {"items": items, "next_cursor": page.next_cursor, "total": page.total})


async def _file(core: Core, request: Request, who: Principal) -> Response:
    position = min_position(request)
    params = {
        "kind": files.asked_kind(request),
        "name": request.path_params["name"],
        "sha256": query(request, "sha256"),
    }
    view = await core.reads.thread(who, request.path_params["thread_id"], position)
    file = await core.reads.file(who, view.id, params, position)
    return await files.download(core.objects, who.workspace_id, file)


# ---- events


async def _thread_events(core: Core, request: Request, who: Principal) -> Response:
    limit = query_limit(request)
    view = await core.reads.thread(who, request.path_params["thread_id"], min_position(request))
    if _as_page(request):
        return await _page(core, request, who, view.id, None, 0, None, limit)
    feed = await core_.thread_feed(core, who, view.id, resume_point(request), restarts=True)
    return core_.stream(core, feed, outbound.Frames(view.id), {})


async def _run_events(core: Core, request: Request, who: Principal) -> Response:
    limit = query_limit(request)
    run = await core.reads.run(who, request.path_params["run_id"], min_position(request), past=True)
    if run.posted_seq <= 0:
        return await _past_run_events(core, request, who, run)
    if _as_page(request):
        return await _page(core, request, who, run.thread_id, run.id, run.posted_seq - 1, run.ended_seq, limit)
    feed = await core_.run_feed(core, who, run, resume_point(request), restarts=True)
    return core_.stream(core, feed, outbound.Frames(run.thread_id), {"Parley-Run-Id": run.id})


async def _past_run_events(core: Core, request: Request, who: Principal, run: RunView) -> Response:
    text = query(request, "cursor") if _as_page(request) else None
    text = text or resume_point(request)
    cursor = START if text is None else parse_cursor(text)
    await _not_ahead(core, who, run.thread_id, cursor)
    if _as_page(request):
        return await past_runs.page(core, who, request, run, cursor)
    return await past_runs.stream(core, who, run, cursor)


async def _many_events(core: Core, request: Request, who: Principal) -> Response:
    """Every fact of every thread that the key may see, or of some; from now on, or from a cursor."""
    deltas = query_flag(request, "deltas") or False
    threads = await _named(core, request, who)
    feed = await core_.many_feed(core, who, outbound.Placed, resume_point(request), threads=threads, pieces=deltas)
    return core_.many_stream(core, feed)


async def _named(core: Core, request: Request, who: Principal) -> list[str] | None:
    """The threads that a request names, all of them visible (or deleted); None: it names none."""
    text, position = query(request, "threads"), min_position(request)
    if text is None:
        who.to_read(None)
        check_position(position)  # what is followed is read as far as this gateway has heard anyway
        return None
    names = list(dict.fromkeys(text.split(",", THREADS_AT_ONCE)))
    if text == "" or len(names) > THREADS_AT_ONCE or "," in names[-1]:
        raise invalid(f"threads must name 1 to {THREADS_AT_ONCE} threads, with commas between")
    await core.reads.followed(who, names, position)
    return names


def _as_page(request: Request) -> bool:
    return wants(request, "application/json") and not wants(request, MEDIA_TYPE)


async def _page(
    core: Core,
    request: Request,
    who: Principal,
    thread_id: str,
    run_id: str | None,
    begin: int,
    end: int | None,
    limit: int,
) -> Response:
    """A page of facts: of the thread, or of one run of it that begins after `begin` and, if known, ends with `end`."""
    text = query(request, "cursor") or resume_point(request)
    cursor = START if text is None else parse_cursor(text)
    after = max(begin, cursor.done)
    if text is not None:
        await _not_ahead(core, who, thread_id, cursor)
    frames = outbound.Frames(thread_id, past=False)
    if text is not None and after > begin:
        for fact in await open_at(core.history, who.workspace_id, thread_id, after):
            frames(ShownFact(fact, ""))
    items: list[dict[str, object]] = []
    last = after
    more = True
    while more and len(items) < limit:
        facts, page = await core.history.facts(who.workspace_id, thread_id, last, limit if run_id is None else PAGE)
        for fact in facts:
            if len(items) < limit and (end is None or last < end):
                last = fact.seq or last
                if run_id is None or run_of(fact) == run_id:
                    items.append(frames(ShownFact(fact, ""))[-1].data)
        more = bool(facts) and last < (page.last_seq if end is None else min(end, page.last_seq))
    return answer(200, {"items": items, "next_cursor": str(last) if more else None})


async def _not_ahead(core: Core, who: Principal, thread_id: str, cursor: Cursor) -> None:
    """A Problem 400 when a cursor lies beyond the end that the log itself has, asked now."""
    _, page = await core.history.facts(who.workspace_id, thread_id, cursor.done, 1)
    if cursor.seq > page.last_seq:
        try:
            end = await core.hub.real_end_of(thread_id)
        except LogError:
            raise Unavailable("the log cannot be reached right now") from None
        _, page = await core.history.facts(who.workspace_id, thread_id, cursor.done, 1, min_position=[end])
        if cursor.seq > page.last_seq:
            raise cursor_ahead()


# ---- who and what


async def answering(core: Core, who: Principal, thread_id: str, asked: str | None) -> AgentView | None:
    """Who answers a message in a thread, as far as this gateway knows: asked for by name, or bound to the thread."""
    agent = None if asked is None else await agent_named(core, who, asked)
    if who.agents and not who.may_chat(None):
        # A key that is bound to agents: the thread decides, so it must be known.
        bound = (await core.reads.thread(who, thread_id)).agent_id
        who.to_chat(bound or (agent.id if agent else None))
    else:
        who.to_chat(None)
    if agent is None and thread_id in core.bound:
        try:
            workspace = await core.workspaces.get(who.workspace_id)
        except Problem:
            return None
        return workspace.agents.get(core.bound[thread_id] or DEFAULT_AGENT)
    return agent


PATHS: dict[str, dict[str, Handler]] = {
    "/threads": {"POST": _create, "GET": _list},
    "/threads/{thread_id}": {"GET": _get, "PATCH": _patch, "DELETE": _delete},
    "/threads/{thread_id}/messages": {"POST": _post, "GET": _messages},
    "/threads/{thread_id}/files": {"GET": _files},
    "/threads/{thread_id}/files/{name}": {"GET": _file},
    "/threads/{thread_id}/events": {"GET": _thread_events},
    "/events": {"GET": _many_events},
    "/runs/{run_id}/events": {"GET": _run_events},
    **fork.PATHS,
    **runs.PATHS,
    **approvals.PATHS,
}
"""Every path below the base, with its methods."""


ELSEWHERE: dict[str, dict[str, Handler]] = {**knowledge.PATHS}
"""The contract's paths that do not begin with the base."""


def routes(core: Core) -> list[Route]:
    """The routes of the dialect."""
    found = {BASE + path: methods for path, methods in PATHS.items()} | ELSEWHERE
    return [endpoint(core, path, methods, flat=True) for path, methods in found.items()]

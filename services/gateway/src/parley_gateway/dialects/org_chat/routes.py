"""The routes of `org_chat`: thin. `inbound` makes commands, `core` sends and follows, `outbound` words the answers."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_events.reads import AgentView
from parley_gateway import core as core_
from parley_gateway import files
from parley_gateway.auth import Principal
from parley_gateway.core import Core, Said
from parley_gateway.dialects.org_chat import inbound, outbound, wire
from parley_gateway.errors import Missing, invalid
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    body_of,
    endpoint,
    idempotency_key,
    min_position,
    query,
    query_limit,
    query_wait,
    resume_point,
    traceparent,
)
from parley_gateway.workspaces import Workspace

ROOT = "/api/org"
BASE = "/api/org/chat"
WAIT_S = 300.0
REPLAY_S = 30.0
"""How long the events of a run that has ended may take to be read."""


async def _message(core: Core, request: Request, who: Principal) -> Response:
    said = await _said(core, request, who, pieces=True)
    if said.outcome.pending:
        return answer(202, _open(said.run_id, "queued"), _headers(said))
    feed = await core_.feed_of(core, who, said, restarts=False)
    return core_.stream(core, feed, outbound.Events(core.clock), _headers(said))


async def _sync(core: Core, request: Request, who: Principal) -> Response:
    wait_s = query_wait(request, WAIT_S)
    said = await _said(core, request, who, pieces=False)
    status = "queued" if said.queued else "running"
    if said.outcome.pending:
        return answer(202, _open(said.run_id, status), _headers(said))
    feed = await core_.feed_of(core, who, said, restarts=False)
    run, shown = await core_.told(feed, said.run_id, said.thread_id, WAIT_S if wait_s is None else wait_s)
    if run.ended_seq is None:
        return answer(202, _open(said.run_id, run.status if run.posted_seq else status), _headers(said))
    return answer(200, outbound.whole(shown, core.clock), _headers(said))


async def _said(core: Core, request: Request, who: Principal, *, pieces: bool) -> Said:
    asked = await body_of(request, wire.NewMessage, core.settings.body_mb, files.BASE64_MB)
    query_wait(request, WAIT_S)
    workspace, structure_id, agent = await _node(core, who, asked.structure_id, asked.role_id)
    who.to_chat(agent.id)
    thread_id = inbound.default_thread(workspace.id, structure_id, agent.id)
    given = await files.uploads(asked.attachments)
    command = core.sender.command(
        who,
        core.sender.command_id(who, "message.post", thread_id, idempotency_key(request)),
        thread_id,
        inbound.post_message(who, asked, agent, tuple(file.attachment for file in given)),
        files.meaning(asked, given),
        traceparent=traceparent(request),
    )
    await files.store(core.objects, who.workspace_id, given)
    return await core_.say(core, who, command, follow=True, pieces=pieces)


def _headers(said: Said) -> dict[str, str]:
    return {"Parley-Run-Id": said.run_id, **(REPLAYED if said.outcome.repeated else {})}


def _open(run_id: str, status: str) -> dict[str, str]:
    """What is said of a run that has not ended."""
    url = f"{BASE}/runs/{run_id}"
    return {"run_id": run_id, "status": status, "poll_url": url, "events_url": f"{url}/events"}


async def _poll(core: Core, request: Request, who: Principal) -> Response:
    run = await core.reads.run(who, request.path_params["run_id"], min_position(request))
    headers = {"Parley-Run-Id": run.id}
    if run.ended_seq is None:
        return answer(202, _open(run.id, run.status), headers)
    feed = await core_.run_feed(core, who, run, None, restarts=False, pieces=False)
    _, shown = await core_.told(feed, run.id, run.thread_id, REPLAY_S)
    return answer(200, outbound.whole(shown, core.clock), headers)


async def _run_events(core: Core, request: Request, who: Principal) -> Response:
    run = await core.reads.run(who, request.path_params["run_id"], min_position(request))
    feed = await core_.run_feed(core, who, run, resume_point(request), restarts=False)
    return core_.stream(core, feed, outbound.Events(core.clock), {"Parley-Run-Id": run.id})


async def _history(core: Core, request: Request, who: Principal) -> Response:
    structure, role = query(request, "structure_id"), query(request, "role_id")
    workspace, structure_id, agent = await _node(core, who, structure, role)
    who.to_read(agent.id)
    include = query(request, "include")
    limit = query_limit(request)
    params = {
        "limit": limit,
        "cursor": query(request, "cursor"),
        "order": "desc",
        "roles": None if include == "events" else "user,assistant",
    }
    thread_id = inbound.default_thread(workspace.id, structure_id, agent.id)
    try:
        page = await core.reads.messages(who, thread_id, params, min_position(request))
    except Missing:
        return _nothing(params["cursor"])
    names = {known.id: known.spec.name for known in workspace.agents.values()}
    headers = {}
    if page.next_cursor is not None:
        again = {"structure_id": structure, "role_id": role, "limit": limit, "cursor": page.next_cursor}
        if include is not None:
            again["include"] = include
        headers["Link"] = f'<{BASE}/history?{urlencode(again)}>; rel="next"'
    return answer(200, [outbound.message(view, names) for view in page.items], headers)


async def _log(core: Core, request: Request, who: Principal) -> Response:
    workspace = await core.workspaces.get(who.workspace_id)
    inbound.structure(workspace, query(request, "structure_id"))
    who.to_read(None)
    notes = await core.reads.notes(who, {"limit": query_limit(request)}, min_position(request))
    return answer(200, [outbound.entry(view) for view in notes.items])


async def _artifacts(core: Core, request: Request, who: Principal) -> Response:
    thread_id = await _own_thread(core, request, who)
    params = {"kind": "artifact", "limit": query_limit(request), "cursor": query(request, "cursor")}
    try:
        page = await core.reads.files(who, thread_id, params, min_position(request))
    except Missing:
        return _nothing(params["cursor"])
    headers = {}
    if page.next_cursor is not None:
        again = {name: query(request, name) for name in ("structure_id", "role_id")}
        again |= {"limit": str(params["limit"]), "cursor": page.next_cursor}
        headers["Link"] = f'<{BASE}/artifacts?{urlencode(again)}>; rel="next"'
    return answer(200, [outbound.artifact(file) for file in page.items], headers)


async def _artifact(core: Core, request: Request, who: Principal) -> Response:
    thread_id = await _own_thread(core, request, who)
    params = {"name": request.path_params["name"], "sha256": query(request, "sha256")}
    file = await core.reads.file(who, thread_id, params, min_position(request))
    return await files.download(core.objects, who.workspace_id, file)


def _nothing(cursor: Any) -> Response:
    """Nothing was said to the node yet, so no page of it was ever given out."""
    if cursor is not None:
        raise invalid("the cursor is not one that Parley gave out", "bad_cursor")
    return answer(200, [])


async def _own_thread(core: Core, request: Request, who: Principal) -> str:
    """The thread of the node that the query names, for a key that may read it."""
    workspace, structure_id, agent = await _node(core, who, query(request, "structure_id"), query(request, "role_id"))
    who.to_read(agent.id)
    return inbound.default_thread(workspace.id, structure_id, agent.id)


async def _node(
    core: Core, who: Principal, structure_id: str | None, role_id: str | None
) -> tuple[Workspace, str, AgentView]:
    workspace = await core.workspaces.get(who.workspace_id)
    structure = inbound.structure(workspace, structure_id)
    if role_id:
        workspace = await core.workspaces.knowing(who.workspace_id, role_id)
    return workspace, structure, inbound.node(workspace, role_id)


PATHS: dict[str, dict[str, Handler]] = {
    "/chat/message": {"POST": _message},
    "/chat/message/sync": {"POST": _sync},
    "/chat/history": {"GET": _history},
    "/chat/runs/{run_id}": {"GET": _poll},
    "/chat/runs/{run_id}/events": {"GET": _run_events},
    "/chat/artifacts": {"GET": _artifacts},
    "/chat/artifacts/{name}": {"GET": _artifact},
    "/log": {"GET": _log},
}
"""Every path below `/api/org`, with its methods."""


def routes(core: Core) -> list[Route]:
    """The routes of the dialect."""
    return [endpoint(core, ROOT + path, methods, flat=False) for path, methods in PATHS.items()]

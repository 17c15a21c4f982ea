"""The routes of `threads` for the documents of a workspace (`/api/v1/knowledge`), beside `routes`.

Who may read the workspace may read them. To add and to remove them needs `*` or `admin`: what stands there every agent
may say to everybody.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from parley_events.commands import AddKnowledge, RemoveKnowledge
from parley_events.ids import derived_uuid, is_uuid, workspace_stream
from parley_gateway import documents, files
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.threads import outbound, wire
from parley_gateway.errors import Problem, not_found
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    body_of,
    idempotency_key,
    min_position,
    query,
    query_limit,
    traceparent,
)


async def _add(core: Core, request: Request, who: Principal) -> Response:
    who.to_edit()
    asked = await body_of(request, wire.NewDocument, core.settings.body_mb, files.BASE64_MB)
    document = await documents.read(asked.title, asked.content, asked.content_base64, asked.content_type)
    key = idempotency_key(request)
    stream = workspace_stream(who.workspace_id)
    command_id = core.sender.command_id(who, "knowledge.add", stream, key)
    knowledge_id = derived_uuid("knowledge", command_id)
    body = AddKnowledge(
        principal=who.asker,
        knowledge_id=knowledge_id,
        title=document.title,
        text=document.text,
        content_type=document.content_type,
    )
    command = core.sender.command(who, command_id, stream, body, document.meaning, traceparent=traceparent(request))
    outcome = await core.sender.ask(who, command)
    headers = REPLAYED if outcome.repeated else None
    if outcome.pending:
        return answer(202, {"id": knowledge_id, "status": "accepted"}, headers)
    return answer(201, outbound.new_document(body, outcome.time_ms, outcome.position), headers)


async def _list(core: Core, request: Request, who: Principal) -> Response:
    who.to_read(None)
    params = {"limit": query_limit(request), "cursor": query(request, "cursor")}
    page = await core.reads.documents(who, params, min_position(request))
    items = [outbound.document(view) for view in page.items]
    return answer(200, {"items": items, "next_cursor": page.next_cursor, "total": page.total})


async def _get(core: Core, request: Request, who: Principal) -> Response:
    who.to_read(None)
    view = await core.reads.document(who, request.path_params["knowledge_id"], min_position(request))
    return answer(200, {**outbound.document(view), "content": view.content})


async def _remove(core: Core, request: Request, who: Principal) -> Response:
    who.to_edit()
    knowledge_id: str = request.path_params["knowledge_id"]
    if not is_uuid(knowledge_id):
        raise not_found("document")
    command = core.sender.command(
        who,
        core.new_uuid(),
        workspace_stream(who.workspace_id),
        RemoveKnowledge(principal=who.asker, knowledge_id=knowledge_id),
        traceparent=traceparent(request),
    )
    outcome = await core.sender.ask(who, command)
    if outcome.pending:
        return answer(202, {"id": knowledge_id, "position": outcome.position})
    return Response(status_code=204)


async def check_attached(core: Core, who: Principal, knowledge_ids: Sequence[str], again: str | None) -> None:
    """A Problem 404 unless the workspace has all documents that a message names. `again`: the run that the message has
    if it is repeated; then what was decided counts, whatever was removed since."""
    if not all(map(is_uuid, knowledge_ids)):
        raise not_found("document")
    try:
        await core.reads.there(who, tuple(dict.fromkeys(knowledge_ids)))
    except Problem as problem:
        if again is None or problem.status != 404:
            raise
        try:
            await core.reads.run(who, again)
        except Problem:
            raise problem from None


PATHS: dict[str, dict[str, Handler]] = {
    "/api/v1/knowledge": {"POST": _add, "GET": _list},
    "/api/v1/knowledge/{knowledge_id}": {"GET": _get, "DELETE": _remove},
}
"""Every path, with its methods."""

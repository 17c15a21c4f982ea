"""The internal API over HTTP, as `parley_events.reads` lists it: reads, and the one thing that is written here.

Starlette without a framework's own error shape: every answer is JSON by orjson, every error `{"error": code}`.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_events.clock import Clock
from parley_events.errors import Undecodable
from parley_events.ids import is_uuid, thread_of, workspace_stream
from parley_events.partition import partition_of
from parley_events.positions import Position, StreamPosition, parse_positions, written
from parley_events.reads import POSITION_HEADER, Skip
from parley_history import stops
from parley_history.db import Connection, Pool
from parley_history.errors import BadData, Unavailable
from parley_history.parameters import (
    Refused,
    flag_of,
    integer,
    is_descending,
    limit_of,
    moment_of,
    number_of,
    partitions_of,
    places_of,
    version_of,
)
from parley_history.positions import Watch
from parley_history.reads import answers, past, runs, streams, threads, workspaces

logger = logging.getLogger(__name__)

MAX_WAIT_MS = 10_000
_TOLD_STREAMS = 8
"""How many of the streams that were waited for an answer names."""


class Reader:
    """What the handlers need: the two roles' pools and the watch. `partitions` is None until the log is open."""

    def __init__(self, internal: Pool, reader: Pool, watch: Watch, token: str, clock: Clock) -> None:
        self.internal, self.reader, self.watch, self.clock = internal, reader, watch, clock
        self.bearer = f"Bearer {token}".encode()
        self.partitions: int | None = None
        self.folding = asyncio.Semaphore(2)
        """Of those who ask for the past, so many are served at a time: each may hold thousands of facts."""


Handler = Callable[[Reader, Request], Awaitable[Any]]


def routes(reader: Reader) -> list[Route]:
    """The routes below `/internal`."""
    found = [
        Route(f"/internal{path}", _endpoint(reader, handler, _subject(path)), methods=["GET"])
        for path, handler in ROUTES.items()
    ]
    return [*found, Route("/internal/skips", _endpoint(reader, _skip), methods=["POST"])]


def answer(status: int, body: Any, position: str = "") -> Response:
    """A JSON answer, read at that position."""
    headers = {"retry-after": "1"} if status == 503 else {POSITION_HEADER: position} if position else None
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


Subject = Callable[[Mapping[str, Any]], str | None]
"""The stream that a path is about; None: many."""


def _subject(path: str) -> Subject:
    if "/threads/{id}" in path:
        return lambda names: str(names["id"])
    if "/runs/{run_id}" in path:
        return lambda names: thread_of(names["run_id"])
    if "/approvals/{id}" in path:
        return lambda names: thread_of(names["id"])
    if path == "/workspaces/{w}" or path.startswith(_OF_A_WORKSPACE):
        return lambda names: workspace_stream(names["w"])
    return _many


def _many(names: Mapping[str, Any]) -> str | None:
    return None


_OF_A_WORKSPACE = tuple(f"/workspaces/{{w}}/{part}" for part in ("keys", "agents", "teams", "knowledge"))
"""What facts of the workspace's own stream say."""


def _position(reader: Reader, stream: str | None, waited: Sequence[Position]) -> str:
    """How far the view is at least, before it is read: as far as this process knows, and as it was waited for."""
    partition = None
    if stream is not None and reader.partitions is not None:
        partition = partition_of(stream.encode(), reader.partitions)
    streams = [position for position in waited if isinstance(position, StreamPosition)]
    return written([*reader.watch.known(partition), *streams[:_TOLD_STREAMS]])


def _endpoint(reader: Reader, handler: Handler, subject: Subject = _many) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), reader.bearer):
            return answer(401, {"error": "unauthorized"})
        try:
            waited = await _wait(reader, request)
            position = _position(reader, subject(request.path_params), waited)
            found = await handler(reader, request)
        except Refused as refused:
            body = {"error": refused.code}
            return answer(refused.status, {**body, "message": refused.message} if refused.message else body)
        except answers.BadCursor as error:
            return answer(400, {"error": "bad_cursor", "message": str(error)})
        except Unavailable as error:
            logger.warning("a read found PostgreSQL away: %s", error)
            return answer(503, {"error": "unavailable"})
        except BadData:
            # U+0000 in a parameter: nothing is called that.
            return answer(404, {"error": "not_found"})
        if found is None:
            return answer(404, {"error": "not_found"}, position)
        return answer(200, found, found.pop(answers.AT, "") or position)

    return endpoint


async def _wait(reader: Reader, request: Request) -> Sequence[Position]:
    """Wait for what is asked for; the positions that the view has come to."""
    texts = request.query_params.getlist("min_position")
    if not texts:
        return ()
    wait_ms = integer(request, "wait_ms", 2000, 0, MAX_WAIT_MS)
    try:
        positions = parse_positions(",".join(texts))
    except Undecodable as error:
        raise Refused(400, "bad_position", str(error)) from None
    if not await reader.watch.wait(positions, wait_ms / 1000):
        raise Refused(503, "behind")
    return positions


# ---- handlers: everything of a workspace through the reader role, the rest through the projector's


Scoped = Callable[[Connection, str, Request], Awaitable[Any]]


def _scoped(read: Scoped) -> Handler:
    async def handler(reader: Reader, request: Request) -> Any:
        workspace = request.path_params["w"]
        if not is_uuid(workspace):
            return None
        async with AsyncExitStack() as stack:
            if moment_of(request) is not None:
                await stack.enter_async_context(reader.folding)
            transaction = reader.reader.transaction(workspace=workspace, snapshot=True)
            return await read(await stack.enter_async_context(transaction), workspace, request)

    return handler


def _timed(read: Callable[[Connection, str, Request, int], Awaitable[Any]]) -> Handler:
    """A read of a workspace in which it counts what time it is."""

    async def handler(reader: Reader, request: Request) -> Any:
        async def now(con: Connection, workspace: str, request: Request) -> Any:
            return await read(con, workspace, request, reader.clock())

        return await _scoped(now)(reader, request)

    return handler


async def _positions(reader: Reader, request: Request) -> Any:
    async with reader.internal.connection() as con:
        return await streams.positions(con)


async def _partition(reader: Reader, request: Request) -> Any:
    async with reader.internal.transaction(snapshot=True) as con:
        return await streams.partition(con, request.path_params["p"])


async def _due(reader: Reader, request: Request) -> Any:
    partitions, until_ms = partitions_of(request), integer(request, "until_ms", None, 0, 2**62)
    async with reader.internal.connection() as con:
        return await streams.due(con, partitions, until_ms)


async def _stops(reader: Reader, request: Request) -> Any:
    async with reader.internal.connection() as con:
        return await stops.stopped(con)


async def _skips(reader: Reader, request: Request) -> Any:
    limit = limit_of(request)
    async with reader.internal.transaction(snapshot=True) as con:
        return await stops.skipped(con, limit)


async def _skip(reader: Reader, request: Request) -> Any:
    try:
        asked = Skip.model_validate_json(await request.body())
    except ValidationError:
        raise Refused(400, "bad_skip", "not a skip as `parley_events.reads` has it") from None
    try:
        async with reader.internal.transaction() as con:
            found = await stops.skip(con, **asked.model_dump(), now_ms=reader.clock())
    except stops.NotStopped:
        return None
    except stops.SkippedBefore:
        raise Refused(409, "skipped_before", "it was skipped by somebody else, or for another reason") from None
    if not found["repeated"]:
        place = (asked.partition, asked.offset)
        logger.warning("the record at %d-%d is skipped, as the key %s asks", *place, asked.key_id)
    return found


async def _facts(reader: Reader, request: Request) -> Any:
    workspace = request.query_params.get("workspace_id")
    stream = request.path_params["stream"]
    after = integer(request, "after", 0, 0, 2**62)
    limit = limit_of(request, 1000, 1000)
    descending = is_descending(request)
    if workspace is not None and not is_uuid(workspace):
        return None
    pool = reader.internal if workspace is None else reader.reader
    async with pool.transaction(workspace=workspace, snapshot=True) as con:
        partitions = reader.partitions
        if partitions is None:
            partitions = len((await streams.positions(con))["partitions"])
        if partitions == 0:
            raise Refused(503, "unavailable", "the view was never started")
        partition = partition_of(stream.encode(), partitions)
        return await streams.facts(
            con, stream, partition, after=after, limit=limit, descending=descending, workspace=workspace
        )


async def _facts_between(con: Connection, workspace: str, request: Request) -> Any:
    query = request.query_params
    return await streams.facts_between(
        con,
        workspace,
        integer(request, "partition", None, 0, 255),
        integer(request, "from", None, 0, 2**62),
        integer(request, "below", None, 0, 2**62),
        limit=limit_of(request, 500, 1000),
        user_id=query.get("user_id"),
        threads=query.getlist("thread") or None,
    )


async def _owners(con: Connection, workspace: str, request: Request) -> Any:
    return await streams.owners(con, workspace, places_of(request, "at"))


async def _workspace(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.workspace(con, workspace)


async def _keys(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.keys(con, workspace)


async def _key_by_hash(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.key_by_hash(con, workspace, request.path_params["hash"])


async def _agents(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.agents(con, workspace)


async def _agent(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.agent(con, workspace, request.path_params["agent_id"], version_of(request))


async def _agent_versions(con: Connection, workspace: str, request: Request) -> Any:
    name, cursor = request.path_params["agent_id"], request.query_params.get("cursor")
    return await workspaces.agent_versions(
        con, workspace, name, version=version_of(request), limit=limit_of(request), cursor=cursor
    )


async def _teams(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.teams(con, workspace)


async def _team_versions(con: Connection, workspace: str, request: Request) -> Any:
    name, cursor = request.path_params["team_id"], request.query_params.get("cursor")
    return await workspaces.team_versions(
        con, workspace, name, version=version_of(request), limit=limit_of(request), cursor=cursor
    )


async def _threads(con: Connection, workspace: str, request: Request, now_ms: int) -> Any:
    query = request.query_params
    return await threads.threads(
        con,
        workspace,
        archived=flag_of(request, "archived") or False,
        user_id=query.get("user_id"),
        agent_id=query.get("agent_id"),
        team_id=query.get("team_id"),
        pinned=flag_of(request, "pinned"),
        channel=query.get("channel"),
        limit=limit_of(request),
        cursor=query.get("cursor"),
        now_ms=now_ms,
    )


async def _thread(con: Connection, workspace: str, request: Request, now_ms: int) -> Any:
    thread_id, as_of = request.path_params["id"], moment_of(request)
    if as_of is not None:
        then = await _past(con, workspace, thread_id, as_of)
        return None if then is None else past.thread(then)
    return await threads.thread(con, workspace, thread_id, now_ms)


async def _messages(con: Connection, workspace: str, request: Request) -> Any:
    roles = [role for text in request.query_params.getlist("roles") for role in text.split(",") if role]
    thread_id, as_of = request.path_params["id"], moment_of(request)
    page: dict[str, Any] = {
        "roles": roles or None,
        "limit": limit_of(request),
        "descending": is_descending(request),
        "cursor": request.query_params.get("cursor"),
    }
    if as_of is not None:
        then = await _past(con, workspace, thread_id, as_of)
        return None if then is None else past.messages(then, **page)
    return await threads.messages(con, workspace, thread_id, **page)


async def _numbered(con: Connection, workspace: str, request: Request) -> Any:
    query = request.query_params
    return await threads.numbered(
        con,
        workspace,
        thread_id=query.get("thread_id"),
        user_id=query.get("user_id"),
        agent_id=query.get("agent_id"),
        tools=flag_of(request, "tools") or False,
        before=number_of(request, "before"),
        after=number_of(request, "after"),
        limit=limit_of(request),
    )


async def _client_call(con: Connection, workspace: str, request: Request) -> Any:
    names = (request.query_params.get(name, "") for name in ("user_id", "agent_id", "tool_call_id"))
    return await threads.client_call(con, workspace, *names)


async def _message(con: Connection, workspace: str, request: Request) -> Any:
    return await threads.message(con, workspace, request.path_params["id"], request.path_params["message_id"])


async def _said(con: Connection, workspace: str, request: Request) -> Any:
    query = request.query_params
    return await threads.said(
        con,
        workspace,
        thread_id=query.get("thread_id"),
        user_id=query.get("user_id"),
        agent_id=query.get("agent_id"),
        channels=query.getlist("channel"),
        before=number_of(request, "before"),
        limit=limit_of(request),
    )


async def _inbox(con: Connection, workspace: str, request: Request) -> Any:
    names = (request.query_params.get(name, "") for name in ("user_id", "agent_id"))
    return await threads.inbox(con, workspace, *names, limit=limit_of(request))


async def _unread(con: Connection, workspace: str, request: Request) -> Any:
    names = (request.query_params.get(name, "") for name in ("user_id", "agent_id", "after"))
    return await threads.unread(con, workspace, *names, limit=limit_of(request))


async def _deleted(con: Connection, workspace: str, request: Request) -> Any:
    query = request.query_params
    return await threads.deleted(
        con,
        workspace,
        query.get("user_id", ""),
        agent_id=query.get("agent_id"),
        team_id=query.get("team_id"),
        channel=query.get("channel", ""),
    )


async def _files(con: Connection, workspace: str, request: Request) -> Any:
    query = request.query_params
    return await threads.files(
        con,
        workspace,
        request.path_params["id"],
        kind=query.get("kind"),
        name=query.get("name"),
        sha256=query.get("sha256"),
        limit=limit_of(request),
        cursor=query.get("cursor"),
    )


async def _run(con: Connection, workspace: str, request: Request) -> Any:
    run_id, as_of = request.path_params["run_id"], moment_of(request)
    if as_of is not None:
        then = await _past(con, workspace, thread_of(run_id) or "", as_of)
        return None if then is None else past.run(then, run_id)
    return await runs.run(con, workspace, run_id)


async def _past(con: Connection, workspace: str, thread_id: str, as_of: past.AsOf) -> past.Past | None:
    try:
        return await past.past(con, workspace, thread_id, as_of)
    except past.Ahead:
        raise Refused(400, "as_of_ahead") from None
    except past.TooMuch:
        raise Refused(413, "too_much_history") from None


async def _open_runs(con: Connection, workspace: str, request: Request) -> Any:
    query = request.query_params
    return await runs.open_runs(
        con,
        workspace,
        agent_id=query.get("agent_id"),
        user_id=query.get("user_id"),
        thread_id=query.get("thread_id"),
        until_ms=integer(request, "until_ms", None, 0, 2**62) if "until_ms" in query else None,
        limit=limit_of(request),
        cursor=query.get("cursor"),
    )


async def _approvals(con: Connection, workspace: str, request: Request) -> Any:
    query = request.query_params
    return await runs.approvals(
        con,
        workspace,
        status=query.get("status"),
        thread_id=query.get("thread_id"),
        agent_id=query.get("agent_id"),
        user_id=query.get("user_id"),
        answerer=query.get("answerer"),
        limit=limit_of(request),
        cursor=query.get("cursor"),
    )


async def _approval(con: Connection, workspace: str, request: Request) -> Any:
    return await runs.approval(con, workspace, request.path_params["id"])


async def _notes(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.notes(con, workspace, request.query_params.get("kind"), limit_of(request))


async def _skills(con: Connection, workspace: str, request: Request) -> Any:
    query = request.query_params
    return await workspaces.skills(con, workspace, query.get("agent_id"), query.get("query"))


async def _skill(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.skill(con, workspace, request.path_params["slug"], request.query_params.get("agent_id"))


async def _documents(con: Connection, workspace: str, request: Request) -> Any:
    query = request.query_params
    ids = query.getlist("id") or None
    return await workspaces.documents(con, workspace, ids=ids, limit=limit_of(request), cursor=query.get("cursor"))


async def _document(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.document(con, workspace, request.path_params["id"])


async def _passages(con: Connection, workspace: str, request: Request) -> Any:
    return await workspaces.passages(con, workspace, request.query_params.get("query", "")[:500], limit_of(request, 5))


ROUTES: dict[str, Handler] = {
    "/positions": _positions,
    "/partitions/{p:int}": _partition,
    "/due": _due,
    "/stops": _stops,
    "/skips": _skips,
    "/streams/{stream}/facts": _facts,
    "/workspaces/{w}": _scoped(_workspace),
    "/workspaces/{w}/facts": _scoped(_facts_between),
    "/workspaces/{w}/owners": _scoped(_owners),
    "/workspaces/{w}/keys": _scoped(_keys),
    "/workspaces/{w}/keys/by-hash/{hash}": _scoped(_key_by_hash),
    "/workspaces/{w}/agents": _scoped(_agents),
    "/workspaces/{w}/agents/{agent_id}": _scoped(_agent),
    "/workspaces/{w}/agents/{agent_id}/versions": _scoped(_agent_versions),
    "/workspaces/{w}/teams": _scoped(_teams),
    "/workspaces/{w}/teams/{team_id}/versions": _scoped(_team_versions),
    "/workspaces/{w}/threads": _timed(_threads),
    "/workspaces/{w}/threads/{id}": _timed(_thread),
    "/workspaces/{w}/threads/{id}/messages": _scoped(_messages),
    "/workspaces/{w}/threads/{id}/messages/{message_id}": _scoped(_message),
    "/workspaces/{w}/threads/{id}/files": _scoped(_files),
    "/workspaces/{w}/said": _scoped(_said),
    "/workspaces/{w}/inbox": _scoped(_inbox),
    "/workspaces/{w}/unread": _scoped(_unread),
    "/workspaces/{w}/deleted": _scoped(_deleted),
    "/workspaces/{w}/messages": _scoped(_numbered),
    "/workspaces/{w}/client-call": _scoped(_client_call),
    "/workspaces/{w}/runs": _scoped(_open_runs),
    "/workspaces/{w}/runs/{run_id}": _scoped(_run),
    "/workspaces/{w}/approvals": _scoped(_approvals),
    "/workspaces/{w}/approvals/{id}": _scoped(_approval),
    "/workspaces/{w}/notes": _scoped(_notes),
    "/workspaces/{w}/skills": _scoped(_skills),
    "/workspaces/{w}/skills/{slug}": _scoped(_skill),
    "/workspaces/{w}/knowledge": _scoped(_documents),
    "/workspaces/{w}/knowledge/{id}": _scoped(_document),
    "/workspaces/{w}/passages": _scoped(_passages),
}
"""Every read, by its path below `/internal`."""

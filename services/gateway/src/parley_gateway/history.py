"""The client of history's internal read API (`parley_events.reads`): typed, with limits, over several replicas.

The only importer of httpx2. Every method raises `Missing` (404), `Behind` (the view has not come to `min_position`
in time), `Problem` (400: what the client gave is wrong) or `Unavailable` (no replica answers, or PostgreSQL is away).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import orjson
from starlette.types import ASGIApp

from parley_events import reads
from parley_events.body import Shape, json_bytes
from parley_events.codec import Fact, fact_from
from parley_events.reads import POSITION_HEADER
from parley_gateway import answered
from parley_gateway.errors import Behind, Missing, Problem, Unavailable, invalid

Answer = TypeVar("Answer", bound=Shape)
Params = dict[str, Any]
NOW: Params = {}
"""As it is now; another time is `as_of_seq` or `as_of_ms`."""

WAIT_MS = 2000
"""How long a read waits for a position when nothing else is said."""


class History:
    """Asks one replica after the other, beginning with the one that answered last."""

    def __init__(self, client: httpx2.AsyncClient, urls: Sequence[str], token: str) -> None:
        self._client, self._urls, self._at = client, tuple(urls), 0
        self._headers = {"Authorization": f"Bearer {token}"}

    @classmethod
    def over(cls, urls: Sequence[str], token: str) -> History:
        """The client of replicas at these addresses."""
        limits = httpx2.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=30)
        return cls(httpx2.AsyncClient(limits=limits, trust_env=False), urls, token)

    @classmethod
    def in_process(cls, app: ASGIApp, token: str) -> History:
        """The client of a history that runs in this very process."""
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        return cls(httpx2.AsyncClient(transport=transport), ("http://history",), token)

    async def close(self) -> None:
        await self._client.aclose()

    async def _get(
        self, path: str, answer: type[Answer], params: Params, min_position: Sequence[str], wait_ms: int
    ) -> Answer:
        query = {name: value for name, value in params.items() if value is not None}
        if min_position:
            query |= {"min_position": list(min_position), "wait_ms": wait_ms}
        return await self._ask("GET", path, answer, query, None, 3 + (wait_ms / 1000 if min_position else 0))

    async def _ask(
        self, method: str, path: str, answer: type[Answer], query: Params, content: bytes | None, limit_s: float
    ) -> Answer:
        timeout = httpx2.Timeout(limit_s, connect=1.0)
        for turn in range(len(self._urls)):
            at = (self._at + turn) % len(self._urls)
            try:
                response = await self._client.request(
                    method,
                    f"{self._urls[at]}/internal{path}",
                    params=query,
                    content=content,
                    headers=self._headers,
                    timeout=timeout,
                )
            except httpx2.TransportError:
                continue
            if response.status_code in (200, 404):
                answered.read(response.headers.get(POSITION_HEADER))
            if response.status_code == 200:
                self._at = at
                return answer.model_validate_json(response.content)
            code = _code(response.content)
            if response.status_code == 404 and code == "not_found":
                raise Missing(path)
            if response.status_code == 400:
                raise _refused(code)
            if response.status_code == 413:
                raise Problem(code, "that is too much of the thread to be put together again in one request", 413)
            if response.status_code == 409:
                raise Problem(code, "it was skipped by somebody else, or for another reason", 409)
            if response.status_code == 503 and code == "behind":
                raise Behind
        raise Unavailable("history cannot be reached right now; sending goes on, reading has to wait")

    async def positions(self) -> reads.Positions:
        return await self._get("/positions", reads.Positions, {}, (), 0)

    async def stops(self, min_position: Sequence[str] = ()) -> reads.StopList:
        return await self._get("/stops", reads.StopList, {}, min_position, WAIT_MS)

    async def skips(self, limit: int, min_position: Sequence[str] = ()) -> reads.SkipList:
        return await self._get("/skips", reads.SkipList, {"limit": limit}, min_position, WAIT_MS)

    async def skip(self, asked: reads.Skip) -> reads.SkipMade:
        """The one thing that is written over this API; asking again, at another replica too, changes nothing."""
        return await self._ask("POST", "/skips", reads.SkipMade, {}, asked.model_dump_json().encode(), 5.0)

    async def facts(
        self,
        workspace_id: str,
        stream: str,
        after: int,
        limit: int = 500,
        order: str = "asc",
        min_position: Sequence[str] = (),
        wait_ms: int = WAIT_MS,
    ) -> tuple[list[Fact], reads.FactsPage]:
        """Facts of a stream after a seq (order desc: below it), decoded, and the page they came in."""
        params = {"after": after, "limit": limit, "order": order, "workspace_id": workspace_id}
        page = await self._get(f"/streams/{stream}/facts", reads.FactsPage, params, min_position, wait_ms)
        return [_fact(item) for item in page.items], page

    async def facts_between(
        self,
        workspace_id: str,
        partition: int,
        first: int,
        below: int,
        *,
        user_id: str | None,
        threads: Sequence[str] | None,
        limit: int = 500,
        min_position: Sequence[str] = (),
    ) -> tuple[list[Fact], int]:
        """Facts of the threads that a user sees (None: of all), or of some of these, by their offsets; and the offset
        from which on there may be more."""
        params: Params = {"partition": partition, "from": first, "below": below, "limit": limit, "user_id": user_id}
        params["thread"] = threads
        path = f"/workspaces/{workspace_id}/facts"
        page = await self._get(path, reads.FactsBetween, params, min_position, WAIT_MS)
        return [_fact(item) for item in page.items], page.next_offset

    async def owners(
        self, workspace_id: str, at: Sequence[str], min_position: Sequence[str] = ()
    ) -> dict[str, reads.OwnerView]:
        """Whose threads are, by their ids, and how far each was below an offset; `at`: `<thread>@<offset>`."""
        path = f"/workspaces/{workspace_id}/owners"
        found = await self._get(path, reads.OwnerList, {"at": list(at)}, min_position, WAIT_MS)
        return {owner.id: owner for owner in found.items}

    async def workspace(self, workspace_id: str, min_position: Sequence[str] = ()) -> reads.WorkspaceView:
        return await self._get(f"/workspaces/{workspace_id}", reads.WorkspaceView, {}, min_position, WAIT_MS)

    async def keys(self, workspace_id: str, min_position: Sequence[str] = ()) -> reads.KeyList:
        return await self._get(f"/workspaces/{workspace_id}/keys", reads.KeyList, {}, min_position, WAIT_MS)

    async def key(self, workspace_id: str, key_hash: str) -> reads.KeyView:
        return await self._get(f"/workspaces/{workspace_id}/keys/by-hash/{key_hash}", reads.KeyView, {}, (), WAIT_MS)

    async def agents(self, workspace_id: str, min_position: Sequence[str] = ()) -> reads.AgentList:
        return await self._get(f"/workspaces/{workspace_id}/agents", reads.AgentList, {}, min_position, WAIT_MS)

    async def agent_versions(
        self, workspace_id: str, name: str, params: Params, min_position: Sequence[str] = ()
    ) -> reads.AgentVersions:
        path = f"/workspaces/{workspace_id}/agents/{quote(name, safe='')}/versions"
        return await self._get(path, reads.AgentVersions, params, min_position, WAIT_MS)

    async def team_versions(
        self, workspace_id: str, name: str, params: Params, min_position: Sequence[str] = ()
    ) -> reads.TeamVersions:
        path = f"/workspaces/{workspace_id}/teams/{quote(name, safe='')}/versions"
        return await self._get(path, reads.TeamVersions, params, min_position, WAIT_MS)

    async def teams(self, workspace_id: str, min_position: Sequence[str] = ()) -> reads.TeamList:
        return await self._get(f"/workspaces/{workspace_id}/teams", reads.TeamList, {}, min_position, WAIT_MS)

    async def threads(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.ThreadPage:
        return await self._get(f"/workspaces/{workspace_id}/threads", reads.ThreadPage, params, min_position, wait_ms)

    async def thread(
        self,
        workspace_id: str,
        thread_id: str,
        min_position: Sequence[str] = (),
        wait_ms: int = WAIT_MS,
        as_of: Params = NOW,
    ) -> reads.ThreadView:
        path = f"/workspaces/{workspace_id}/threads/{thread_id}"
        return await self._get(path, reads.ThreadView, as_of, min_position, wait_ms)

    async def messages(
        self,
        workspace_id: str,
        thread_id: str,
        params: Params,
        min_position: Sequence[str] = (),
        wait_ms: int = WAIT_MS,
    ) -> reads.MessagePage:
        path = f"/workspaces/{workspace_id}/threads/{thread_id}/messages"
        return await self._get(path, reads.MessagePage, params, min_position, wait_ms)

    async def files(
        self,
        workspace_id: str,
        thread_id: str,
        params: Params,
        min_position: Sequence[str] = (),
        wait_ms: int = WAIT_MS,
    ) -> reads.FilePage:
        path = f"/workspaces/{workspace_id}/threads/{thread_id}/files"
        return await self._get(path, reads.FilePage, params, min_position, wait_ms)

    async def numbered(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.NumberedPage:
        path = f"/workspaces/{workspace_id}/messages"
        return await self._get(path, reads.NumberedPage, params, min_position, wait_ms)

    async def client_call(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.MessageView:
        path = f"/workspaces/{workspace_id}/client-call"
        return await self._get(path, reads.MessageView, params, min_position, wait_ms)

    async def said(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.MessageList:
        path = f"/workspaces/{workspace_id}/said"
        return await self._get(path, reads.MessageList, params, min_position, wait_ms)

    async def message(
        self,
        workspace_id: str,
        thread_id: str,
        message_id: str,
        min_position: Sequence[str] = (),
        wait_ms: int = WAIT_MS,
    ) -> reads.MessageView:
        path = f"/workspaces/{workspace_id}/threads/{thread_id}/messages/{quote(message_id, safe='')}"
        return await self._get(path, reads.MessageView, {}, min_position, wait_ms)

    async def inbox(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.Inbox:
        return await self._get(f"/workspaces/{workspace_id}/inbox", reads.Inbox, params, min_position, wait_ms)

    async def unread(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.UnreadPage:
        return await self._get(f"/workspaces/{workspace_id}/unread", reads.UnreadPage, params, min_position, wait_ms)

    async def deleted(self, workspace_id: str, params: Params) -> reads.Count:
        """How many threads were deleted, of those that a user has with an agent or a team in a channel."""
        return await self._get(f"/workspaces/{workspace_id}/deleted", reads.Count, params, (), WAIT_MS)

    async def run(
        self,
        workspace_id: str,
        run_id: str,
        min_position: Sequence[str] = (),
        wait_ms: int = WAIT_MS,
        as_of: Params = NOW,
    ) -> reads.RunView:
        return await self._get(f"/workspaces/{workspace_id}/runs/{run_id}", reads.RunView, as_of, min_position, wait_ms)

    async def open_runs(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.OpenRunPage:
        return await self._get(f"/workspaces/{workspace_id}/runs", reads.OpenRunPage, params, min_position, wait_ms)

    async def approval(
        self, workspace_id: str, approval_id: str, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.ApprovalView:
        path = f"/workspaces/{workspace_id}/approvals/{approval_id}"
        return await self._get(path, reads.ApprovalView, {}, min_position, wait_ms)

    async def approvals(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.ApprovalPage:
        path = f"/workspaces/{workspace_id}/approvals"
        return await self._get(path, reads.ApprovalPage, params, min_position, wait_ms)

    async def notes(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.NoteList:
        return await self._get(f"/workspaces/{workspace_id}/notes", reads.NoteList, params, min_position, wait_ms)

    async def documents(
        self, workspace_id: str, params: Params, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.DocumentPage:
        path = f"/workspaces/{workspace_id}/knowledge"
        return await self._get(path, reads.DocumentPage, params, min_position, wait_ms)

    async def document(
        self, workspace_id: str, knowledge_id: str, min_position: Sequence[str] = (), wait_ms: int = WAIT_MS
    ) -> reads.DocumentView:
        path = f"/workspaces/{workspace_id}/knowledge/{knowledge_id}"
        return await self._get(path, reads.DocumentView, {}, min_position, wait_ms)


def _fact(item: reads.StoredFact) -> Fact:
    return fact_from(item.headers, json_bytes(item.body), item.offset, item.time_ms)


def _code(content: bytes) -> str:
    try:
        return str(orjson.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return ""


def _refused(code: str) -> Exception:
    if code == "bad_cursor":
        return invalid("the cursor is not one that Parley gave out", "bad_cursor")
    if code == "bad_limit":
        return invalid("limit must be a number from 1 to 200", "bad_limit")
    if code == "as_of_ahead":
        return invalid("the thread has no fact of that seq", code)
    return invalid("the position is not one that Parley gave out", "bad_position")

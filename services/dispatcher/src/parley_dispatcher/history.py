"""History as the dispatcher asks it: a typed client of the internal read API (`parley_events.reads`).

The only importer of httpx2 here. Every call is bounded in time; an answer that does not come is `HistoryUnavailable`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import httpx2

from parley_dispatcher.errors import HistoryUnavailable
from parley_events.body import Shape, json_bytes
from parley_events.codec import Fact, fact_from
from parley_events.positions import Position, StreamPosition
from parley_events.reads import (
    AgentView,
    DocumentView,
    Due,
    DueList,
    FactsPage,
    PartitionView,
    PassageList,
    PassageView,
    Positions,
    SkillList,
    SkillView,
    WorkspaceView,
)

View = TypeVar("View", bound=Shape)
_PAGE = 1000
_ANSWER_S, _CONNECT_S = 12.0, 2.0
_CLAIM_S = 2.0
"""A claim asks the next replica soon: a stalled one must not use up the time in which partitions are taken over."""


class Stored(NamedTuple):
    """Facts of a stream, in order: all that the view had of it when it stood at `next_offset` of the partition."""

    facts: list[Fact]
    next_offset: int


class History:
    """Asks the replicas in turn; the one that answered last is asked first."""

    def __init__(
        self, urls: tuple[str, ...], token: str, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._urls = list(urls)
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S),
            transport=transport,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def positions(self) -> Positions:
        """Where every partition's projection stands."""
        return await self._need("/positions", Positions)

    async def partition(self, partition: int) -> PartitionView:
        """What a new owner starts from."""
        return await self._need(f"/partitions/{partition}", PartitionView, _CLAIM_S)

    async def due(self, partitions: Iterable[int], until_ms: int) -> tuple[Due, ...]:
        """What is due in these partitions by then, the oldest of each first; not all of it where that is very much."""
        of = ",".join(map(str, partitions))
        return (await self._need("/due", DueList, partitions=of, until_ms=str(until_ms))).items

    async def facts(self, stream: str, after: int) -> Stored:
        """All facts of a stream beyond `after` that the view has, in order."""
        found: list[Fact] = []
        while True:
            page = await self._need(f"/streams/{stream}/facts", FactsPage, after=str(after), limit=str(_PAGE))
            found.extend(
                fact_from(item.headers, json_bytes(item.body), item.offset, item.time_ms) for item in page.items
            )
            last = found[-1].seq if page.items else page.last_seq
            if last is None:
                raise HistoryUnavailable(f"{stream}: a stored fact without a seq")
            # A page of large facts is shorter than was asked for: only the newest seq says that all is there.
            if last >= page.last_seq:
                return Stored(found, page.next_offset)
            after = last

    async def agent(self, workspace_id: str, agent_id: str, version: int | None) -> AgentView | None:
        """A version of an agent, or its newest; None when there is none."""
        query = {} if version is None else {"version": str(version)}
        return await self._get(f"/workspaces/{workspace_id}/agents/{agent_id}", AgentView, **query)

    async def workspace(
        self, workspace_id: str, position: StreamPosition | None = None, wait_ms: int = 1000
    ) -> WorkspaceView | None:
        """What a workspace sets; with a position, from a view that comes to it in time."""
        query = {} if position is None else {"min_position": str(position), "wait_ms": str(wait_ms)}
        return await self._get(f"/workspaces/{workspace_id}", WorkspaceView, **query)

    async def document(
        self, workspace_id: str, knowledge_id: str, position: StreamPosition | None = None
    ) -> DocumentView | None:
        """A document with its content; None when there is none, or none any more."""
        query = {} if position is None else {"min_position": str(position)}
        return await self._get(f"/workspaces/{workspace_id}/knowledge/{knowledge_id}", DocumentView, **query)

    async def passages(
        self, workspace_id: str, query: str, limit: int, positions: Iterable[Position]
    ) -> tuple[PassageView, ...]:
        """What the workspace's documents say to a query; the view is at least at `positions`."""
        asked: dict[str, Any] = {"query": query, "limit": str(limit)}
        asked["min_position"] = [str(position) for position in positions]
        return (await self._need(f"/workspaces/{workspace_id}/passages", PassageList, **asked)).items

    async def skills(
        self, workspace_id: str, agent_id: str, query: str | None, positions: Iterable[Position]
    ) -> tuple[SkillView, ...]:
        """The skills that an agent learned, without bodies; the view is at least at `positions`."""
        asked: dict[str, Any] = {"agent_id": agent_id, "min_position": [str(position) for position in positions]}
        if query:
            asked["query"] = query
        return (await self._need(f"/workspaces/{workspace_id}/skills", SkillList, **asked)).items

    async def skill(
        self, workspace_id: str, agent_id: str, slug: str, positions: Iterable[Position]
    ) -> SkillView | None:
        asked: dict[str, Any] = {"agent_id": agent_id, "min_position": [str(position) for position in positions]}
        return await self._get(f"/workspaces/{workspace_id}/skills/{slug}", SkillView, **asked)

    async def _need(self, path: str, view: type[View], limit_s: float = _ANSWER_S, /, **query: Any) -> View:
        found = await self._get(path, view, limit_s, **query)
        if found is None:
            raise HistoryUnavailable(f"history knows no {path}")
        return found

    async def _get(self, path: str, view: type[View], limit_s: float = _ANSWER_S, /, **query: Any) -> View | None:
        failure = "no replica is configured"
        for _ in range(len(self._urls)):
            try:
                limits = httpx2.Timeout(limit_s, connect=_CONNECT_S)
                answer = await self._client.get(f"{self._urls[0]}/internal{path}", params=query, timeout=limits)
            except httpx2.HTTPError as error:
                failure = f"{type(error).__name__} at {self._urls[0]}"
            else:
                if answer.status_code == 200:
                    return view.model_validate_json(answer.content)
                if answer.status_code == 404:
                    return None
                failure = f"{answer.status_code} from {self._urls[0]}"
            self._urls.append(self._urls.pop(0))
        raise HistoryUnavailable(failure)

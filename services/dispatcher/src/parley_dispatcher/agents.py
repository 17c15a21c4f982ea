"""Agents as the dispatcher knows them: versions never change, so each is asked for once.

A gateway names on the command the newest version it saw, so that deciding needs no look-up; other producers name none,
and the newest is asked of history.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from parley_dispatcher.errors import HistoryUnavailable
from parley_dispatcher.history import History
from parley_events.body import AgentSpec
from parley_events.clock import Clock
from parley_events.reads import WorkspaceView

_FRESH_MS = 2000
_WAIT_S = 5.0


@dataclass(slots=True)
class _Known:
    workspace: WorkspaceView | None
    read_ms: int


class Agents:
    """Looks agents up and remembers what cannot change."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history, self._clock = history, clock
        self._specs: dict[tuple[str, str, int], AgentSpec] = {}
        self._workspaces: dict[str, _Known] = {}
        self._refreshing: set[asyncio.Future[None]] = set()

    def known(self, workspace_id: str, agent_id: str, version: int | None) -> bool:
        """Whether this very version is known already, so that nothing must be waited for."""
        return version is not None and (workspace_id, agent_id, version) in self._specs

    async def resolve(self, workspace_id: str, agent_id: str, version: int | None) -> int | None:
        """The version to answer with: the one named, else the newest; None when there is no such agent. While history
        is away, the newest that is known here has to do: threads that are at hand go on without it."""
        if self.known(workspace_id, agent_id, version):
            return version
        if version is not None:
            spec = await self._wait_for(workspace_id, agent_id, version)
            if spec is not None:
                return version
        try:
            view = await self._history.agent(workspace_id, agent_id, None)
        except HistoryUnavailable:
            known = [v for (workspace, agent, v) in self._specs if (workspace, agent) == (workspace_id, agent_id)]
            if not known:
                raise
            return max(known)
        if view is None or view.deleted:
            return None
        self._specs[(workspace_id, agent_id, view.version)] = view.spec
        return view.version

    async def spec(self, workspace_id: str, agent_id: str, version: int) -> AgentSpec | None:
        """That version of the agent."""
        found = self._specs.get((workspace_id, agent_id, version))
        return found or await self._wait_for(workspace_id, agent_id, version)

    async def workspace(self, workspace_id: str) -> WorkspaceView | None:
        """What the workspace sets for all its agents; at most two seconds old, older while history is away."""
        known = self._workspaces.get(workspace_id)
        if known is not None and self._clock() - known.read_ms < _FRESH_MS:
            return known.workspace
        if known is not None:
            known.read_ms = self._clock()
            refresh = asyncio.ensure_future(self._refresh(workspace_id))
            self._refreshing.add(refresh)
            refresh.add_done_callback(self._refreshing.discard)
            return known.workspace
        await self._read(workspace_id)
        return self._workspaces[workspace_id].workspace

    async def _read(self, workspace_id: str) -> None:
        self._workspaces[workspace_id] = _Known(await self._history.workspace(workspace_id), self._clock())

    async def _refresh(self, workspace_id: str) -> None:
        with contextlib.suppress(HistoryUnavailable):
            await self._read(workspace_id)

    async def _wait_for(self, workspace_id: str, agent_id: str, version: int) -> AgentSpec | None:
        """The version, waiting a little for history to learn of it."""
        until = asyncio.get_running_loop().time() + _WAIT_S
        while True:
            view = await self._history.agent(workspace_id, agent_id, version)
            if view is not None:
                self._specs[(workspace_id, agent_id, version)] = view.spec
                return view.spec
            if asyncio.get_running_loop().time() > until:
                return None
            await asyncio.sleep(0.05)

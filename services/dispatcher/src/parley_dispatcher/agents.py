"""Agents as the dispatcher knows them: versions never change, so each is asked for once. And what their workspaces set.

A gateway names on the command the newest version it saw, so that deciding needs no look-up; other producers name none,
and the newest is asked of history. In the same way a gateway names the newest fact of the workspace that it saw: what
is known here and older is read again first, so that nobody is answered by yesterday's settings.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from parley_dispatcher.errors import HistoryUnavailable
from parley_dispatcher.history import History
from parley_events.body import AgentSpec
from parley_events.clock import Clock
from parley_events.ids import workspace_stream
from parley_events.positions import StreamPosition
from parley_events.reads import WorkspaceView

_FRESH_MS = 2000
_CATCH_UP_MS = 2000
"""How long a run waits for the view to come to what its message's writer saw."""
_AGAIN_MS = 10_000
"""How long, after one has waited in vain, no other does; what is read behind the answers may come there meanwhile."""
_WAIT_S = 5.0


@dataclass(slots=True)
class _Known:
    """`missed` is the newest seq that could not be read lately, at `missed_ms`."""

    workspace: WorkspaceView | None
    read_ms: int
    missed: int = 0
    missed_ms: int = 0

    @property
    def seq(self) -> int:
        return self.workspace.seq if self.workspace is not None else 0


class Agents:
    """Looks agents up and remembers what cannot change."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history, self._clock = history, clock
        self._specs: dict[tuple[str, str, int], AgentSpec] = {}
        self._workspaces: dict[str, _Known] = {}
        self._refreshing: set[asyncio.Future[None]] = set()
        self._catching: dict[str, asyncio.Lock] = {}

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

    async def workspace(self, workspace_id: str, seq: int | None = None) -> WorkspaceView | None:
        """What the workspace sets for all its agents, not older than its fact `seq`; what is older than two seconds is
        read again behind the answer. While history is away, or does not come that far, it is what is known."""
        if seq is not None and self._behind(workspace_id, seq):
            await self._catch_up(workspace_id, seq)
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

    def _behind(self, workspace_id: str, seq: int) -> bool:
        """Whether what is known is older than the fact `seq`, and was not asked for that a moment ago in vain."""
        known = self._workspaces.get(workspace_id)
        if known is None:
            return True
        return known.seq < seq and not (known.missed >= seq and self._clock() - known.missed_ms < _AGAIN_MS)

    async def _catch_up(self, workspace_id: str, seq: int) -> None:
        """Read from a view that has come to `seq`, if it does in time: once for all runs that want it."""
        async with self._catching.setdefault(workspace_id, asyncio.Lock()):
            if not self._behind(workspace_id, seq):
                return
            try:
                await self._read(workspace_id, StreamPosition(workspace_stream(workspace_id), seq))
            except HistoryUnavailable:
                known = self._workspaces.get(workspace_id)
                if known is not None:
                    known.missed, known.missed_ms = seq, self._clock()

    async def _read(self, workspace_id: str, position: StreamPosition | None = None) -> None:
        view = await self._history.workspace(workspace_id, position, _CATCH_UP_MS)
        self._workspaces[workspace_id] = _Known(view, self._clock())

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

"""What a workspace has: its agents, teams and structures, as they are now.

Loaded from history when a workspace is first met, kept current from `agent.*`, `team.*` and `workspace.changed` facts
on the hub's tail: resolving an agent costs no read, and a message names the newest version of who is to answer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from parley_events.body import TeamSpec
from parley_events.codec import Fact
from parley_events.errors import LogError
from parley_events.facts import AgentChanged, AgentDeleted, TeamChanged, TeamDeleted, WorkspaceChanged
from parley_events.ids import agent_uuid, workspace_stream
from parley_events.positions import StreamPosition
from parley_events.reads import AgentView, TeamView
from parley_gateway import answered
from parley_gateway.errors import Behind, Missing, Unavailable, not_found
from parley_gateway.feed.hub import Hub
from parley_gateway.history import History

LIMIT = 10_000
CURRENT_S = 2.0
"""How long something that is not known here is waited for."""
DEFAULT_AGENT = "assistant"
"""Who answers in a thread that is bound to nobody, when the message names nobody."""


@dataclass(slots=True)
class Workspace:
    """A workspace as it is now. `named` finds an agent by its id or UUID, `in_role` by those or a role. `seq`: that of
    its newest fact when it was loaded."""

    id: str
    name: str
    context: str | None = None
    structures: tuple[str, ...] = ()
    seq: int = 0
    servers: tuple[str, ...] = ()
    """The names of its MCP servers."""
    agents: dict[str, AgentView] = field(default_factory=dict)
    teams: dict[str, TeamView] = field(default_factory=dict)
    _uuids: dict[str, str] = field(default_factory=dict)

    def named(self, name: str) -> AgentView | None:
        """The agent with this id or UUID."""
        return self.agents.get(self._uuids.get(name.lower(), name))

    def in_role(self, name: str) -> AgentView | None:
        """The agent with this id or UUID, else the first one (by id) that has this role."""
        found = self.named(name)
        if found is None:
            holders = sorted(agent.id for agent in self.agents.values() if name in agent.spec.roles)
            found = self.agents[holders[0]] if holders else None
        return found

    def put(self, agent: AgentView) -> None:
        """Take in a version of an agent, unless a newer one is known."""
        known = self.agents.get(agent.id)
        if known is None or known.version < agent.version:
            self.agents[agent.id] = agent
            self._uuids[agent.uuid] = agent.id

    def team_named(self, name: str) -> TeamView | None:
        """The team with this id or UUID."""
        found = self.teams.get(name)
        return found or next((team for team in self.teams.values() if team.uuid == name.lower()), None)

    def put_team(self, team: TeamView) -> None:
        """Take in a version of a team, unless a newer one is known."""
        known = self.teams.get(team.id)
        if known is None or known.version < team.version:
            self.teams[team.id] = team

    def apply(self, fact: Fact) -> None:
        """Fold one fact of the workspace's stream in."""
        body = fact.body
        if isinstance(body, AgentChanged):
            name = body.spec.agent_id
            self.put(AgentView(id=name, uuid=agent_uuid(self.id, name), version=body.agent_version, spec=body.spec))
        elif isinstance(body, AgentDeleted):
            self.agents.pop(body.agent_id, None)
        elif isinstance(body, TeamChanged):
            self.put_team(_team(self.id, body.team_version, body.spec))
        elif isinstance(body, TeamDeleted):
            self.teams.pop(body.team_id, None)
        elif isinstance(body, WorkspaceChanged):
            self.context, self.structures = body.context, body.structures
            self.servers = tuple(server.name for server in body.mcp_servers)


class Workspaces:
    """All workspaces that were met."""

    def __init__(self, hub: Hub, history: History) -> None:
        self._hub, self._history = hub, history
        self._known: OrderedDict[str, Workspace] = OrderedDict()
        self._loading: dict[str, asyncio.Future[Workspace]] = {}
        self._meanwhile: dict[str, list[Fact]] = {}
        for body in (AgentChanged, AgentDeleted, TeamChanged, TeamDeleted, WorkspaceChanged):
            hub.watch(body.type, self._changed)

    async def get(self, workspace_id: str) -> Workspace:
        """The workspace; a Problem 404, or 503 when it must be read and cannot be."""
        known = self._known.get(workspace_id)
        if known is not None:
            return known
        loading = self._loading.get(workspace_id)
        if loading is None:
            loading = self._loading[workspace_id] = asyncio.ensure_future(self._load(workspace_id))
            loading.add_done_callback(lambda _: self._loading.pop(workspace_id, None))
        return await asyncio.shield(loading)

    def seen(self, workspace_id: str) -> int | None:
        """The seq of the newest fact of the workspace that this gateway has seen; None: it has seen none."""
        known = self._known.get(workspace_id)
        newest = max(known.seq if known is not None else 0, self._hub.newest(workspace_stream(workspace_id)))
        return newest or None

    def position(self, workspace_id: str) -> str | None:
        """The position of the workspace as it is known here; None: it is not."""
        if workspace_id not in self._known:
            return None
        return str(StreamPosition(workspace_stream(workspace_id), self.seen(workspace_id) or 0))

    async def knowing(self, workspace_id: str, name: str) -> Workspace:
        """The workspace, as the log has it by now where no agent that is known here has this id, UUID or role."""
        known = await self.get(workspace_id)
        return known if known.in_role(name) is not None else await self.current(workspace_id)

    async def knowing_team(self, workspace_id: str, name: str) -> Workspace:
        """The same, for a team with this id or UUID."""
        known = await self.get(workspace_id)
        return known if known.team_named(name) is not None else await self.current(workspace_id)

    async def current(self, workspace_id: str) -> Workspace:
        """The workspace with all that the log has of it by now: for who asks for something that is not known here, with
        an id that another gateway may have answered with a moment ago. A Problem 404, or 503."""
        try:
            await self._hub.come_to(await self._hub.real_end_of(workspace_stream(workspace_id)), CURRENT_S)
        except (LogError, TimeoutError):
            raise Unavailable("the log cannot be reached right now") from None
        return await self.get(workspace_id)

    async def _load(self, workspace_id: str) -> Workspace:
        answered.apart()
        self._meanwhile[workspace_id] = []
        end = [self._hub.end_of(workspace_stream(workspace_id))]
        current = True
        try:
            try:
                view = await self._history.workspace(workspace_id, end)
            except Behind:
                # Better what there is than nothing; the next one asks again.
                current = False
                view = await self._history.workspace(workspace_id)
            agents = await self._history.agents(workspace_id)
            teams = await self._history.teams(workspace_id)
        except Missing:
            raise not_found("workspace") from None
        finally:
            facts = self._meanwhile.pop(workspace_id)
        servers = tuple(server.name for server in view.mcp_servers)
        workspace = Workspace(view.id, view.name, view.context, view.structures, view.seq, servers)
        for agent in agents.items:
            if not agent.deleted:
                workspace.put(agent)
        for team in teams.items:
            workspace.put_team(team)
        for fact in facts:
            workspace.apply(fact)
        if current:
            self._known[workspace_id] = workspace
            if len(self._known) > LIMIT:
                self._known.popitem(last=False)
        return workspace

    def _changed(self, fact: Fact) -> None:
        known = self._known.get(fact.workspace_id)
        if known is not None:
            known.apply(fact)
        if fact.workspace_id in self._meanwhile:
            self._meanwhile[fact.workspace_id].append(fact)


def _team(workspace_id: str, version: int, spec: TeamSpec) -> TeamView:
    return TeamView(id=spec.team_id, uuid=agent_uuid(workspace_id, spec.team_id), version=version, spec=spec)

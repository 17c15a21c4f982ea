"""What belongs to a workspace: its settings, keys, agents (every version), teams."""

from __future__ import annotations

from parley_events import ids
from parley_events.codec import Fact
from parley_events.facts import (
    AgentChanged,
    AgentDeleted,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    TeamChanged,
    TeamDeleted,
    WorkspaceChanged,
    WorkspaceCreated,
)
from parley_history.projections.rows import AgentRow, KeyRow, TeamRow, View, WorkspaceRow


def workspace_created(view: View, fact: Fact, body: WorkspaceCreated) -> None:
    view.workspaces.put(WorkspaceRow(workspace_id=fact.workspace_id, name=body.name))


def workspace_changed(view: View, fact: Fact, body: WorkspaceChanged) -> None:
    row = view.workspaces.change(fact.workspace_id)
    if row is not None:
        row.context, row.structures = body.context, list(body.structures)
        row.mcp_servers = [server.model_dump(mode="json") for server in body.mcp_servers]
        row.connectors = list(body.connectors)


def key_created(view: View, fact: Fact, body: KeyCreated) -> None:
    view.keys.put(
        KeyRow(
            workspace_id=fact.workspace_id,
            id=body.key_id,
            key_hash=body.key_hash,
            user_id=body.user_id,
            scopes=list(body.scopes),
            rate_limit=body.rate_limit,
            created_ms=fact.time_ms,
        )
    )


def key_rotated(view: View, fact: Fact, body: KeyRotated) -> None:
    row = view.keys.change((fact.workspace_id, body.key_id))
    if row is not None:
        row.key_hash = body.key_hash


def key_revoked(view: View, fact: Fact, body: KeyRevoked) -> None:
    row = view.keys.change((fact.workspace_id, body.key_id))
    if row is not None:
        row.revoked = True


def agent_changed(view: View, fact: Fact, body: AgentChanged) -> None:
    row = AgentRow(
        workspace_id=fact.workspace_id,
        id=body.spec.agent_id,
        version=body.agent_version,
        uuid=ids.agent_uuid(fact.workspace_id, body.spec.agent_id),
        spec=body.spec.model_dump(mode="json"),
        seq=fact.seq or 0,
    )
    view.agents[(row.workspace_id, row.id, row.version)] = row


def agent_deleted(view: View, fact: Fact, body: AgentDeleted) -> None:
    """Its versions stay, for the runs that go on; one made later is not touched."""
    for (workspace_id, agent_id, _), row in view.agents.items():
        if (workspace_id, agent_id) == (fact.workspace_id, body.agent_id):
            row.deleted = True
    view.agents_deleted[(fact.workspace_id, body.agent_id)] = fact.seq or 0


def team_changed(view: View, fact: Fact, body: TeamChanged) -> None:
    view.teams[(fact.workspace_id, body.spec.team_id)] = TeamRow(
        workspace_id=fact.workspace_id,
        id=body.spec.team_id,
        version=body.team_version,
        uuid=ids.agent_uuid(fact.workspace_id, body.spec.team_id),
        spec=body.spec.model_dump(mode="json"),
    )


def team_deleted(view: View, fact: Fact, body: TeamDeleted) -> None:
    view.teams[(fact.workspace_id, body.team_id)] = None

"""What a dispatcher knows of a workspace: its keys, agents, teams and settings, as a fold of its facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from parley_dispatcher.remembered import Remembered
from parley_events import facts as f
from parley_events.body import AgentSpec, TeamSpec


@dataclass(slots=True)
class KeyState:
    key_hash: str
    revoked: bool = False


@dataclass(slots=True)
class Versioned:
    """An agent or a team: the newest version, and the digest of the newest one that came from a file."""

    version: int
    spec: AgentSpec | TeamSpec
    digest: str | None
    deleted: bool = False


@dataclass(slots=True)
class WorkspaceState:
    """A workspace: its keys, agents, teams and settings."""

    stream: str
    seq: int = 0
    workspace_id: str = ""
    exists: bool = False
    name: str = ""
    digest: str | None = None
    keys: dict[str, KeyState] = field(default_factory=dict)
    agents: dict[str, Versioned] = field(default_factory=dict)
    teams: dict[str, Versioned] = field(default_factory=dict)
    skills: dict[tuple[str, str], str] = field(default_factory=dict)
    """(agent, slug) → the digest of the newest version that came from a file."""
    knowledge: dict[str, int] = field(default_factory=dict)
    """Its documents, and how many characters each has."""
    outcomes: dict[str, Remembered] = field(default_factory=dict)
    last_ms: int = 0
    size: int = 500


def _workspace_created(state: WorkspaceState, body: f.WorkspaceCreated) -> None:
    state.exists, state.name = True, body.name


def _workspace_changed(state: WorkspaceState, body: f.WorkspaceChanged) -> None:
    state.digest = body.digest


def _key_created(state: WorkspaceState, body: f.KeyCreated) -> None:
    state.keys[body.key_id] = KeyState(body.key_hash)


def _key_rotated(state: WorkspaceState, body: f.KeyRotated) -> None:
    state.keys[body.key_id].key_hash = body.key_hash


def _key_revoked(state: WorkspaceState, body: f.KeyRevoked) -> None:
    state.keys[body.key_id].revoked = True


def _agent_changed(state: WorkspaceState, body: f.AgentChanged) -> None:
    before = state.agents.get(body.spec.agent_id)
    digest = body.digest or (before.digest if before else None)
    state.agents[body.spec.agent_id] = Versioned(body.agent_version, body.spec, digest)


def _agent_deleted(state: WorkspaceState, body: f.AgentDeleted) -> None:
    state.agents[body.agent_id].deleted = True


def _team_changed(state: WorkspaceState, body: f.TeamChanged) -> None:
    before = state.teams.get(body.spec.team_id)
    digest = body.digest or (before.digest if before else None)
    state.teams[body.spec.team_id] = Versioned(body.team_version, body.spec, digest)


def _team_deleted(state: WorkspaceState, body: f.TeamDeleted) -> None:
    state.teams[body.team_id].deleted = True


def _skill_changed(state: WorkspaceState, body: f.SkillChanged) -> None:
    if body.digest is not None:
        state.skills[(body.agent_id, body.slug)] = body.digest


def _knowledge_added(state: WorkspaceState, body: f.KnowledgeAdded) -> None:
    state.knowledge[body.knowledge_id] = len(body.text)


def _knowledge_removed(state: WorkspaceState, body: f.KnowledgeRemoved) -> None:
    state.knowledge.pop(body.knowledge_id, None)


CHANGES: dict[type[f.FactBody], Callable[[WorkspaceState, Any], None]] = {
    f.WorkspaceCreated: _workspace_created,
    f.WorkspaceChanged: _workspace_changed,
    f.KeyCreated: _key_created,
    f.KeyRotated: _key_rotated,
    f.KeyRevoked: _key_revoked,
    f.AgentChanged: _agent_changed,
    f.AgentDeleted: _agent_deleted,
    f.TeamChanged: _team_changed,
    f.TeamDeleted: _team_deleted,
    f.SkillChanged: _skill_changed,
    f.KnowledgeAdded: _knowledge_added,
    f.KnowledgeRemoved: _knowledge_removed,
}
"""What each fact changes; the others change nothing here."""

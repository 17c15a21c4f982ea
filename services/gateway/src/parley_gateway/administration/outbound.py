"""What administrators and readers of agents are answered. Pure."""

from __future__ import annotations

from parley_events.body import Json
from parley_events.reads import AgentView, KeyView, TeamView


def key(view: KeyView) -> Json:
    return {
        "id": view.id,
        "workspace": view.workspace,
        "workspace_id": view.workspace_id,
        "user": view.user_id,
        "scopes": list(view.scopes),
        "rate_limit": view.rate_limit,
        "created_at": view.created_at,
        "revoked": view.revoked,
    }


def agent(view: AgentView) -> Json:
    spec = view.spec
    return {
        "id": view.id,
        "uuid": view.uuid,
        "name": spec.name,
        "description": spec.description,
        "roles": list(spec.roles),
        "model": spec.model,
        "system_prompt": spec.system_prompt,
        "temperature": spec.temperature,
        "tools": list(spec.tools),
        "limits": spec.limits.model_dump(),
        "version": view.version,
    }


def team(view: TeamView) -> Json:
    spec = view.spec
    return {
        "id": view.id,
        "uuid": view.uuid,
        "name": spec.name,
        "members": list(spec.members),
        "mode": spec.mode,
        "lead": spec.lead,
        "version": view.version,
    }

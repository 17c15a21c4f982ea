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


def agent(view: AgentView, whole: bool) -> Json:
    """An agent; `whole`: with what only those see who may change it, where its calls go among it."""
    spec = view.spec
    shown: Json = {
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
    return {**spec.model_dump(mode="json", exclude={"agent_id"}), **shown} if whole else shown


def team(view: TeamView, whole: bool) -> Json:
    """A team: there is nothing of it that some may not see."""
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

"""The routes of administration: `/workspaces`, `/keys`, `/agents`, `/teams`, `/rejected`."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_events.body import Json
from parley_events.clock import rfc3339
from parley_events.commands import CommandBody, CreateKey, CreateWorkspace, PutAgent, PutTeam, RevokeKey, RotateKey
from parley_events.ids import derived_uuid, is_uuid, workspace_stream
from parley_events.keys import key_hash, make_key
from parley_events.reads import AgentView, TeamView
from parley_gateway.administration import outbound, wire
from parley_gateway.administration.rejected import list_rejected, redrive, show_rejected
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.errors import forbidden, invalid, not_found, unsupported
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    body_of,
    endpoint,
    idempotency_key,
    min_position,
    query,
    query_limit,
)
from parley_gateway.send import Outcome

BASE = "/api/v1"
View = TypeVar("View", AgentView, TeamView)


async def _create_workspace(core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    _first(core, who)
    asked = await body_of(request, wire.NewWorkspace, core.settings.body_mb)
    key = idempotency_key(request)
    workspace_id = core.new_uuid() if key is None else derived_uuid("workspace", who.workspace_id, who.user_id, key)
    body = CreateWorkspace(principal=who.asker, workspace_id=workspace_id, name=asked.name)
    home = await core.workspaces.get(who.workspace_id)
    command_id = core.sender.command_id(who, "workspace.create", workspace_id, key)
    outcome = await _ask(core, who, command_id, body, asked.model_dump(), workspace_id, fresh=key is None)
    made = {"id": workspace_id, "name": asked.name}
    if outcome.pending:
        return answer(202, made)
    # The new workspace gets what the first one was given; each by a command of its own, so that a retry of a request
    # that was cut short sends what is missing, and repeats nothing.
    for agent in list(home.agents.values()):
        await _ask(
            core,
            who,
            derived_uuid("seed", command_id, "agent", agent.id),
            PutAgent(principal=who.asker, spec=agent.spec),
            agent.id,
            workspace_id,
        )
    for team in list(home.teams.values()):
        await _ask(
            core,
            who,
            derived_uuid("seed", command_id, "team", team.id),
            PutTeam(principal=who.asker, spec=team.spec),
            team.id,
            workspace_id,
        )
    return answer(201, made, REPLAYED if outcome.repeated else None)


async def _create_key(core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    asked = await body_of(request, wire.NewKey, core.settings.body_mb)
    scopes = wire.check_scopes(asked.scopes)
    workspace_id = await _workspace_id(core, who, asked.workspace)
    workspace = await core.workspaces.get(workspace_id)
    key = idempotency_key(request)
    command_id = core.sender.command_id(who, "key.create", workspace_id, key)
    secret = _secret(core, command_id, key)
    made = make_key(workspace_id, secret)
    key_id = core.new_uuid() if key is None else derived_uuid("key", command_id)
    body = CreateKey(
        principal=who.asker,
        key_id=key_id,
        key_hash=key_hash(made),
        user_id=asked.user,
        scopes=scopes,
        rate_limit=asked.rate_limit,
    )
    outcome = await _ask(core, who, command_id, body, asked.model_dump(), workspace_id)
    return answer(
        202 if outcome.pending else 201,
        {
            "id": key_id,
            "key": made,
            "workspace": workspace.name,
            "workspace_id": workspace_id,
            "user": asked.user,
            "scopes": list(scopes),
            "rate_limit": asked.rate_limit,
            "created_at": rfc3339(outcome.time_ms),
        },
        REPLAYED if outcome.repeated else None,
    )


async def _list_keys(core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    workspace_id = await _workspace_id(core, who, query(request, "workspace"))
    keys = await core.reads.settle(who, min_position(request), lambda at: core.history.keys(workspace_id, at))
    return answer(200, {"items": [outbound.key(view) for view in keys.items if not view.revoked]})


async def _rotate_key(core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    await body_of(request, wire.Nothing, core.settings.body_mb)
    workspace_id = await _workspace_id(core, who, query(request, "workspace"))
    key_id = request.path_params["key_id"]
    key = idempotency_key(request)
    command_id = core.sender.command_id(who, "key.rotate", key_id, key)
    made = make_key(workspace_id, _secret(core, command_id, key))
    body = RotateKey(principal=who.asker, key_id=_key_id(key_id), key_hash=key_hash(made))
    outcome = await _ask(core, who, command_id, body, key_id, workspace_id)
    status = 202 if outcome.pending else 200
    return answer(status, {"id": key_id, "key": made}, REPLAYED if outcome.repeated else None)


async def _revoke_key(core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    workspace_id = await _workspace_id(core, who, query(request, "workspace"))
    key_id = _key_id(request.path_params["key_id"])
    body = RevokeKey(principal=who.asker, key_id=key_id)
    outcome = await _ask(core, who, core.new_uuid(), body, key_id, workspace_id)
    return answer(202, {"id": key_id}) if outcome.pending else Response(status_code=204)


async def _agents(core: Core, request: Request, who: Principal) -> Response:
    return _listed(request, await _agents_of(core, request, who), outbound.agent)


async def _agent(core: Core, request: Request, who: Principal) -> Response:
    return answer(200, outbound.agent(_named(await _agents_of(core, request, who), request.path_params["agent_id"])))


async def _teams(core: Core, request: Request, who: Principal) -> Response:
    return _listed(request, await _teams_of(core, request, who), outbound.team)


async def _team(core: Core, request: Request, who: Principal) -> Response:
    return answer(200, outbound.team(_named(await _teams_of(core, request, who), request.path_params["team_id"])))


async def _not_yet(core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    raise unsupported("this version does not change agents and teams over HTTP yet; they are set in agents.yaml")


# ---- inside


async def _ask(
    core: Core,
    who: Principal,
    command_id: str,
    body: CommandBody,
    meaning: object,
    workspace_id: str,
    *,
    fresh: bool = False,
) -> Outcome:
    command = core.sender.command(
        who, command_id, workspace_stream(workspace_id), body, meaning, fresh=fresh, workspace_id=workspace_id
    )
    return await core.sender.ask(who, command)


def _first(core: Core, who: Principal) -> None:
    if not core.settings.workspace_id or who.workspace_id != core.settings.workspace_id:
        raise forbidden("only the first workspace's admin key makes workspaces, and keys of others")


async def _workspace_id(core: Core, who: Principal, asked: str | None) -> str:
    """The id of the workspace that a request is about: the key's own, or for the first one's admin any other."""
    if asked is None or asked == who.workspace_id:
        return who.workspace_id
    if (await core.workspaces.get(who.workspace_id)).name == asked:
        return who.workspace_id
    _first(core, who)
    if not is_uuid(asked):
        raise invalid("name another workspace by its id", "bad_workspace")
    return asked


def _secret(core: Core, command_id: str, key: str | None) -> bytes:
    """A new secret; under an idempotency key always the same one, which only this system can derive."""
    if key is None:
        return core.new_secret()
    if not core.settings.internal_token:
        raise unsupported("an Idempotency-Key on keys needs PARLEY_INTERNAL_TOKEN to be set")
    return hmac.new(core.settings.internal_token.encode(), b"key:" + command_id.encode(), hashlib.sha256).digest()


def _key_id(text: str) -> str:
    if "\x00" in text or len(text) > 200:
        raise not_found("key")
    return text


async def _agents_of(core: Core, request: Request, who: Principal) -> dict[str, AgentView]:
    """The workspace's agents as they are now, or from a view that has come to the position that was asked for."""
    position = min_position(request)
    if position is None:
        return (await core.workspaces.get(who.workspace_id)).agents
    agents = await core.reads.settle(who, position, lambda at: core.history.agents(who.workspace_id, at))
    return {agent.id: agent for agent in agents.items if not agent.deleted}


async def _teams_of(core: Core, request: Request, who: Principal) -> dict[str, TeamView]:
    """As `_agents_of`, of teams."""
    position = min_position(request)
    if position is None:
        return (await core.workspaces.get(who.workspace_id)).teams
    teams = await core.reads.settle(who, position, lambda at: core.history.teams(who.workspace_id, at))
    return {team.id: team for team in teams.items}


def _named(found: dict[str, View], name: str) -> View:
    """The one with this id or UUID; a Problem 404."""
    for view in found.values():
        if view.id == name or view.uuid == name.lower():
            return view
    raise not_found("agent or team")


def _listed(request: Request, found: dict[str, View], shape: Callable[[View], Json]) -> Response:
    """A page of things that are few, by their ids."""
    limit, cursor = query_limit(request), query(request, "cursor")
    after = None if cursor is None else _last(cursor)
    rest = [name for name in sorted(found) if after is None or name > after]
    items = [shape(found[name]) for name in rest[:limit]]
    following = _cursor(rest[limit - 1]) if len(rest) > limit else None
    return answer(200, {"items": items, "next_cursor": following, "total": len(found)})


def _cursor(name: str) -> str:
    """The opaque cursor after this id."""
    return base64.urlsafe_b64encode(b"after:" + name.encode()).decode().rstrip("=")


def _last(cursor: str) -> str:
    """The id that a cursor stands after; a Problem 400."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except ValueError:
        text = ""
    if not text.startswith("after:"):
        raise invalid("the cursor is not one that Parley gave out", "bad_cursor")
    return text.removeprefix("after:")


PATHS: dict[str, dict[str, Handler]] = {
    "/workspaces": {"POST": _create_workspace},
    "/keys": {"POST": _create_key, "GET": _list_keys},
    "/keys/{key_id}": {"DELETE": _revoke_key},
    "/keys/{key_id}/rotate": {"POST": _rotate_key},
    "/agents": {"GET": _agents, "POST": _not_yet},
    "/agents/{agent_id}": {"GET": _agent, "PATCH": _not_yet, "DELETE": _not_yet},
    "/rejected": {"GET": list_rejected},
    "/rejected/{rejected_id}": {"GET": show_rejected},
    "/rejected/{rejected_id}/redrive": {"POST": redrive},
    "/teams": {"GET": _teams, "POST": _not_yet},
    "/teams/{team_id}": {"GET": _team, "PATCH": _not_yet, "DELETE": _not_yet},
}
"""Every path below the base, with its methods."""


def routes(core: Core) -> list[Route]:
    """The routes of administration."""
    return [endpoint(core, BASE + path, methods, flat=False) for path, methods in PATHS.items()]

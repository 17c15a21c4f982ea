"""The routes of administration: workspaces and keys here, agents and teams in `agents`, what was set aside in
`rejected`, what history stands still at in `skips`."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from parley_events.body import AgentSpec, TeamSpec
from parley_events.clock import rfc3339
from parley_events.commands import CommandBody, CreateKey, CreateWorkspace, PutAgent, PutTeam, RevokeKey, RotateKey
from parley_events.facts import AgentChanged, TeamChanged
from parley_events.ids import derived_uuid, is_uuid, workspace_stream
from parley_events.keys import key_hash, make_key
from parley_gateway.administration import agents, outbound, wire
from parley_gateway.administration.rejected import list_rejected, redrive, show_rejected
from parley_gateway.administration.skips import list_skipped, list_stopped, skip
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
)
from parley_gateway.send import Outcome
from parley_gateway.workspaces import Workspace

BASE = "/api/v1"


async def _create_workspace(core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    _first(core, who)
    asked = await body_of(request, wire.NewWorkspace, core.settings.body_mb)
    key = idempotency_key(request)
    workspace_id = core.new_uuid() if key is None else derived_uuid("workspace", who.workspace_id, who.user_id, key)
    body = CreateWorkspace(principal=who.asker, workspace_id=workspace_id, name=asked.name)
    seeds = await _seeds(core, who.workspace_id)
    command_id = core.sender.command_id(who, "workspace.create", workspace_id, key)
    outcome = await _ask(core, who, command_id, body, asked.model_dump(), workspace_id, fresh=key is None)
    made = {"id": workspace_id, "name": asked.name}
    if outcome.pending:
        return answer(202, made)
    # The new workspace gets what the file gave the first one; each by a command of its own, so that a retry of a
    # request that was cut short sends what is missing, and repeats nothing.
    given: list[tuple[str, str, CommandBody]] = [
        ("agent", name, PutAgent(principal=who.asker, spec=agent)) for name, agent in seeds.agents.items()
    ]
    given += [("team", name, PutTeam(principal=who.asker, spec=team)) for name, team in seeds.teams.items()]
    for kind, name, put in given:
        await _ask(core, who, derived_uuid("seed", command_id, kind, name), put, name, workspace_id)
    return answer(201, made, REPLAYED if outcome.repeated else None)


async def _create_key(core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    asked = await body_of(request, wire.NewKey, core.settings.body_mb)
    wire.check_rate(asked.rate_limit)
    workspace_id = await _workspace_id(core, who, asked.workspace)
    workspace = await core.workspaces.get(workspace_id)
    scopes = tuple(dict.fromkeys(_by_id(workspace, scope) for scope in wire.check_scopes(asked.scopes)))
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


def _by_id(workspace: Workspace, scope: str) -> str:
    """A scope of an agent or a team by its id, also when its UUID was named: keys are asked for by ids."""
    kind, _, name = scope.partition(":")
    if kind == "agent" and (agent := workspace.named(name)) is not None:
        return f"agent:{agent.id}"
    if kind == "team":
        return next((f"team:{team.id}" for team in workspace.teams.values() if team.uuid == name.lower()), scope)
    return scope


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


@dataclass(slots=True)
class _Seeds:
    """What `agents.yaml` has put into a workspace: the newest of each that came from the file."""

    agents: dict[str, AgentSpec] = field(default_factory=dict)
    teams: dict[str, TeamSpec] = field(default_factory=dict)


async def _seeds(core: Core, workspace_id: str) -> _Seeds:
    """Read off the facts. What was made or changed over HTTP belongs to that workspace alone."""
    found = _Seeds()
    after, more = 0, True
    while more:
        facts, page = await core.history.facts(workspace_id, workspace_stream(workspace_id), after)
        for fact in facts:
            body = fact.body
            if isinstance(body, AgentChanged) and body.digest is not None:
                found.agents[body.spec.agent_id] = body.spec
            elif isinstance(body, TeamChanged) and body.digest is not None:
                found.teams[body.spec.team_id] = body.spec
            after = fact.seq or after
        more = bool(facts) and after < page.last_seq
    return found


PATHS: dict[str, dict[str, Handler]] = {
    "/workspaces": {"POST": _create_workspace},
    "/keys": {"POST": _create_key, "GET": _list_keys},
    "/keys/{key_id}": {"DELETE": _revoke_key},
    "/keys/{key_id}/rotate": {"POST": _rotate_key},
    **agents.PATHS,
    "/rejected": {"GET": list_rejected},
    "/rejected/{rejected_id}": {"GET": show_rejected},
    "/rejected/{rejected_id}/redrive": {"POST": redrive},
    "/history/stopped": {"GET": list_stopped},
    "/history/stopped/{record_id}/skip": {"POST": skip},
    "/history/skipped": {"GET": list_skipped},
}
"""Every path below the base, with its methods."""


def routes(core: Core) -> list[Route]:
    """The routes of administration."""
    return [endpoint(core, BASE + path, methods, flat=False) for path, methods in PATHS.items()]

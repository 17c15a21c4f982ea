"""The routes of agents and teams: read by any key, changed by keys with `admin`.

Both are the same in everything but their form, so one set of handlers serves them; `Kind` says what differs. A change
names the version that it was made from, and is made anew from the newer one when somebody else was faster, so that two
changes of different fields both stand. The rules are those of `agents.yaml` (`parley_events.declared`).
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from parley_events.body import Json
from parley_events.body import Principal as Asker
from parley_events.commands import CommandBody, DeleteAgent, DeleteTeam, PutAgent, PutTeam
from parley_events.declared import (
    BUILT_IN_TOOLS,
    Mistake,
    agent_mistakes,
    agent_spec,
    team_mistakes,
    team_spec,
)
from parley_events.ids import agent_uuid, derived_uuid, workspace_stream
from parley_events.reads import AgentVersions, AgentView, TeamVersions, TeamView
from parley_gateway import answered
from parley_gateway.administration import outbound, wire
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.errors import Missing, Problem, forbidden, invalid, not_found
from parley_gateway.history import History
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    body_of,
    idempotency_key,
    ill_formed,
    min_position,
    query,
    query_limit,
    query_number,
)
from parley_gateway.send import Outcome
from parley_gateway.workspaces import Workspace

BODY_MB = 1
MAX_BYTES = 128 * 1024
"""The largest declaration, in JSON."""
TRIES = 8
"""How often a change is made anew because somebody else's came first."""
OPERATORS = ("base_url", "api_key")
"""Who sets these says which of Parley's variables is sent to which address: that is for the operator of this Parley."""

View = TypeVar("View", AgentView, TeamView)
Form = TypeVar("Form", wire.NewAgent, wire.NewTeam)
Versions = AgentVersions | TeamVersions


@dataclass(frozen=True, slots=True)
class Kind(Generic[View, Form]):
    """Agents or teams. `named`: all that there are by id; `listed`: as history has them."""

    name: str
    form: type[Form]
    named: Callable[[Workspace], Mapping[str, View]]
    listed: Callable[[History, str, Sequence[str]], Awaitable[Sequence[View]]]
    versions: Callable[[History, str, str, dict[str, Any], Sequence[str]], Awaitable[Versions]]
    put: Callable[[Asker, str, Form, int], CommandBody]
    delete: Callable[[Asker, str], CommandBody]
    view: Callable[[str, str, Form, int], View]
    shown: Callable[[View, bool], Json]
    mistakes: Callable[[Form, Workspace], Iterator[Mistake]]


Either = Kind[Any, Any]


# ---- reading


async def _list(kind: Either, core: Core, request: Request, who: Principal) -> Response:
    """A page of things that are few, by their ids."""
    found = await _all(kind, core, request, who)
    limit, cursor = query_limit(request), query(request, "cursor")
    after = None if cursor is None else _last(cursor)
    rest = [name for name in sorted(found) if after is None or name > after]
    items = [kind.shown(found[name], who.admin) for name in rest[:limit]]
    following = _cursor(rest[limit - 1]) if len(rest) > limit else None
    return answer(200, {"items": items, "next_cursor": following, "total": len(found)})


async def _get(kind: Either, core: Core, request: Request, who: Principal) -> Response:
    version = query_number(request, "version", 1, 2**31 - 1)
    found = _named(kind, await _all(kind, core, request, who), _name(kind, request))
    if found is None:
        found = await _settled(kind, core, who, _name(kind, request))
    if version is not None and version != found.version:
        page = await _versions_of(kind, core, request, who, found.id, {"version": version})
        if not page.items:
            raise not_found(f"version of the {kind.name}")
        found = page.items[0]
    return answer(200, kind.shown(found, who.admin))


async def _versions(kind: Either, core: Core, request: Request, who: Principal) -> Response:
    params = {"limit": query_limit(request), "cursor": query(request, "cursor")}
    page = await _versions_of(kind, core, request, who, _name(kind, request), params)
    items = [{**kind.shown(item, who.admin), "created_at": item.created_at} for item in page.items]
    return answer(200, {"items": items, "next_cursor": page.next_cursor, "total": page.total})


async def _versions_of(
    kind: Either, core: Core, request: Request, who: Principal, name: str, params: dict[str, Any]
) -> Versions:
    """Versions as history has them. What was changed a moment ago, here or at another gateway, is waited for."""

    async def read(position: Sequence[str]) -> Versions:
        return await kind.versions(core.history, who.workspace_id, name, params, position)

    with contextlib.suppress(Missing):
        page = await core.reads.settle(who, min_position(request), read)
        if page.items:
            return page
    name = (await _settled(kind, core, who, name)).id
    return await read([core.hub.end_of(workspace_stream(who.workspace_id))])


async def _all(kind: Either, core: Core, request: Request, who: Principal) -> Mapping[str, Any]:
    """All there are as they are now, or from a view that has come to the position that was asked for."""
    position = min_position(request)
    if position is None:
        workspace = await core.workspaces.get(who.workspace_id)
        answered.read(core.workspaces.position(who.workspace_id))
        return kind.named(workspace)
    found = await core.reads.settle(who, position, lambda at: kind.listed(core.history, who.workspace_id, at))
    return {view.id: view for view in found}


def _named(kind: Either, found: Mapping[str, Any], name: str) -> Any:
    """The one with this id or UUID."""
    by_uuid = (view for view in found.values() if view.uuid == name.lower())
    return found.get(name) or next(by_uuid, None)


def _name(kind: Either, request: Request) -> str:
    """The id or UUID in the path."""
    return str(request.path_params[f"{kind.name}_id"])


async def _settled(kind: Either, core: Core, who: Principal, name: str) -> Any:
    """The one with this id or UUID, of those that the log has by now; a Problem 404."""
    found = _named(kind, kind.named(await core.workspaces.current(who.workspace_id)), name)
    if found is None:
        raise not_found(kind.name)
    return found


# ---- changing


async def _create(kind: Either, core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    asked = await body_of(request, kind.form, BODY_MB)
    _check_size(kind, asked)
    key = idempotency_key(request)
    command_id = core.sender.command_id(who, f"{kind.name}.create", who.workspace_id, key)
    name = asked.id or (core.new_uuid() if key is None else derived_uuid(kind.name, command_id))
    for field in OPERATORS:
        _operators_alone(core, who, field, getattr(asked, field, None), None)
    if kind is AGENT:
        _check(kind, asked, await core.workspaces.get(who.workspace_id))
    body = kind.put(who.asker, name, asked, 0)
    outcome = await _ask(kind, core, who, command_id, body, asked, asked.model_dump(mode="json"))
    if outcome.pending:
        return answer(202, {"id": name})
    view = kind.view(who.workspace_id, name, asked, int(outcome.receipt[f"{kind.name}_version"]))
    return answer(201, kind.shown(view, True), REPLAYED if outcome.repeated else None)


async def _change(kind: Either, core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    given = (await body_of(request, wire.Given, BODY_MB)).model_extra or {}
    fields = {name: given[name] for name in kind.form.model_fields if name in given and name != "id"}
    found = await _settled(kind, core, who, _name(kind, request))
    for _ in range(TRIES):
        before = found.spec.model_dump(mode="json")
        for field in OPERATORS:
            if field in fields:
                _operators_alone(core, who, field, fields[field], before.get(field))
        asked = _form(kind, before | {name: _merged(before.get(name), value) for name, value in fields.items()})
        _check_size(kind, asked)
        view = kind.view(who.workspace_id, found.id, asked, found.version)
        if view.spec == found.spec:
            return answer(200, kind.shown(found, True))
        _check(kind, asked, await core.workspaces.get(who.workspace_id), before)
        body = kind.put(who.asker, found.id, asked, found.version)
        try:
            outcome = await _ask(kind, core, who, core.new_uuid(), body, asked, None)
        except Problem as problem:
            if problem.code != "conflict":
                raise
            found = await _settled(kind, core, who, found.id)
            continue
        if outcome.pending:
            return answer(202, {"id": found.id})
        made = kind.view(who.workspace_id, found.id, asked, int(outcome.receipt[f"{kind.name}_version"]))
        return answer(200, kind.shown(made, True))
    raise Problem("conflict", f"the {kind.name} is changed by others all the time; try again", 409)


async def _delete(kind: Either, core: Core, request: Request, who: Principal) -> Response:
    who.to_administer()
    found = await _settled(kind, core, who, _name(kind, request))
    body = kind.delete(who.asker, found.id)
    outcome = await _ask(kind, core, who, core.new_uuid(), body, None, None)
    return answer(202, {"id": found.id}) if outcome.pending else Response(status_code=204)


async def _ask(
    kind: Either, core: Core, who: Principal, command_id: str, body: CommandBody, asked: Any, meaning: object
) -> Outcome:
    command = core.sender.command(who, command_id, workspace_stream(who.workspace_id), body, meaning)
    try:
        return await core.sender.ask(who, command)
    except Problem as problem:
        if problem.code == "unknown_agent" and asked is not None:
            # The dispatcher knows best who is there; the places are named as for every other mistake.
            workspace = await core.workspaces.current(who.workspace_id)
            raise _wrong(kind, list(kind.mistakes(asked, workspace)), problem.headers) from None
        raise


def _form(kind: Either, fields: Json) -> Any:
    """The whole declaration as it is to be; a Problem 400."""
    try:
        return kind.form.model_validate(fields)
    except ValidationError as error:
        raise ill_formed(error, f"the {kind.name} is not what it should be") from None


def _check_size(kind: Either, asked: Any) -> None:
    """A Problem 413 when it is more than a gateway should hold."""
    if len(asked.model_dump_json().encode()) > MAX_BYTES:
        message = f"what is said of the {kind.name} may have at most {MAX_BYTES} bytes"
        raise Problem("too_large", message, 413, {"limit": MAX_BYTES})


def _check(kind: Either, asked: Any, workspace: Workspace, before: Json | None = None) -> None:
    """A Problem 400 that names every mistake. What was one `before` a change already (a tool of an MCP server that this
    workspace does not have, say) does not keep others from being changed."""
    mistakes = list(kind.mistakes(asked, workspace))
    if mistakes and before is not None:
        with contextlib.suppress(ValidationError):
            known = list(kind.mistakes(kind.form.model_validate(before), workspace))
            mistakes = [mistake for mistake in mistakes if mistake not in known]
    if mistakes:
        raise _wrong(kind, mistakes)


def _merged(before: object, value: object) -> object:
    """A field as a change leaves it: of a mapping (the limits) only what is named is replaced."""
    return {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value


def _wrong(kind: Either, mistakes: Sequence[Mistake], headers: Mapping[str, str] | None = None) -> Problem:
    fields = [{"field": ".".join(str(part) for part in place), "problem": why} for place, why in mistakes[:20]]
    message = f"the {kind.name} is not what it should be"
    return Problem("invalid_request", message, 400, {"fields": fields}, headers)


def _operators_alone(core: Core, who: Principal, field: str, value: object, before: object) -> None:
    """A Problem 403 when somebody other than the operator would set the field to another value."""
    if value != before and who.workspace_id != core.settings.workspace_id:
        raise forbidden(f"{field} is set by the first workspace's admin alone: it says which secret goes where")


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


# ---- the two kinds


async def _agents(history: History, workspace_id: str, position: Sequence[str]) -> Sequence[AgentView]:
    return [view for view in (await history.agents(workspace_id, position)).items if not view.deleted]


async def _teams(history: History, workspace_id: str, position: Sequence[str]) -> Sequence[TeamView]:
    return (await history.teams(workspace_id, position)).items


def _agent_view(workspace_id: str, name: str, asked: wire.NewAgent, version: int) -> AgentView:
    return AgentView(id=name, uuid=agent_uuid(workspace_id, name), version=version, spec=agent_spec(name, asked))


def _team_view(workspace_id: str, name: str, asked: wire.NewTeam, version: int) -> TeamView:
    return TeamView(id=name, uuid=agent_uuid(workspace_id, name), version=version, spec=team_spec(name, asked))


AGENT: Kind[AgentView, wire.NewAgent] = Kind(
    name="agent",
    form=wire.NewAgent,
    named=lambda workspace: workspace.agents,
    listed=_agents,
    versions=History.agent_versions,
    put=lambda asker, name, asked, seen: PutAgent(principal=asker, spec=agent_spec(name, asked), expected=seen),
    delete=lambda asker, name: DeleteAgent(principal=asker, agent_id=name),
    view=_agent_view,
    shown=outbound.agent,
    mistakes=lambda asked, workspace: agent_mistakes(asked, BUILT_IN_TOOLS, workspace.servers),
)
TEAM: Kind[TeamView, wire.NewTeam] = Kind(
    name="team",
    form=wire.NewTeam,
    named=lambda workspace: workspace.teams,
    listed=_teams,
    versions=History.team_versions,
    put=lambda asker, name, asked, seen: PutTeam(principal=asker, spec=team_spec(name, asked), expected=seen),
    delete=lambda asker, name: DeleteTeam(principal=asker, team_id=name),
    view=_team_view,
    shown=outbound.team,
    mistakes=lambda asked, workspace: team_mistakes(asked, workspace.agents),
)
KINDS: tuple[Either, ...] = (AGENT, TEAM)

PATHS: dict[str, dict[str, Handler]] = {
    path: {method: partial(handler, kind) for method, handler in methods.items()}
    for kind in KINDS
    for path, methods in {
        f"/{kind.name}s": {"GET": _list, "POST": _create},
        f"/{kind.name}s/{{{kind.name}_id}}": {"GET": _get, "PATCH": _change, "DELETE": _delete},
        f"/{kind.name}s/{{{kind.name}_id}}/versions": {"GET": _versions},
    }.items()
}
"""Every path of agents and teams below the base, with its methods."""

"""Who is asking: from a bearer key to a Principal, and what it may do.

A key is loaded from history when it is first met, and kept current from `key.*` facts on the hub's tail: revocation
acts within a second, and known keys work while PostgreSQL is away. What a fact says always wins over what a slower
read brings (`_gone`, `_rotated`).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from parley_events.body import Principal as Asker
from parley_events.codec import Fact
from parley_events.facts import KeyCreated, KeyRevoked, KeyRotated
from parley_events.keys import key_hash, key_workspace
from parley_events.rates import Rate, parse_rate
from parley_gateway.errors import Missing, Problem, forbidden
from parley_gateway.feed.hub import Hub
from parley_gateway.history import History

log = logging.getLogger(__name__)

KNOWN_LIMIT = 100_000
UNKNOWN_LIMIT = 10_000
UNKNOWN_S = 1.0


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a key. `rate`: how often it may ask, where the key says so."""

    workspace_id: str
    user_id: str
    key_id: str
    scopes: frozenset[str]
    rate: Rate | None = None

    @property
    def admin(self) -> bool:
        return "admin" in self.scopes

    @property
    def asker(self) -> Asker:
        """As it stands on a command."""
        return Asker(user_id=self.user_id, admin=self.admin)

    @property
    def agents(self) -> frozenset[str]:
        """The agents that it may chat with and read of by name, beside what other scopes allow."""
        return frozenset(scope[6:] for scope in self.scopes if scope.startswith("agent:"))

    @property
    def teams(self) -> frozenset[str]:
        """The same, of teams."""
        return frozenset(scope[5:] for scope in self.scopes if scope.startswith("team:"))

    def may_chat(self, agent_id: str | None, team_id: str | None = None) -> bool:
        """Whether it may talk to an agent (None: to any), or to a team."""
        return bool(self.scopes & {"*", "chat"}) or self._with(agent_id, team_id)

    def may_read(self, agent_id: str | None, team_id: str | None = None) -> bool:
        """Whether it may read what belongs to an agent (None: to any), or to a team."""
        return bool(self.scopes & {"*", "read"}) or self._with(agent_id, team_id)

    def _with(self, agent_id: str | None, team_id: str | None) -> bool:
        """Whether it is for this very agent or team. What belongs to a team is no agent's, though they speak in it."""
        if team_id is not None:
            return f"team:{team_id}" in self.scopes
        return agent_id is not None and f"agent:{agent_id}" in self.scopes

    def sees(self, user_id: str | None, agent_id: str | None, team_id: str | None) -> bool:
        """Whether a thread of that user (None: a shared one), with an agent or a team, may be shown to it."""
        return (user_id in (None, self.user_id) or self.admin) and self.may_read(agent_id, team_id)

    @property
    def may_approve(self) -> bool:
        """Whether it may answer approvals of the workspace (those that name users: only where its own is named)."""
        return bool(self.scopes & {"*", "approve"})

    def to_approve(self) -> None:
        """A Problem 403 unless it may."""
        if not self.may_approve:
            raise forbidden("this needs a key with the scope approve")

    def to_chat(self, agent_id: str | None, team_id: str | None = None) -> None:
        """A Problem 403 unless it may."""
        if not self.may_chat(agent_id, team_id):
            raise forbidden("this key may not chat" + _named(" with", agent_id, team_id))

    def to_read(self, agent_id: str | None, team_id: str | None = None) -> None:
        """A Problem 403 unless it may."""
        if not self.may_read(agent_id, team_id):
            raise forbidden("this key may not read" + _named(" what belongs to", agent_id, team_id))

    def to_edit(self) -> None:
        """A Problem 403 unless it may change what the workspace's agents know."""
        if not self.scopes & {"*", "admin"}:
            raise forbidden("this needs a key with the scope * or admin")

    def to_override(self) -> None:
        """A Problem 403 unless it may replace an agent's prompt."""
        if not self.scopes & {"*", "prompt:override"}:
            raise forbidden("system_prompt needs a key with the scope prompt:override")

    def to_administer(self) -> None:
        """A Problem 403 unless it may."""
        if not self.admin:
            raise forbidden("this needs a key with the scope admin")


def _named(words: str, agent_id: str | None, team_id: str | None) -> str:
    if team_id is not None:
        return f"{words} the team {team_id}"
    return f"{words} the agent {agent_id}" if agent_id else ""


class Auth:
    """All keys that were met."""

    def __init__(self, hub: Hub, history: History, anonymous_key: str, now_s: Callable[[], float]) -> None:
        self._hub, self._history, self._anonymous_key, self._now_s = hub, history, anonymous_key, now_s
        self._known: OrderedDict[str, Principal] = OrderedDict()
        self._hashes: dict[str, str] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._dead: OrderedDict[str, None] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._rotated: OrderedDict[str, str] = OrderedDict()
        hub.watch(KeyCreated.type, self._created)
        hub.watch(KeyRotated.type, self._replaced)
        hub.watch(KeyRevoked.type, self._revoked)

    async def principal(self, authorization: str | None) -> Principal:
        """Who holds the key in an `Authorization` header; a Problem 401, or 503 when history must be asked and is
        away."""
        if authorization is None:
            if not self._anonymous_key:
                raise unauthorized("this needs an API key: Authorization: Bearer <key>")
            key = self._anonymous_key
        else:
            scheme, _, key = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise unauthorized("the Authorization header is not of the form: Bearer <key>")
        key = key.strip()
        hashed = key_hash(key)
        known = self._known.get(hashed)
        if known is not None:
            self._known.move_to_end(hashed)
            return known
        workspace_id = key_workspace(key)
        if (
            workspace_id is None
            or hashed in self._dead
            or self._unknown.get(hashed, -UNKNOWN_S) + UNKNOWN_S > self._now_s()
        ):
            raise unauthorized("the API key is not valid")
        return await self._load(workspace_id, hashed)

    async def _load(self, workspace_id: str, hashed: str) -> Principal:
        try:
            view = await self._history.key(workspace_id, hashed)
        except Missing:
            view = None
        known = self._known.get(hashed)
        if known is not None:
            return known
        if view is None or view.revoked or view.id in self._gone or self._rotated.get(view.id, hashed) != hashed:
            _remember(self._unknown, hashed, self._now_s(), UNKNOWN_LIMIT)
            raise unauthorized("the API key is not valid")
        rate = _rate(view.id, view.rate_limit)
        principal = Principal(view.workspace_id, view.user_id, view.id, frozenset(view.scopes), rate)
        self._learn(hashed, principal)
        return principal

    def _learn(self, hashed: str, principal: Principal) -> None:
        self._unknown.pop(hashed, None)
        self._known[hashed] = principal
        self._hashes[principal.key_id] = hashed
        while len(self._known) > KNOWN_LIMIT:
            _, oldest = self._known.popitem(last=False)
            self._hashes.pop(oldest.key_id, None)

    def _forget(self, key_id: str) -> Principal | None:
        hashed = self._hashes.pop(key_id, None)
        if hashed is None:
            return None
        _remember(self._dead, hashed, None, KNOWN_LIMIT)
        return self._known.pop(hashed, None)

    def _created(self, fact: Fact) -> None:
        if isinstance(fact.body, KeyCreated) and fact.body.key_id not in self._gone:
            body = fact.body
            hashed = self._rotated.get(body.key_id, body.key_hash)
            rate = _rate(body.key_id, body.rate_limit)
            self._learn(hashed, Principal(fact.workspace_id, body.user_id, body.key_id, frozenset(body.scopes), rate))

    def _replaced(self, fact: Fact) -> None:
        if isinstance(fact.body, KeyRotated):
            _remember(self._rotated, fact.body.key_id, fact.body.key_hash, KNOWN_LIMIT)
            before = self._forget(fact.body.key_id)
            # Whoever has an open stream showed the old secret: a key is rotated because others may have that one.
            self._hub.close_owned_by(fact.body.key_id)
            if before is not None:
                self._learn(fact.body.key_hash, replace(before))
            self._unknown.pop(fact.body.key_hash, None)

    def _revoked(self, fact: Fact) -> None:
        if isinstance(fact.body, KeyRevoked):
            _remember(self._gone, fact.body.key_id, None, KNOWN_LIMIT)
            self._forget(fact.body.key_id)
            self._hub.close_owned_by(fact.body.key_id)


def _rate(key_id: str, text: str | None) -> Rate | None:
    try:
        return None if text is None else parse_rate(text)
    except ValueError as error:
        log.error("the rate limit of the key %s is left out: %s", key_id, error)
        return None


def unauthorized(message: str) -> Problem:
    """No key, or not a good one."""
    return Problem("unauthorized", message, 401, headers={"WWW-Authenticate": "Bearer"})


def _remember(where: OrderedDict[str, Any], name: str, value: Any, limit: int) -> None:
    where[name] = value
    if len(where) > limit:
        where.popitem(last=False)

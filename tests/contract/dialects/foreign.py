"""Every way to name a thing that is somebody else's: in a path, in a query, in a body, under an own agent, over MCP.

`WAYS` are requests with the names of things in braces, `STRANGERS` who tries them. Both are data, so that the same are
tried on a memory log and on the real parts; `leak` says what is wrong with an answer.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from tests.contract.dialects.test_rights import CHAT, DEEDS, GRANTS, OF_A_TEAM, ORG

AI = "/api/v3/organizations/{own_organisation}/ai"
NODE = {"structure_id": "{workspace}", "role_id": "scripted"}
PERSONAL = {
    *("thread_id", "run_id", "run_of_team", "session_id", "conversation_id", "message_id", "tool_call_id"),
    *("sha256", "user"),
}
"""Names of what belongs to a user; everything else the users of a workspace have together."""
FOREIGN = (
    "thread_id",
    "run_id",
    "run_of_team",
    "message_id",
    "tool_call_id",
    "approval_id",
    "knowledge_id",
    "key_id",
    "hidden",
    "hidden_uuid",
)
"""The names that must stand in no answer that a stranger gets."""


LISTS = {
    *(f"/api/v1/{path}" for path in ("agents", "teams", "keys", "knowledge", "rejected")),
    *(f"{CHAT}/{path}" for path in ("threads", "approvals")),
}
"""Where everybody gets what is their own: nothing foreign may stand in it."""


class Way(NamedTuple):
    """A request that names things of somebody else. `own`: it may be answered, with what is the asker's own."""

    method: str
    path: str
    params: dict[str, str]
    body: dict[str, Any] | None = None
    own: bool = False

    @property
    def names(self) -> set[str]:
        """The names in it."""
        return set(re.findall(r"{(\w+)}", f"{self.path} {self.params} {self.body}"))

    def filled(self, places: dict[str, str]) -> Way:
        """The request itself, with what the names stand for."""
        path, params, body = (_filled(part, places) for part in (self.path, self.params, self.body))
        return self._replace(path=path, params=params, body=body)


def _filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(one, places) for name, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, places) for one in value]
    return re.sub(r"{(\w+)}", lambda m: places[m[1]], value) if isinstance(value, str) else value


def _every_route() -> list[Way]:
    """Each route as it stands, with the names of what is another's; of agents and teams, those that are hidden."""
    ways = []
    for deed in DEEDS:
        path, _, query = deed.path.partition("?")
        if path.startswith(("/api/v1/agents", "/api/v1/teams")):
            path = path.replace("{agent_id}", "{hidden}")
        if deed.path in OF_A_TEAM and "{run_id}" in path:
            path = path.replace("{run_id}", "{run_of_team}").replace("{team_id}", "pair")
        node = NODE if path.startswith(ORG) else {}
        params = {**(node if deed.query else {}), **dict(part.split("=") for part in query.split("&") if part)}
        body = None if deed.body is None else {**deed.body, **node}
        way = Way(deed.method, path.replace("{agent_id}", "scripted"), params, body, path in LISTS)
        if way.names or (way.own and way.method == "GET"):
            ways.append(way)
    return ways


def _tool(name: str, **arguments: Any) -> Way:
    params = {"name": name, "arguments": arguments}
    return Way("POST", "/mcp", {}, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, True)


def _of_tool_chat(agent: str) -> list[Way]:
    path = f"/api/agents/{agent}/chat"
    result = {"role": "tool", "tool_call_id": "{tool_call_id}", "content": "21"}
    return [
        Way("GET", path, {"conversation_id": "{thread_id}"}),
        Way("GET", path, {"conversation_id": "{thread_id}", "include": "tools"}),
        Way("GET", path, {"before": str(2**53), "include": "tools"}, None, True),
        Way("GET", path, {"after": "0", "include": "tools"}, None, True),
        Way("POST", path, {}, {"message": "hi", "conversation_id": "{thread_id}"}),
        Way("POST", path, {}, result),
        Way("POST", path, {}, {**result, "conversation_id": "{thread_id}"}),
        Way("POST", path, {}, {**result, "conversation_id": "{own_thread}"}),
        Way("DELETE", path, {"conversation_id": "{thread_id}"}),
        Way("GET", f"{path}/runs/{{run_id}}/events", {}),
    ]


def _of_team_chat(below: str, agent: str) -> list[Way]:
    path = f"{below}/agents/{agent}"
    named: dict[str, Any] = {"message": "hi", "conversation_id": "{conversation_id}"}
    return [
        *(Way("POST", f"{path}/{chat}", {}, named) for chat in ("chat", "chat/stream")),
        Way("GET", f"{path}/history", {"conversation_id": "{conversation_id}"}),
        Way("GET", f"{path}/history", {"conversation_id": "{own_thread}", "before": "{message_id}"}),
        Way("GET", f"{path}/history", {"before": "{message_id}"}),
        Way("GET", f"{path}/inbox", {}, None, True),
        Way("GET", f"{path}/conversations", {}, None, True),
        Way("POST", f"{path}/mark-read", {}, {"conversation_id": "{conversation_id}"}),
        Way("POST", f"{path}/mark-read", {}, {"up_to": "{message_id}"}),
        *(Way(method, f"{path}/conversations/{{conversation_id}}", {}, {"title": "t"}) for method in ("PUT", "DELETE")),
        *(Way("GET", f"{path}/runs/{{run_id}}{events}", {}) for events in ("", "/events")),
    ]


def _of_teams() -> list[Way]:
    named: dict[str, Any] = {"message": "hi", "conversation_id": "{conversation_id}"}
    ways = [Way("POST", f"/teams/pair/{chat}", {}, named) for chat in ("chat", "chat/stream")]
    return [*ways, *(Way("GET", f"/teams/pair/runs/{{{run}}}", {}) for run in ("run_id", "run_of_team"))]


def _of_org_agents(agent: str) -> list[Way]:
    return [
        Way("POST", f"{AI}/agents/{agent}/chat", {}, {"message": "hi", "sessionId": "{session_id}"}),
        Way("GET", f"{AI}/agents/{agent}/sessions/{{session_id}}", {}),
        Way("GET", f"{AI}/agents/{agent}/chat/runs/{{run_id}}/events", {}),
    ]


V1 = "/api/v1"
OF_ADMINISTRATORS = [
    Way("POST", f"{CHAT}/threads", {}, {"agent_id": "{hidden}"}),
    Way("POST", f"{CHAT}/threads", {}, {"agent_id": "{hidden_uuid}"}),
    Way("GET", f"{CHAT}/threads", {"agent_id": "{hidden_uuid}"}, None, True),
    Way("GET", f"{V1}/agents/{{hidden_uuid}}", {}),
    Way("GET", f"{V1}/agents/{{hidden_uuid}}/versions", {}),
    Way("GET", f"{V1}/agents/{{hidden}}", {"version": "1"}),
    Way("PATCH", f"{V1}/agents/{{hidden_uuid}}", {}, {"name": "mine"}),
    Way("GET", f"{V1}/teams/{{team_uuid}}", {}),
    Way("PATCH", f"{V1}/teams/{{team_uuid}}", {}, {"name": "mine"}),
    Way("POST", f"{V1}/teams", {}, {"name": "T", "members": ["{hidden}"]}),
    Way("POST", f"{V1}/teams", {}, {"name": "T", "members": ["assistant"], "lead": "{hidden}"}),
    Way("PATCH", f"{V1}/teams/pair", {}, {"members": ["{hidden}"]}),
    Way("POST", f"{V1}/keys", {}, {"workspace": "{workspace}", "user": "ann", "scopes": ["*", "admin"]}),
    Way("GET", f"{V1}/keys", {"workspace": "{workspace}"}),
    Way("POST", f"{V1}/keys/{{key_id}}/rotate", {"workspace": "{workspace}"}),
    Way("DELETE", f"{V1}/keys/{{key_id}}", {"workspace": "{workspace}"}),
    Way("POST", f"{V1}/workspaces", {}, {"name": "mine"}),
    Way("POST", f"{V1}/rejected/0-7/redrive", {}, {"workspace_id": "{workspace}", "stream": "{thread_id}"}),
]
"""Agents, teams, keys and workspaces that are named in a body or a query, or by another id than the usual one."""

ELSEWHERE = [
    Way("GET", f"{CHAT}/threads", {"user_id": "{user}"}, None, True),
    Way("GET", f"{CHAT}/threads", {"min_position": "{thread_id}@1"}, None, True),
    Way("GET", f"{CHAT}/threads/{{thread_id}}", {"as_of": "1"}),
    Way("GET", f"{CHAT}/threads/{{thread_id}}/messages", {"as_of": "2100-01-01T00:00:00Z"}),
    Way("GET", f"{CHAT}/runs/{{run_id}}", {"as_of": "2"}),
    *(Way("GET", f"{CHAT}/events", {"threads": some}) for some in ("{thread_id}", "{own_thread},{thread_id}")),
    Way("POST", f"{CHAT}/threads/{{thread_id}}/messages", {}, {"content": "hi", "agent_id": "assistant"}),
    Way("GET", f"{CHAT}/threads/{{own_thread}}/files/secret.txt", {"sha256": "{sha256}"}),
    Way("GET", f"{CHAT}/threads/{{thread_id}}/files/secret.txt", {"sha256": "{sha256}"}),
    Way("POST", f"{CHAT}/runs/cancel", {}, {"thread_id": "{thread_id}"}, True),
    Way("POST", f"{CHAT}/runs/cancel", {}, {"user_id": "{user}"}, True),
    *(way for agent in ("scripted", "assistant") for way in (*_of_tool_chat(agent), *_of_org_agents(agent))),
    *(way for below in ("", "/api") for agent in ("scripted", "assistant") for way in _of_team_chat(below, agent)),
    *_of_teams(),
    Way("GET", f"{AI}/sessions/{{session_id}}", {"userId": "{user}"}),
    Way("GET", f"{AI}/chat/executions/{{run_id}}", {}),
    Way("GET", "/ai/chat/executions/{run_id}", {"userId": "{user}"}),
    _tool("get_chat_thread", thread_id="{thread_id}"),
    _tool("send_chat_message", thread_id="{thread_id}", content="hi", wait_s=0),
    _tool("list_chat_threads", user_id="{user}"),
]
"""Names that stand where the table of routes has none."""

TOGETHER = [
    Way("POST", f"{CHAT}/threads/{{own_thread}}/messages", {}, {"content": "hi", "knowledge_ids": ["{knowledge_id}"]}),
    Way("POST", f"{CHAT}/threads/{{own_thread}}/messages", {}, {"content": "hi", "agent_id": "{hidden_uuid}"}),
    Way("GET", f"{CHAT}/approvals", {"thread_id": "{thread_id}"}, None, True),
    Way("GET", f"{CHAT}/approvals", {"agent_id": "{hidden_uuid}"}),
    Way("POST", f"{CHAT}/runs/cancel", {}, {"agent_id": "{hidden_uuid}"}),
    Way("GET", f"{ORG}/log", {"structure_id": "{workspace}"}),
    Way("POST", f"{AI}/agents/{{hidden_uuid}}/chat", {}, {"message": "hi"}),
    Way("POST", "/api/agents/{hidden_uuid}/chat", {}, {"message": "hi"}),
    _tool("create_chat_thread", agent_id="{hidden_uuid}"),
    _tool("do", structure_id="{workspace}", role_id="scripted", message="hi", wait_s=0),
]
"""The same, with what the users of a workspace have together."""

WAYS = [*_every_route(), *OF_ADMINISTRATORS, *ELSEWHERE, *TOGETHER]
PRIVATE = [*(way for way in _every_route() if way.names & PERSONAL), *ELSEWHERE]
"""Those about what belongs to a user."""


class Stranger(NamedTuple):
    """Somebody to whom the things do not belong, with the scopes of the keys that are tried. `foreign`: of another
    workspace."""

    who: str
    user: str
    foreign: bool
    scopes: list[tuple[str, ...]]
    ways: list[Way]


STRANGERS = [
    Stranger("another workspace", "eve", True, list(GRANTS), WAYS),
    Stranger("a user of the same name in another workspace", "{user}", True, list(GRANTS), WAYS),
    Stranger("another user", "bob", False, [scopes for scopes in GRANTS if "admin" not in scopes], PRIVATE),
    Stranger("the same user, for another agent", "{user}", False, [("agent:assistant",), ("team:elsewhere",)], PRIVATE),
    Stranger("the same user, for nothing", "{user}", False, [("prompt:override",)], PRIVATE),
]


def leak(way: Way, status: int, body: bytes, places: dict[str, str]) -> str | None:
    """What is wrong with an answer to a stranger; None: nothing."""
    if status >= 500 or status == 401:
        return "it is no refusal"
    if b"secret" in body:
        return "it says a secret"
    refused = status >= 400 or b'"isError":true' in body
    if not refused and not way.own:
        return "it was done"
    told = [name for name in FOREIGN if places[name].encode() in body]
    return None if refused or not told else f"it names {told}"

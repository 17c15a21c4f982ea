"""Which page in docs/ shows each endpoint with a request: `pages.outputs` runs a page and holds it to this."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from parley_gateway.administration.routes import PATHS as ADMINISTRATION
from parley_gateway.dialects.org_agents.routes import PATHS as ORG_AGENTS
from parley_gateway.dialects.org_chat.routes import PATHS as ORG_CHAT
from parley_gateway.dialects.team_chat.routes import PATHS as TEAM_CHAT
from parley_gateway.dialects.team_chat.routes import everywhere
from parley_gateway.dialects.tool_chat.routes import PATHS as TOOL_CHAT

THREADS_PAGE = "threads.md"
CHAT = "/api/v1/chat"
_ROW = re.compile(r"^\| `([A-Z]+) (\S+)` \| [^|]+ \| (?:this one|\[(\S+)\]\(\S+\)) \|$", re.MULTILINE)


class Endpoint(NamedTuple):
    """A route, and the statuses with which a page may show it refused; none: it must be shown at work."""

    method: str
    path: str
    refused: tuple[int, ...] = ()


REFUSED = {
    # What is needed for these is an accident.
    f"{CHAT}/runs/{{run_id}}/tools/{{tool_call_id}}/settle": (409,),
    "/api/v1/rejected/{rejected_id}": (404,),
    "/api/v1/history/stopped/{record_id}/skip": (404,),
    "/api/v1/rejected/{rejected_id}/redrive": (404,),
}


def _endpoint(method: str, path: str) -> Endpoint:
    return Endpoint(method, path, REFUSED.get(path, ()))


def _every(base: str, paths: Mapping[str, Iterable[str]]) -> list[Endpoint]:
    return [_endpoint(method, base + path) for path, methods in paths.items() for method in methods]


def _of_threads() -> dict[str, list[Endpoint]]:
    """Those of `threads`, which has several pages: by the table on its own."""
    found: dict[str, list[Endpoint]] = {}
    for method, path, page in _ROW.findall((Path(__file__).parents[2] / "docs" / THREADS_PAGE).read_text()):
        whole = path if path.startswith(("/api/", "/mcp")) else CHAT + path
        found.setdefault(page or THREADS_PAGE, []).append(_endpoint(method, whole))
    return found


SHOWN: dict[str, list[Endpoint]] = {
    **_of_threads(),
    "org-chat.md": _every("/api/org", ORG_CHAT),
    "team-chat.md": _every("", TEAM_CHAT),
    "tool-chat.md": _every("", TOOL_CHAT),
    "org-agents.md": _every("", ORG_AGENTS),
    "administration.md": _every("/api/v1", ADMINISTRATION),
}
"""The endpoints of each page."""


def shown() -> set[tuple[str, str]]:
    """Method and path of every endpoint that some page shows; those of `team_chat` are below `/api`, too."""
    found = {(one.method, one.path) for endpoints in SHOWN.values() for one in endpoints}
    return found | {(method, path) for path, methods in everywhere().items() for method in methods}

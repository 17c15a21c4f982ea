"""The tool server of the suite, with a ledger of its own of what it really did: `python -m tests.faults.ledger_server
<port file> <ledger file>`. On the official MCP SDK, over Streamable HTTP.

One line of JSON per call that arrived (`evidence.Execution`), written before it is answered. `pay` does it again each
time; `book` and `reserve` know a key that they have had; `reserved` says whether a `reserve` took place; `look` does
nothing. The argument `then` says what becomes of the answer: `ok`, `late` (after `ms`), `hang` (never), `error` (an
error, though it was done), `500` (the HTTP request fails, though it was done).
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server

KEY = "parley/effect-key"
EFFECTS = {"pay": "unsafe", "book": "idempotent", "reserve": "checkable", "look": "read_only"}
_ANY = {
    "type": "object",
    "properties": {
        "note": {"type": "string"},
        "then": {"enum": ["ok", "late", "hang", "error", "500"]},
        "ms": {"type": "integer", "minimum": 0, "maximum": 60_000},
    },
}

TOOLS = [
    types.Tool(name="pay", description="Pays, each time.", input_schema=_ANY),
    types.Tool(
        name="book",
        description="Books, once per key.",
        input_schema=_ANY,
        annotations=types.ToolAnnotations(idempotent_hint=True),
    ),
    types.Tool(name="reserve", description="Reserves.", input_schema=_ANY),
    types.Tool(
        name="reserved",
        description="Says whether a call of `reserve` took place.",
        input_schema=_ANY,
        annotations=types.ToolAnnotations(read_only_hint=True),
    ),
    types.Tool(
        name="look",
        description="Looks.",
        input_schema=_ANY,
        annotations=types.ToolAnnotations(read_only_hint=True),
    ),
]


class Ledger:
    """What was done, in the order in which it was."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._done: set[str] = set()

    def enter(self, tool: str, key: str, arguments: dict[str, Any]) -> None:
        """A call arrived, and has its effect now (unless its tool knows the key)."""
        applied = EFFECTS[tool] in ("unsafe", "read_only") or key not in self._done
        self._done.add(key)
        line = {
            "effect_key": key,
            "tool": tool,
            "arguments": arguments,
            "effect": EFFECTS[tool],
            "wall_ms": time.time_ns() // 1_000_000,
            "applied": applied,
            "answered": arguments.get("then", "ok") in ("ok", "late", "error"),
        }
        self._file.write(json.dumps(line) + "\n")

    def has(self, key: str) -> bool:
        return key in self._done


def make(ledger: Ledger) -> Server[Any]:
    """The server."""

    async def listed(
        ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=TOOLS)

    async def called(ctx: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        arguments = dict(params.arguments or {})
        key = str((ctx.meta or {}).get(KEY, ""))
        if params.name == "reserved":
            found = {"happened": True, "result": "reserve: done"} if ledger.has(key) else {"happened": False}
            return types.CallToolResult(content=[types.TextContent(text=json.dumps(found))], structured_content=found)
        ledger.enter(params.name, key, arguments)
        match arguments.get("then", "ok"):
            case "hang":
                await asyncio.sleep(3600)
            case "late":
                await asyncio.sleep(int(arguments.get("ms", 500)) / 1000)
            case "error":
                return types.CallToolResult(content=[types.TextContent(text="no, but it was done")], is_error=True)
        return types.CallToolResult(content=[types.TextContent(text=f"{params.name}: done")])

    return Server("ledger", version="1", on_list_tools=listed, on_call_tool=called)


def failing(inner: Any) -> Any:
    """The application, which answers 500 to a call that asks for it, once it was carried out."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await inner(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        given = False

        async def again() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        if not _asks_for_500(body):
            await inner(scope, again, send)
            return

        async def nowhere(message: Any) -> None:
            return None

        await inner(scope, again, nowhere)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"broken"})

    return app


def _asks_for_500(body: bytes) -> bool:
    try:
        said = json.loads(body)
        return bool(said["method"] == "tools/call" and said["params"]["arguments"].get("then") == "500")
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def main(port_file: Path, ledger: Path) -> None:
    """Serve until killed; the port is put into the file once it listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = failing(make(Ledger(ledger)).streamable_http_app())
    port_file.write_text(str(listener.getsockname()[1]))
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

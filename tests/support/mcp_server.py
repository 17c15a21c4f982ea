"""A real MCP server for tests, on the official SDK: `python mcp_server.py stdio`, or `… http <file>` (its port is put
there). It writes what it really did to the file LEDGER: one JSON object per line, with what came in `_meta`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.stdio import stdio_server

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
ANYTHING = {"type": "object"}
AMOUNT = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
SUM = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
READ_ONLY = types.ToolAnnotations(read_only_hint=True)
IDEMPOTENT = types.ToolAnnotations(idempotent_hint=True)

TOOLS = {
    tool.name: tool
    for tool in (
        types.Tool(name="pay", description="Pays.", input_schema=AMOUNT),
        types.Tool(name="look", description="Looks.", input_schema=ANYTHING, annotations=READ_ONLY),
        types.Tool(name="set", description="Sets.", input_schema=ANYTHING, annotations=IDEMPOTENT),
        types.Tool(name="hang", description="Waits for ever.", input_schema=ANYTHING),
        types.Tool(name="hang_looking", description="Too.", input_schema=ANYTHING, annotations=READ_ONLY),
        types.Tool(name="die", description="Ends the server.", input_schema=ANYTHING),
        types.Tool(name="die_once", description="The first time.", input_schema=ANYTHING, annotations=IDEMPOTENT),
        types.Tool(name="grow", description="Adds the tool `grown`.", input_schema=ANYTHING),
        types.Tool(name="picture", description="Draws.", input_schema=ANYTHING, annotations=READ_ONLY),
        types.Tool(name="fail", description="Fails.", input_schema=ANYTHING),
        types.Tool(name="sum", description="Adds.", input_schema=ANYTHING, output_schema=SUM),
        types.Tool(name="wrong_sum", description="Lies.", input_schema=ANYTHING, output_schema=SUM),
        types.Tool(name="book", description="Books, and never says so.", input_schema=ANYTHING),
        types.Tool(name="booked", description="Tells.", input_schema=ANYTHING, annotations=READ_ONLY),
        types.Tool(name="secret", description="Tells its secret.", input_schema=ANYTHING),
    )
}


def note(tool: str, **more: Any) -> None:
    """Write down what was done."""
    with Path(os.environ["LEDGER"]).open("a") as ledger:
        ledger.write(json.dumps({"tool": tool, "pid": os.getpid(), **more}) + "\n")


def done(tool: str) -> int:
    """How often it was done, over all processes."""
    ledger = Path(os.environ["LEDGER"])
    return sum(json.loads(line)["tool"] == tool for line in ledger.read_text().splitlines()) if ledger.exists() else 0


def was_done(tool: str, effect_key: object) -> bool:
    lines = Path(os.environ["LEDGER"]).read_text().splitlines()
    return any(
        entry["tool"] == tool and entry.get("meta", {}).get("parley/effect-key") == effect_key
        for entry in map(json.loads, lines)
    )


def text(said: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=said)])


async def listed(ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    """In pages of five."""
    start = int(params.cursor) if params is not None and params.cursor else 0
    tools = list(TOOLS.values())
    more = str(start + 5) if start + 5 < len(tools) else None
    return types.ListToolsResult(tools=tools[start : start + 5], next_cursor=more)


async def called(ctx: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
    """Do it, and write it down first."""
    meta = {key: value for key, value in (ctx.meta or {}).items() if key.startswith("parley/")}
    again = done(params.name) > 0
    trace = (ctx.meta or {}).get("traceparent")
    note(params.name, arguments=params.arguments, meta=meta, **({"trace": trace} if trace else {}))
    print(f"stderr of {params.name}", file=sys.stderr, flush=True)
    match params.name:
        case "booked":
            happened = was_done("book", meta["parley/effect-key"])
            return types.CallToolResult(content=[], structured_content={"happened": happened, "result": "seat 7"})
        case "hang" | "hang_looking" | "book":
            try:
                await asyncio.sleep(3600)
            except BaseException:
                note("cancelled")
                raise
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "die_once" if not again:
            os.kill(os.getpid(), signal.SIGKILL)
        case "grow":
            TOOLS["grown"] = types.Tool(name="grown", description="New.", input_schema=ANYTHING)
            await ctx.session.send_tool_list_changed()
        case "picture":
            data = base64.b64encode(PNG).decode()
            uri = "file:///data/..%2F..%2Fetc/../.pass wd.bin"
            return types.CallToolResult(
                content=[
                    types.TextContent(text="Here it is:"),
                    types.ImageContent(data=data, mime_type="image/png"),
                    types.EmbeddedResource(resource=types.BlobResourceContents(uri=uri, blob="AAEC")),
                    types.EmbeddedResource(resource=types.TextResourceContents(uri="mem://note", text="a note")),
                    types.ImageContent(data="not base64", mime_type="image/png"),
                ]
            )
        case "fail":
            return types.CallToolResult(content=[types.TextContent(text="no money")], is_error=True)
        case "sum":
            return types.CallToolResult(content=[], structured_content={"sum": 3})
        case "wrong_sum":
            return types.CallToolResult(content=[], structured_content={"sum": "three"})
        case "secret":
            return text(f"the secret is {os.environ.get('SECRET')}")
    return text(f"{params.name}: {json.dumps(params.arguments)}")


def make() -> Server[Any]:
    return Server("ledger", version="1", on_list_tools=listed, on_call_tool=called)


async def stdio() -> None:
    server = make()
    options = server.create_initialization_options(NotificationOptions(tools_changed=True))
    async with stdio_server() as (read, write):
        await server.run(read, write, options)


def http(port_file: Path) -> None:
    import uvicorn

    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    asked = os.environ.get("TOKEN")
    inner = make().streamable_http_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and asked and headers.get(b"authorization", b"").decode() != asked:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
            return
        await inner(scope, receive, send)

    port_file.write_text(str(listener.getsockname()[1]))
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        asyncio.run(stdio())
    else:
        http(Path(sys.argv[2]))

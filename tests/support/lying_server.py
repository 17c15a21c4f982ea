"""An MCP server over stdio that says what no server may: `python lying_server.py <lie>`. Written by hand, because the
SDK would not send it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

OBJECT = {"type": "object"}
LISTS: dict[str, Any] = {
    "schema is a text": [{"name": "a", "inputSchema": "x"}],
    "no list": {"tools": "none"},
    "the same page for ever": [{"name": "a", "inputSchema": OBJECT}],
    "bad tools": [
        {"name": "good", "description": "x" * 1_000_000, "inputSchema": OBJECT},
        {"name": "invalid", "inputSchema": {"type": "object", "properties": {"a": {"type": "strange"}}}},
        {"name": "same.name", "inputSchema": OBJECT},
        {"name": "same/name", "inputSchema": OBJECT},
        {"name": "n" * 200, "inputSchema": OBJECT},
        {"name": "", "inputSchema": OBJECT},
        {"name": "huge", "inputSchema": {"type": "object", "description": "x" * 100_000}},
        {"name": "property", "inputSchema": {"type": "object", "properties": {"a b": {}}}},
        {"name": "either", "inputSchema": {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}},
    ],
}


def answer(lie: str, method: str, params: Any) -> Any:
    """The result, or None for no answer."""
    if lie == "only the newer protocol":  # which is no lie
        found = newer(method)
        if found is not None:
            return found
    match method:
        case "initialize":
            version = "1999-01-01" if lie == "version" else params["protocolVersion"]
            info = {"name": "liar", "version": "0"}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "tools/list":
            if lie == "silent":
                return None
            tools = LISTS.get(lie, [{"name": "a", "inputSchema": OBJECT}])
            if isinstance(tools, dict):
                return tools
            more = {"nextCursor": "again"} if lie == "the same page for ever" else {}
            return {"tools": tools, **more}
        case "tools/call":
            if lie == "no content":
                return {"content": "nothing"}
            if lie == "an answer without end":
                return {"content": [{"type": "text", "text": "x" * 2_000_000}]}
            if lie == "strange content":
                return {"content": [{"type": "hologram", "data": 1}]}
            return {"content": [{"type": "text", "text": "yes"}]}
    return {}


NEWER = "2026-07-28"


def newer(method: str) -> Any:
    """What a server says that knows no handshake any more."""
    if method == "initialize":
        error = {"code": -32022, "message": "no", "data": {"supported": [NEWER], "requested": "older"}}
        return {"error": error}
    if method == "server/discover":
        return {"supportedVersions": [NEWER], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}
    if method == "tools/list":
        return {"tools": [{"name": "a", "inputSchema": OBJECT}], "ttlMs": 0, "cacheScope": "private"}
    return None


def main(lie: str) -> None:
    if lie == "garbage":
        print("this is no JSON", flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(lie, message["method"], message.get("params"))
        if result is not None:
            said = result if "error" in result else {"result": {"resultType": "complete", **result}}
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

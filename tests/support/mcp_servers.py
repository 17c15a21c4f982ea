"""The MCP servers of `mcp_server` and `lying_server`, declared and started for a test; and what they really did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from parley_events.body import McpServer, McpTool

SERVER = Path(__file__).with_name("mcp_server.py")
LIAR = Path(__file__).with_name("lying_server.py")
START_S = 20.0


class Ledger:
    """What a server did, as it wrote it down itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self, tool: str | None = None) -> list[dict[str, Any]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [entry for entry in found if tool in (None, entry["tool"])]


def over_stdio(ledger: Ledger, name: str = "ledger", **more: Any) -> McpServer:
    """The server as a command. `tools`: declarations, as effects (`checkable:<check>` with its check)."""
    env = {"LEDGER": str(ledger.path), **more.pop("env", {})}
    said = {tool: effect.partition(":") for tool, effect in more.pop("tools", {}).items()}
    tools = {tool: McpTool(effect=effect, check=check or None) for tool, (effect, _, check) in said.items()}
    command = (sys.executable, str(SERVER), "stdio")
    return McpServer(name=name, command=command, env=env, tools=tools, **more)


def liar(lie: str) -> McpServer:
    return McpServer(name="liar", command=(sys.executable, str(LIAR), lie), timeout_s=2)


class HttpServer:
    """The server over Streamable HTTP, as a process that can be killed and started again on its port."""

    def __init__(self, folder: Path, ledger: Ledger, token: str | None = None) -> None:
        self._port_file = folder / "mcp-port"
        self._env = {**os.environ, "LEDGER": str(ledger.path), **({"TOKEN": token} if token else {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        self._port_file.unlink(missing_ok=True)
        env = {**self._env, "PORT": str(self.port)}
        self._process = subprocess.Popen([sys.executable, str(SERVER), "http", str(self._port_file)], env=env)
        until = time.monotonic() + START_S
        while not self._port_file.exists() or not self._port_file.read_text():
            assert self._process.poll() is None and time.monotonic() < until, "the MCP server did not start"
            time.sleep(0.02)
        self.port = int(self._port_file.read_text())

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def over_http(folder: Path, ledger: Ledger, token: str | None = None) -> Iterator[HttpServer]:
    server = HttpServer(folder, ledger, token)
    server.start()
    try:
        yield server
    finally:
        server.kill()

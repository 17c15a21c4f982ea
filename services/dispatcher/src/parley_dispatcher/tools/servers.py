"""The MCP servers that are in use: one connection per workspace and server, opened at the first use and kept.

A server is never waited for long: what it does not offer within `start_s` is left out of a model's turn, while the
attempt goes on behind it; after a failure it is tried again, with growing pauses. A server that ended is started anew
for the next call that needs it; one that nobody has needed for `idle_s` is let go. `mcp` speaks to a server, `remote`
understands what it says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from parley_dispatcher.errors import ServerAway, ToolDoubt, ToolError
from parley_dispatcher.tools.base import Call, Result, Tool, Verdict
from parley_dispatcher.tools.mcp import Answer, Connection, Target
from parley_dispatcher.tools.remote import EFFECT_KEY, Known, Passed, keep, known_tools, names, uses, verdict_of
from parley_events.body import McpServer

_log = logging.getLogger(__name__)

_OPEN_S = 60.0
"""How long a server may take to start, with nobody waiting for it any more."""
_LIST_S = 300.0
"""The age at which a list of tools is asked for anew: not every server tells of its changes."""
_PING_S = 2.0
_RETRY_S, _MOST_RETRY_S = 1.0, 60.0
_LEAST_SECRET, _LEAST_WORD = 4, 8
"""Shorter values, and words of values, are no secrets, and replacing them would make texts unreadable."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A server of a workspace. `suspect`: a call was not answered in time. `busy`: calls under way. `gone`: its
    declaration was replaced by another."""

    declared: McpServer
    connection: Connection | None = None
    tools: list[Known] = field(default_factory=list)
    listed: bool = False
    listed_at: float = 0.0
    opening: asyncio.Task[None] | None = None
    opened_at: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    why: str = ""
    used_at: float = 0.0
    busy: int = 0
    suspect: bool = False
    gone: bool = False

    @property
    def live(self) -> bool:
        return self.connection is not None and not self.connection.ended

    def fresh(self, now: float) -> bool:
        """Whether it is there, and its tools are those that were asked for last."""
        connection = self.connection
        if connection is None or connection.ended or connection.changed or self.suspect:
            return False
        return self.listed and now - self.listed_at < _LIST_S


class Servers:
    """Gives agents the tools of the servers that they may use. `value_of` looks up what `env:NAME` stands for."""

    def __init__(
        self, value_of: Callable[[str], str | None], *, start_s: float, idle_s: float, commands_allowed: bool
    ) -> None:
        self._value_of, self._start_s, self._idle_s = value_of, start_s, idle_s
        self._commands_allowed = commands_allowed
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Begin to let go of what nobody uses."""
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self) -> None:
        """Close every connection; what was started here ends."""
        self._closed = True
        tasks = [entry.opening for entry in self._entries.values() if entry.opening is not None]
        tasks += [self._sweeper] if self._sweeper is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for entry in self._entries.values():
            self._let_go(entry)
        await asyncio.gather(*self._closing)

    async def tools(
        self,
        workspace_id: str,
        declared: Iterable[McpServer],
        connectors: Iterable[str],
        patterns: Iterable[str],
        *,
        called: Iterable[str] | None = None,
    ) -> dict[str, Tool]:
        """The tools that the patterns name, and all of the connectors', by the names that models know them by.

        For a model's turn only those of servers that are there. With `called` (names of tools that a model has asked
        for) only their servers are looked at, and what a server offered last counts while it is away.
        """
        patterns, connectors = tuple(patterns), frozenset(connectors)
        wanted = [server for server in declared if server.name in connectors or uses(patterns, server.name)]
        if called is not None:
            asked = {name.partition("__")[0] for name in called}
            wanted = [server for server in wanted if server.name in asked]
        entries = [self._entry(workspace_id, server) for server in wanted]
        unknown = [entry for entry in entries if called is None or not entry.listed]
        if unknown:
            await asyncio.gather(*(self._ready(entry) for entry in unknown))
        found: dict[str, Tool] = {}
        for entry in entries:
            if called is not None or entry.live:
                all_of_it = entry.declared.name in connectors
                for known in entry.tools:
                    if all_of_it or names(patterns, entry.declared.name, known.offer.name):
                        found[known.name] = self._tool(entry, known)
        return found

    # ---- connections

    def _entry(self, workspace_id: str, declared: McpServer) -> _Entry:
        entry = self._entries.get((workspace_id, declared.name))
        if entry is None or entry.declared != declared:
            if entry is not None:
                entry.gone = True
                self._let_go_of_gone(entry)
            entry = self._entries[workspace_id, declared.name] = _Entry(declared)
        entry.used_at = self._now()
        return entry

    async def _ready(self, entry: _Entry) -> None:
        """Until the server is there and its tools are known, at most `start_s` after the attempt began."""
        now = self._now()
        if entry.fresh(now):
            return
        if entry.opening is None:
            if now < entry.retry_at or entry.gone or self._closed:
                return
            entry.opened_at = now
            entry.opening = asyncio.get_running_loop().create_task(self._open(entry))
        left = entry.opened_at + self._start_s - now
        if left > 0:
            # Not cancelled with whoever waits: others may wait for it too.
            await asyncio.wait({entry.opening}, timeout=left)

    async def _open(self, entry: _Entry) -> None:
        """Connect where there is no connection, and ask for the list of tools."""
        name = entry.declared.name
        try:
            if entry.suspect and entry.busy == 0 and entry.connection is not None:
                if not await entry.connection.alive(_PING_S):
                    _log.warning("the MCP server %s hangs: it is started anew", name)
                    self._let_go(entry)
                entry.suspect = False
            if not entry.live:
                self._let_go(entry)
                connection = Connection(self._target(entry.declared))
                await connection.open(_OPEN_S)
                entry.connection = connection
            assert entry.connection is not None
            offers = await entry.connection.offers(max(self._start_s, _PING_S))
            # On a thread: checking hundreds of schemas takes as long as it takes.
            entry.tools, refused = await asyncio.to_thread(known_tools, entry.declared, offers)
            for line in refused[:50]:
                _log.warning("the MCP server %s: %s; it is left out", name, line)
            entry.listed, entry.listed_at, entry.failures, entry.why = True, self._now(), 0, ""
        except ServerAway as error:
            self._failed(entry, str(error))
        except Exception as error:  # what a server says must not end more than itself
            self._failed(entry, f"it broke the connection's code ({type(error).__name__})")
        finally:
            entry.opening = None
            self._let_go_of_gone(entry)

    def _failed(self, entry: _Entry, why: str) -> None:
        entry.failures += 1
        entry.why = why
        entry.retry_at = self._now() + min(_RETRY_S * 2 ** min(entry.failures - 1, 10), _MOST_RETRY_S)
        _log.warning("the MCP server %s is away, its tools are left out: %s", entry.declared.name, why)
        if not entry.busy:
            self._let_go(entry)

    def _target(self, declared: McpServer) -> Target:
        """The server with every `env:NAME` looked up. Raises ServerAway, which names what is missing, never a value."""
        if declared.command and not self._commands_allowed:
            raise ServerAway("it is a command, and this dispatcher starts none (PARLEY_MCP_COMMANDS)")
        secrets: list[str] = []

        def looked_up(place: str, value: str) -> str:
            if not value.startswith("env:"):
                return value
            found = self._value_of(value[4:])
            if found is None:
                raise ServerAway(f"{place} wants the variable {value[4:]}, which is not set")
            # Also its words: of `Bearer abc…` a server may show the second alone.
            secrets.extend(word for word in found.split() if len(word) >= _LEAST_WORD)
            secrets.extend([found] if len(found) >= _LEAST_SECRET else [])
            return found

        headers = {name: looked_up(f"headers.{name}", value) for name, value in declared.headers.items()}
        env = {name: looked_up(f"env.{name}", value) for name, value in declared.env.items()}
        # The longest first: one may be a part of another.
        hidden = tuple(sorted(secrets, key=len, reverse=True))
        return Target(declared.name, declared.url, headers, declared.command, declared.cwd, env, hidden)

    def _let_go(self, entry: _Entry) -> None:
        connection, entry.connection = entry.connection, None
        if connection is not None:
            task = asyncio.get_running_loop().create_task(connection.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _let_go_of_gone(self, entry: _Entry) -> None:
        if entry.gone and not entry.busy and entry.opening is None:
            self._let_go(entry)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self._idle_s / 2, 30.0))
            for entry in self._entries.values():
                if not entry.busy and entry.opening is None and self._now() - entry.used_at > self._idle_s:
                    self._let_go(entry)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # ---- calls

    def _tool(self, entry: _Entry, known: Known) -> Tool:
        return Tool(
            known.name,
            known.description,
            Passed,
            partial(self._call, entry, known),
            known.effect,
            known.input_schema,
            # Its own limits are within: two attempts, each with a start before it.
            2 * (entry.declared.timeout_s + self._start_s + _PING_S),
            None if known.check is None else partial(self._check, entry, known),
            f"{entry.declared.name}/{known.offer.name}",
        )

    async def _call(self, entry: _Entry, known: Known, call: Call, arguments: Passed) -> Result:
        """Call the tool. What cannot have reached the server is tried once more; so is, after a broken connection, what
        only reads. Everything else is doubt."""
        answer, hide = await self._ask(entry, known.offer.name, call, arguments, known.effect == "read_only")
        return await keep(call.objects, call.workspace_id, known, call.effect_key, answer, hide)

    async def _check(self, entry: _Entry, known: Known, call: Call, arguments: Passed) -> Verdict:
        """Ask the tool that tells whether a call took place; it gets what the call was given, with its effect key."""
        assert known.check is not None
        answer, hide = await self._ask(entry, known.check, call, arguments, True)
        return verdict_of(answer, hide)

    async def _ask(
        self, entry: _Entry, name: str, call: Call, arguments: Passed, reads: bool
    ) -> tuple[Answer, Callable[[str], str]]:
        """The server's answer, and what hides its secrets in texts."""
        server = entry.declared
        tries = 2
        while True:
            tries -= 1
            connection = await self._connected(entry)
            entry.busy += 1
            try:
                answer = await connection.call(
                    name, arguments.model_extra or {}, {EFFECT_KEY: call.effect_key}, server.timeout_s
                )
            except ServerAway as error:
                entry.why = str(error)
                if entry.connection is connection:
                    # Over HTTP a session may be gone while its connection looks whole.
                    self._let_go(entry)
                if not tries:
                    raise _unreached(entry) from None
                continue
            except ToolDoubt as doubt:
                entry.suspect = entry.suspect or doubt.timed_out
                if not reads:
                    raise
                if doubt.timed_out or not tries:
                    raise ToolError(f"The server {server.name} gave no answer: {doubt}.") from None
                continue
            finally:
                entry.busy -= 1
                entry.used_at = self._now()
                self._let_go_of_gone(entry)
            return answer, connection.target.hide

    async def _connected(self, entry: _Entry) -> Connection:
        """A connection that is open. Raises ToolError: nothing was sent then."""
        if not entry.live or entry.suspect:
            await self._ready(entry)
        if entry.connection is None or not entry.live:
            raise _unreached(entry)
        return entry.connection


def _unreached(entry: _Entry) -> ToolError:
    why = f" ({entry.why})" if entry.why else ""
    return ToolError(f"The server {entry.declared.name} cannot be reached: nothing was done{why}.")

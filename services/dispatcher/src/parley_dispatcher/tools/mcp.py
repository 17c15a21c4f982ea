"""One connection to an MCP server, over stdio or Streamable HTTP. The only module that imports the `mcp` SDK.

`servers` keeps the connections, `remote` makes tools of what a server offers. Here is what every call needs to know of
a failure: whether the request can have reached the server (`ToolDoubt`) or cannot (`ServerAway`).

The handshake is the one that all servers know; one that knows only the newer protocol, without sessions, is asked in
that one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.session import ClientSession
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from parley_dispatcher.errors import ServerAway, ToolDoubt, ToolError
from parley_dispatcher.tools.mcp_http import BROKEN, MARK, MAX_ANSWER_BYTES, UNSENT, client_of
from parley_dispatcher.tools.mcp_stdio import Program
from parley_events.body import Json

_log = logging.getLogger(__name__)
# The SDK logs what servers say, word for word; what matters of it is logged here, without that.
logging.getLogger("mcp").setLevel(logging.CRITICAL + 1)

MAX_PAGES, MAX_TOOLS = 20, 200
_CLOSE_S = 8.0
_LINE_CHARS = 500


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect, with every value looked up. `secrets` are replaced wherever a text is shown or logged."""

    name: str
    url: str | None
    headers: Mapping[str, str]
    command: tuple[str, ...]
    cwd: str | None
    env: Mapping[str, str]
    secrets: tuple[str, ...]

    def hide(self, text: str) -> str:
        """The text without what must not be seen."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def clean(self, text: str) -> str:
        """A short line of the text, for a log or an error."""
        return " ".join(self.hide(text).split())[:_LINE_CHARS]


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as the server describes it; nothing of it is checked yet."""

    name: str
    description: str
    input_schema: Json
    output_schema: Json | None
    effect: Literal["read_only", "idempotent", "unsafe"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an answer: a text, or a file (`data`), with the name that the server gave it, if any."""

    text: str = ""
    data: bytes | None = None
    content_type: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool answered. `structured` is JSON, or None."""

    parts: tuple[Part, ...]
    structured: Any
    is_error: bool


class Connection:
    """A connection that is open until it is closed or the server ends it; `ended` then, and `why` when it failed."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.why = ""
        self.changed = False
        """Whether the server said that its list of tools is another now."""
        self._session: ClientSession | None = None
        self._ready, self._leave = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        return self._leave.is_set() or self._task is None or self._task.done()

    async def open(self, limit_s: float) -> None:
        """Connect. Raises ServerAway, and leaves nothing behind then."""
        self._task = asyncio.get_running_loop().create_task(self._live())
        ready = asyncio.ensure_future(self._ready.wait())
        try:
            await asyncio.wait({self._task, ready}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
            if not self._ready.is_set():
                await self.close()
        if not self._ready.is_set():
            raise ServerAway(self.why or f"it did not answer within {limit_s:g} s")

    async def close(self) -> None:
        """Close it; a server that was started here is ended, by force if it does not go."""
        self._leave.set()
        if self._task is not None:
            if not self._ready.is_set():
                self._task.cancel()  # it waits for the server's first words, not for the end
            await asyncio.wait({self._task}, timeout=_CLOSE_S)
            self._task.cancel()

    async def _live(self) -> None:
        """The whole life of the connection, in one task: what the SDK opens, it wants closed by the same."""
        try:
            async with AsyncExitStack() as stack:
                read, write = await self._streams(stack)
                pump = _Pump(read, write)
                pump.at_end = self._leave.set
                info = types.Implementation(name="parley", version="1")
                session = ClientSession(dispatcher=pump, message_handler=self._told, client_info=info)
                await stack.enter_async_context(session)
                try:
                    await session.initialize()
                except MCPError as error:
                    if error.code != types.UNSUPPORTED_PROTOCOL_VERSION:
                        raise
                    await session.discover()
                self._session = session
                self._ready.set()
                await self._leave.wait()
        except Exception as error:  # whatever goes wrong in there, the connection is gone
            self.why = self.target.clean(_reason(error))
        finally:
            self._leave.set()

    async def _streams(self, stack: AsyncExitStack) -> tuple[Any, Any]:
        target = self.target
        if target.url is not None:
            client = client_of(target.headers)
            await stack.enter_async_context(client)
            streams = streamable_http_client(target.url, http_client=client, max_sse_event_size=MAX_ANSWER_BYTES)
            return await stack.enter_async_context(streams)
        program = await Program.start(
            target.command,
            {**get_default_environment(), **target.env},
            target.cwd,
            MAX_ANSWER_BYTES,
            lambda line: _log.info("%s says: %s", target.name, target.clean(line)),
        )
        stack.push_async_callback(program.stop)
        said, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, asked = anyio.create_memory_object_stream[SessionMessage](0)
        for stream in (said, read, write, asked):
            stack.callback(stream.close)
        group = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(group.cancel_scope.cancel)
        group.start_soon(_hear, program, said)
        group.start_soon(_tell, program, asked, said)
        return read, write

    async def _told(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.changed = True

    def _open_session(self) -> ClientSession:
        if self._session is None or self.ended:
            raise ServerAway(self.why or "it ended the connection")
        return self._session

    async def _ended_within(self, limit_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._leave.wait()

    async def alive(self, limit_s: float) -> bool:
        """Whether the server answers at all."""
        try:
            async with asyncio.timeout(limit_s):
                await self._open_session().send_ping()
        except MCPError as error:
            return error.code not in _NO_ANSWER
        except (ServerAway, TimeoutError, ValidationError):
            return False
        return True

    async def offers(self, limit_s: float) -> list[Offer]:
        """Every tool, page after page. Raises ServerAway when there is no list that can be read."""
        self.changed = False
        session = self._open_session()
        found: list[Offer] = []
        cursor: str | None = None
        try:
            async with asyncio.timeout(limit_s):
                for _ in range(MAX_PAGES):
                    wanted = types.PaginatedRequestParams(cursor=cursor) if cursor else None
                    page = await session.list_tools(params=wanted)
                    found.extend(_offer(tool) for tool in page.tools)
                    if page.next_cursor is None or page.next_cursor == cursor or len(found) > MAX_TOOLS:
                        break
                    cursor = page.next_cursor
        except MCPError as error:
            if error.code == types.METHOD_NOT_FOUND:
                return []  # it has no tools
            raise ServerAway(self.target.clean(f"it gave no list of tools: {error.message}")) from None
        except ValidationError as error:
            raise ServerAway(f"its list of tools is not valid: {_first(error)}") from None
        except TimeoutError:
            raise ServerAway(f"it gave no list of tools within {limit_s:g} s") from None
        if len(found) > MAX_TOOLS:
            _log.warning("%s has more than %d tools: the rest is left out", self.target.name, MAX_TOOLS)
        return found[:MAX_TOOLS]

    async def call(self, name: str, arguments: Json, meta: Json, limit_s: float) -> Answer:
        """Call a tool. Raises ToolError (the server refused, or its answer cannot be read), ServerAway (nothing was
        sent) or ToolDoubt (it was, and nobody knows what came of it). Cancelled: the server is told."""
        session = self._open_session()
        # Not `session.call_tool`: a result that is not what `outputSchema` says would be lost to its caller.
        params = types.CallToolRequestParams.model_validate({"name": name, "arguments": arguments, "_meta": meta})
        request = types.CallToolRequest(params=params)
        try:
            request.model_dump_json()
        except ValueError:
            raise ToolError("The arguments cannot be sent: they hold half a character (a lone surrogate).") from None
        try:
            # The SDK's own limit begins once the request is written; a server that does not read never gets there.
            async with asyncio.timeout(limit_s + 1.0):
                result = await session.send_request(request, types.CallToolResult, request_read_timeout_seconds=limit_s)
        except MCPError as error:
            if error.code == UNSENT and error.data == MARK:
                raise ServerAway(self.target.clean(error.message)) from None
            if error.code == types.REQUEST_TIMEOUT:
                raise ToolDoubt(f"it did not answer within {limit_s:g} s", timed_out=True) from None
            if error.code in _NO_ANSWER:
                if error.code == types.CONNECTION_CLOSED:
                    # Calls learn of the end a moment before the connection does; the next one must not run into it.
                    await self._ended_within(0.2)
                raise ToolDoubt("the connection broke before it answered") from None
            raise ToolError(self.target.clean(error.message) or f"error {error.code}") from None
        except TimeoutError:
            raise ToolDoubt(f"it did not answer within {limit_s:g} s", timed_out=True) from None
        except ValidationError as error:
            raise ToolError(f"The tool was called, but its answer is not valid: {_first(error)}.") from None
        return Answer(tuple(_part(block) for block in result.content), result.structured_content, bool(result.is_error))


_NO_ANSWER = frozenset({types.CONNECTION_CLOSED, types.REQUEST_TIMEOUT, types.PARSE_ERROR, BROKEN, UNSENT})
"""Codes after which nobody knows what the server did. A server may say some of them itself: then it is doubt, too."""


class _Pump(JSONRPCDispatcher[Any]):
    """The SDK's loop over a connection; tells when it ends, so that nothing is sent into a closed one."""

    at_end: Callable[[], None]

    async def run(self, *args: Any, **named: Any) -> None:
        try:
            await super().run(*args, **named)
        finally:
            self.at_end()


async def _hear(program: Program, said: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
    """What the program writes, to the SDK; lines that are no messages are skipped."""
    async with said:
        while (line := await program.line()) is not None:
            with suppress(ValidationError):
                message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                try:
                    await said.send(SessionMessage(message))
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return


async def _tell(
    program: Program,
    asked: MemoryObjectReceiveStream[SessionMessage],
    said: MemoryObjectSendStream[SessionMessage | Exception],
) -> None:
    """What the SDK asks, to the program. When that cannot be written, the connection is at its end."""
    async for message in asked:
        line = message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        try:
            await program.write(line)
        except OSError:
            await said.aclose()
            return


def _offer(tool: types.Tool) -> Offer:
    hints = tool.annotations
    effect: Literal["read_only", "idempotent", "unsafe"] = "unsafe"
    if hints is not None and hints.read_only_hint:
        effect = "read_only"
    elif hints is not None and hints.idempotent_hint:
        effect = "idempotent"
    return Offer(tool.name, tool.description or tool.title or "", tool.input_schema, tool.output_schema, effect)


def _part(block: types.ContentBlock) -> Part:
    match block:
        case types.TextContent():
            return Part(block.text)
        case types.ImageContent() | types.AudioContent():
            return _file(block.data, block.mime_type, "")
        case types.ResourceLink():
            return Part(f"[{block.name}: {block.uri}]")
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return Part(f"[{resource.uri}]\n{resource.text}")
        case types.EmbeddedResource(resource=types.BlobResourceContents() as resource):
            return _file(resource.blob, resource.mime_type or "", str(resource.uri).rpartition("/")[2])
    return Part(f"[{type(block).__name__}: of a kind that is not understood]")


def _file(text: str, content_type: str, name: str) -> Part:
    try:
        return Part("", base64.b64decode(text, validate=True), content_type, name)
    except (binascii.Error, ValueError):
        return Part("[a file that is not valid base64]")


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, ValidationError):
        return f"its answer is not valid: {_first(error)}"
    if isinstance(error, MCPError) and error.code == types.CONNECTION_CLOSED:
        return "it ended while it was starting"
    return str(error) or type(error).__name__


def _first(error: ValidationError) -> str:
    """The first problem, without what the server wrote."""
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc'])[:100]}: {problem['msg'][:200]}"

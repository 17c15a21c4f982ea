"""Reading for a client: what its key may see, after its own writes, and never 404 for what another gateway answered.

Above it: the dialects. Below it: the typed client `history`, and the hub, which knows how far the log is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from parley_events.errors import LogError, Undecodable
from parley_events.ids import is_uuid, thread_of, workspace_stream
from parley_events.positions import parse_positions
from parley_events.reads import (
    ApprovalPage,
    ApprovalView,
    DocumentPage,
    DocumentView,
    FilePage,
    FileView,
    Inbox,
    MessageList,
    MessagePage,
    MessageView,
    NoteList,
    NumberedPage,
    OpenRunPage,
    RunView,
    ThreadPage,
    ThreadView,
    UnreadPage,
)
from parley_gateway.auth import Principal
from parley_gateway.errors import Behind, Missing, Problem, Unavailable, invalid, not_found
from parley_gateway.feed.hub import Hub
from parley_gateway.history import History
from parley_gateway.send import Sender
from parley_gateway.undecided import Undecided

Answer = TypeVar("Answer")

_AT_ONCE = 10
"""How many threads are asked about at the same time."""

_APPROVAL_ID = re.compile(r"[0-9a-f-]{36}\.p[1-9][0-9]{0,14}")
_RUN_ID = re.compile(r"[0-9a-f-]{36}\.r[0-9a-f]{1,40}")


class Reads:
    """See the module. Every method takes the client's `min_position`, and raises Problems for it to be told."""

    def __init__(self, history: History, hub: Hub, sender: Sender, undecided: Undecided) -> None:
        self._history, self._hub, self._sender, self._undecided = history, hub, sender, undecided

    async def thread(
        self, principal: Principal, thread_id: str, min_position: str | None = None, what: str = "thread"
    ) -> ThreadView:
        """A thread that the key may see and read; Problem 404 or 403. `what`: how the client calls it."""
        view = await self.visible(principal, thread_id, min_position, what)
        principal.to_read(view.agent_id, view.team_id)
        return view

    async def visible(
        self, principal: Principal, thread_id: str, min_position: str | None = None, what: str = "thread"
    ) -> ThreadView:
        """A thread that is the key's user's, or shared, whatever the key may do in it; Problem 404."""
        if not is_uuid(thread_id):
            raise not_found(what)
        view = await self._one(
            principal,
            thread_id,
            min_position,
            lambda position: self._history.thread(principal.workspace_id, thread_id, position),
            what,
        )
        if view.user_id is not None and view.user_id != principal.user_id and not principal.admin:
            raise not_found(what)
        return view

    async def followed(self, principal: Principal, thread_ids: Sequence[str], min_position: str | None) -> None:
        """A Problem 404 (or 403) unless the key may see and read all these threads, deleted ones among them: whoever
        follows them is to be told of that. It names those that are not there."""
        gone: list[str] = []
        for begin in range(0, len(thread_ids), _AT_ONCE):
            some = thread_ids[begin : begin + _AT_ONCE]
            found = await asyncio.gather(
                *(self.thread(principal, name, min_position) for name in some), return_exceptions=True
            )
            for name, one in zip(some, found, strict=True):
                if isinstance(one, Problem) and one.status == 404:
                    gone.append(name)
                elif isinstance(one, BaseException):
                    raise one
        asked = [f"{name}@0" for name in gone if is_uuid(name)]
        owners = await self._history.owners(principal.workspace_id, asked) if asked else {}
        deleted = {
            owner.id for owner in owners.values() if principal.sees(owner.user_id, owner.agent_id, owner.team_id)
        }
        if not deleted.issuperset(gone):
            raise not_found("thread", threads=[name for name in gone if name not in deleted])

    async def run(
        self, principal: Principal, run_id: str, min_position: str | None = None, *, past: bool = False
    ) -> RunView:
        """A run of a thread that the key may see and read. `past`: also one that a fork took over, which ran in another
        thread, and has no facts of its own here."""
        view, _ = await self.run_in(principal, run_id, min_position, past=past)
        return view

    async def run_in(
        self, principal: Principal, run_id: str, min_position: str | None = None, *, past: bool = False
    ) -> tuple[RunView, ThreadView]:
        """The same, and its thread."""
        thread_id = thread_of_run(run_id)
        view = await self._one(
            principal,
            thread_id,
            min_position,
            lambda position: self._history.run(principal.workspace_id, run_id, position),
            "run",
        )
        thread = await self.thread(principal, thread_id)
        if view.posted_seq <= 0 and not past:
            raise not_found("run")
        return view, thread

    async def then(
        self, thread_id: str, read: Callable[[Sequence[str]], Awaitable[Answer]], what: str = "thread at that time"
    ) -> Answer:
        """A read of the past of a thread that the key is known to see; Problem 404, or 400 when there is no such fact,
        also when the log is asked."""
        try:
            try:
                return await read(())
            except Problem as problem:
                if problem.code != "as_of_ahead":
                    raise
            return await read([await self._hub.real_end_of(thread_id)])
        except Missing:
            raise not_found(what) from None
        except LogError:
            raise Unavailable("the log cannot be reached right now") from None

    async def threads(self, principal: Principal, params: dict[str, Any], min_position: str | None) -> ThreadPage:
        return await self._many(
            principal, min_position, lambda position: self._history.threads(principal.workspace_id, params, position)
        )

    async def messages(
        self, principal: Principal, thread_id: str, params: dict[str, Any], min_position: str | None
    ) -> MessagePage:
        """Messages of a thread that the key is known to see."""
        return await self._many(
            principal,
            min_position,
            lambda position: self._history.messages(principal.workspace_id, thread_id, params, position),
        )

    async def numbered(self, principal: Principal, params: dict[str, Any], min_position: str | None) -> NumberedPage:
        """Messages by their numbers, of threads that the key is known to see."""
        return await self._many(
            principal, min_position, lambda position: self._history.numbered(principal.workspace_id, params, position)
        )

    async def numbered_now(self, principal: Principal, params: dict[str, Any]) -> NumberedPage:
        """The same, with all that the log has by now: what other gateways answered a moment ago, too."""
        try:
            return await self._history.numbered(principal.workspace_id, params, await self._ends())
        except Behind:
            return await self._history.numbered(principal.workspace_id, params)

    async def client_call(self, principal: Principal, agent_id: str, tool_call_id: str) -> MessageView | None:
        """A call of a tool that the client runs, in any of the user's threads with the agent."""
        params = {"user_id": principal.user_id, "agent_id": agent_id, "tool_call_id": tool_call_id}
        try:
            return await self._many(
                principal, None, lambda position: self._history.client_call(principal.workspace_id, params, position)
            )
        except Missing:
            pass
        # Another gateway may have answered with this id a moment ago, and no stream is named: see what the log has.
        try:
            return await self._history.client_call(principal.workspace_id, params, await self._ends())
        except Missing:
            return None

    async def said(self, principal: Principal, params: dict[str, Any], min_position: str | None) -> MessageList:
        """Questions and answers of threads that the key is known to see, ascending: the newest of them."""
        return await self._many(
            principal, min_position, lambda position: self._history.said(principal.workspace_id, params, position)
        )

    async def message(self, principal: Principal, thread_id: str, message_id: str) -> MessageView:
        """A message of a thread that the key is known to see; Problem 404."""
        return await self._one(
            principal,
            thread_id,
            None,
            lambda position: self._history.message(principal.workspace_id, thread_id, message_id, position),
            "message",
        )

    async def inbox(
        self, principal: Principal, params: dict[str, Any], min_position: str | None, after: Sequence[str] = ()
    ) -> Inbox:
        """What is unread. `after`: positions of writes of this very request, which it waits for, too."""
        if not after:
            return await self._many(
                principal, min_position, lambda position: self._history.inbox(principal.workspace_id, params, position)
            )
        try:
            return await self._history.inbox(principal.workspace_id, params, after)
        except Behind:
            return await self._history.inbox(principal.workspace_id, params)

    async def unread_now(self, principal: Principal, params: dict[str, Any]) -> UnreadPage:
        """Threads with something unread, with all that the log has by now."""
        try:
            return await self._history.unread(principal.workspace_id, params, await self._ends())
        except Behind:
            return await self._history.unread(principal.workspace_id, params)

    async def deleted(self, principal: Principal, params: dict[str, Any]) -> int:
        """How many threads of the key's user were deleted, of those that the caller means, as far as history knows."""
        try:
            found = await self._history.deleted(principal.workspace_id, {"user_id": principal.user_id, **params})
        except (Unavailable, Behind):
            return 0
        return found.count

    async def files(
        self, principal: Principal, thread_id: str, params: dict[str, Any], min_position: str | None
    ) -> FilePage:
        """Files of a thread that the key is known to see: the newest of each name."""
        return await self._many(
            principal,
            min_position,
            lambda position: self._history.files(principal.workspace_id, thread_id, params, position),
        )

    async def file(
        self, principal: Principal, thread_id: str, params: dict[str, Any], min_position: str | None
    ) -> FileView:
        """One file of a thread that the key is known to see, artifacts before attachments; Problem 404."""

        async def read(position: Sequence[str]) -> FileView:
            page = await self._history.files(principal.workspace_id, thread_id, params, position)
            if not page.items:
                raise Missing(thread_id)
            return min(page.items, key=lambda file: file.kind != "artifact")

        return await self._one(principal, thread_id, min_position, read, "file")

    async def open_runs(self, principal: Principal, params: dict[str, Any], min_position: str | None) -> OpenRunPage:
        """Runs that have not ended; the caller says whose."""
        return await self._many(
            principal, min_position, lambda position: self._history.open_runs(principal.workspace_id, params, position)
        )

    async def approval(self, principal: Principal, approval_id: str, min_position: str | None = None) -> ApprovalView:
        """An approval that the key may answer, or of a thread that it may see and read; Problem 404 or 403."""
        thread_id = thread_of_approval(approval_id)
        view = await self._one(
            principal,
            thread_id,
            min_position,
            lambda position: self._history.approval(principal.workspace_id, approval_id, position),
            "approval",
        )
        answerer = not view.who or principal.user_id in view.who or principal.admin
        if principal.may_approve and answerer:
            return view
        if view.user_id is not None and view.user_id != principal.user_id and not principal.admin:
            raise not_found("approval")
        principal.to_read(view.agent_id)
        return view

    async def approvals(self, principal: Principal, params: dict[str, Any], min_position: str | None) -> ApprovalPage:
        """Approvals; the caller says which of them the key may see."""
        return await self._many(
            principal, min_position, lambda position: self._history.approvals(principal.workspace_id, params, position)
        )

    async def notes(self, principal: Principal, params: dict[str, Any], min_position: str | None) -> NoteList:
        return await self._many(
            principal, min_position, lambda position: self._history.notes(principal.workspace_id, params, position)
        )

    async def documents(self, principal: Principal, params: dict[str, Any], min_position: str | None) -> DocumentPage:
        """Documents of the workspace, without contents."""
        return await self._many(
            principal, min_position, lambda position: self._history.documents(principal.workspace_id, params, position)
        )

    async def document(self, principal: Principal, knowledge_id: str, min_position: str | None) -> DocumentView:
        """One of them, with its content; Problem 404."""
        if not is_uuid(knowledge_id):
            raise not_found("document")
        return await self._one(
            principal,
            workspace_stream(principal.workspace_id),
            min_position,
            lambda position: self._history.document(principal.workspace_id, knowledge_id, position),
            "document",
        )

    async def there(self, principal: Principal, knowledge_ids: Sequence[str]) -> None:
        """A Problem 404 unless the workspace has all these documents."""
        if not all(map(is_uuid, knowledge_ids)):
            raise not_found("document")
        params = {"id": list(knowledge_ids), "limit": len(knowledge_ids)}

        async def read(position: Sequence[str]) -> None:
            page = await self._history.documents(principal.workspace_id, params, position)
            if len(page.items) < len(knowledge_ids):
                raise Missing("knowledge")

        await self._one(principal, workspace_stream(principal.workspace_id), None, read, "document")

    async def settle(
        self, principal: Principal, min_position: str | None, read: Callable[[Sequence[str]], Awaitable[Answer]]
    ) -> Answer:
        """Any other read, after the key's own writes."""
        return await self._many(principal, min_position, read)

    # ---- inside

    async def _ends(self) -> list[str]:
        try:
            return await self._hub.real_ends()
        except LogError:
            raise Unavailable("the log cannot be reached right now") from None

    async def _one(
        self,
        principal: Principal,
        stream: str,
        min_position: str | None,
        read: Callable[[Sequence[str]], Awaitable[Answer]],
        what: str,
    ) -> Answer:
        try:
            return await self._many(principal, min_position, read)
        except Missing:
            pass
        # Another gateway may have answered with this id a moment ago: see what the log has first, and whether all of it
        # is decided. Where that cannot be seen (the log is away, the view far behind it, the thread between two owners)
        # nobody can say that there is no such thing.
        try:
            decided = await self._undecided.over(stream)
            return await read([await self._hub.real_end_of(stream)])
        except Missing:
            if decided:
                raise not_found(what) from None
            raise Unavailable("it may have been asked for and not be decided yet; try again") from None
        except LogError:
            raise Unavailable("the log cannot be reached right now") from None

    async def _many(
        self, principal: Principal, min_position: str | None, read: Callable[[Sequence[str]], Awaitable[Answer]]
    ) -> Answer:
        if min_position is not None:
            check_position(min_position)
            return await read([min_position])
        told = self._sender.told
        own = told.positions(principal.key_id)
        if not own:
            return await read([])
        try:
            answer = await read(own)
        except Behind:
            return await read([])
        except Missing:
            told.seen(principal.key_id, own)
            raise
        told.seen(principal.key_id, own)
        return answer


def thread_of_run(run_id: str) -> str:
    """The thread's id at the head of a run's; a Problem 404 unless it has a run id's form."""
    thread_id = thread_of(run_id)
    if thread_id is None or _RUN_ID.fullmatch(run_id) is None:
        raise not_found("run")
    return thread_id


def thread_of_approval(approval_id: str) -> str:
    """The thread's id at the head of an approval's; a Problem 404 unless it has an approval id's form."""
    thread_id = thread_of(approval_id)
    if thread_id is None or _APPROVAL_ID.fullmatch(approval_id) is None:
        raise not_found("approval")
    return thread_id


def check_position(text: str | None) -> None:
    """A Problem 400 unless the text is a position that Parley gave out, or there is none."""
    try:
        if text is not None:
            parse_positions(text)
    except (Undecodable, ValueError):
        raise invalid("the position is not one that Parley gave out", "bad_position") from None

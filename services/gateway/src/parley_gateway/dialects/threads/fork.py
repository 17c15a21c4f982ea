"""Forking a thread: the source is read as it is stored, and what is copied travels with the command.

Only this gateway reads the source: whoever decides the command, or folds its outcome, needs nothing of another
partition. `parley_events.past` says what is copied. Beside it: `routes`, which lists the path.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from parley_events.commands import ForkThread
from parley_events.errors import LogError
from parley_events.facts import ThreadDeleted
from parley_events.past import Past, PastTooLarge, Told, told
from parley_events.reads import ThreadView
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.threads import inbound, outbound, wire
from parley_gateway.dialects.threads.access import may_change, thread_id_of
from parley_gateway.errors import Behind, Problem, Unavailable, invalid, not_found
from parley_gateway.feed.join import PAGE
from parley_gateway.http import REPLAYED, Handler, answer, body_of, idempotency_key, traceparent

_READ_BACK_MS = 5000
_ROOM_S = 10.0


async def _fork(core: Core, request: Request, who: Principal) -> Response:
    source_id = thread_id_of(request)
    asked = await body_of(request, wire.NewFork, core.settings.body_mb)
    key = idempotency_key(request)
    fork_id = core.sender.thread_id(who, "thread.fork", key)
    async with _room(core):
        try:
            body = await _copy(core, who, source_id, fork_id, asked)
        except Problem as problem:
            if key is None or problem.status not in (404, 413) or not await _made(core, who, fork_id):
                raise
            # The source has gone, or grown, since this was asked first. What was made then stands, and is told.
            body = inbound.fork_again(who, source_id, asked)
        command = core.sender.command(
            who,
            core.sender.command_id(who, "thread.fork", fork_id, key),
            fork_id,
            body,
            {"source": source_id, **asked.model_dump()},
            fresh=key is None,
            traceparent=traceparent(request),
        )
        outcome = await core.sender.ask(who, command)
    if outcome.pending:
        return answer(202, {"id": fork_id, "status": "accepted"})
    try:
        view = await core.history.thread(who.workspace_id, fork_id, [outcome.position], _READ_BACK_MS)
    except (Unavailable, Behind):
        # The fork is on the log; what it looks like cannot be read.
        return answer(202, {"id": fork_id, "position": outcome.position})
    core.bind(fork_id, view.agent_id)
    return answer(201, outbound.thread(view), REPLAYED if outcome.repeated else None)


@asynccontextmanager
async def _room(core: Core) -> AsyncIterator[None]:
    """A place among the few that read a source; a Problem 503 where none is free in time."""
    try:
        async with asyncio.timeout(_ROOM_S):
            await core.forking.acquire()
    except TimeoutError:
        raise Unavailable("many threads are being forked just now; try again") from None
    try:
        yield
    finally:
        core.forking.release()


async def _made(core: Core, who: Principal, fork_id: str) -> bool:
    """Whether there is a fork of that id already."""
    try:
        await core.reads.visible(who, fork_id)
    except Problem as problem:
        if problem.status == 404:
            return False
        raise
    return True


async def _copy(core: Core, who: Principal, source_id: str, fork_id: str, asked: wire.NewFork) -> ForkThread:
    """The command, with the source's past up to `at`; a Problem says why there is none."""
    await may_change(core, who, source_id)
    view = await core.reads.visible(who, source_id)
    try:
        at, past = await _past(core, who, view, asked.at, Past(source_id, fork_id, who.user_id))
        return inbound.fork_thread(who, view, asked, at, past.made())
    except PastTooLarge as error:
        raise Problem("too_large", f"a fork cannot take over so much ({error}): fork at an earlier seq", 413) from None
    except ValidationError:
        raise invalid("what this thread has on record cannot be taken over by a fork", "unforkable") from None


async def _past(core: Core, who: Principal, view: ThreadView, asked: int | None, past: Past) -> tuple[int, Past]:
    """Where to fork, and what stands there, all of it that is on the log by now."""
    try:
        end = await core.hub.real_end_of(view.id)
    except LogError:
        raise Unavailable("the log cannot be reached right now") from None
    after = max(view.cleared_seq, 0)
    facts, page = await core.history.facts(who.workspace_id, view.id, after, PAGE, min_position=[end])
    at = page.last_seq if asked is None else asked
    first = min(view.cleared_seq + 1, 1)
    if not first <= at <= page.last_seq:
        raise invalid(f"at must be the seq of a fact or message of the thread: {first} to {page.last_seq}", field="at")
    while True:
        for fact, stored in zip(facts, page.items, strict=True):
            if fact.type == ThreadDeleted.type:
                raise not_found("thread")
            for one in told(Told(fact.seq or 0, fact.type, fact.version, fact.time_ms, stored.body)):
                if one.seq <= at:
                    past.take(one)
            after = fact.seq or after
        if not facts or after >= at:
            return at, past
        facts, page = await core.history.facts(who.workspace_id, view.id, after, PAGE)


PATHS: dict[str, dict[str, Handler]] = {"/threads/{thread_id}/fork": {"POST": _fork}}
"""The path of forks below the base."""

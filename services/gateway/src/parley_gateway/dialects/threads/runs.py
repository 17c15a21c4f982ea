"""The routes of runs: how one stands, what a client answers to it, and how one, a thread's, or many are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from parley_events.body import Json
from parley_events.commands import CancelRun, CancelThread
from parley_events.facts import RUN_ENDS
from parley_events.ids import is_uuid
from parley_events.reads import OpenRunView, RunView
from parley_gateway import core as core_
from parley_gateway.auth import Principal
from parley_gateway.core import Core
from parley_gateway.dialects.threads import inbound, outbound, wire
from parley_gateway.dialects.threads.access import BASE, WAIT_S, agent_named, command_of, may_change, thread_id_of
from parley_gateway.errors import Behind, Missing, Problem, Unavailable, forbidden, invalid, not_found
from parley_gateway.feed.follow import ShownFact
from parley_gateway.feed.listener import Listener
from parley_gateway.feed.recall import open_at
from parley_gateway.feed.sse import MEDIA_TYPE
from parley_gateway.http import (
    REPLAYED,
    Handler,
    answer,
    as_of,
    body_of,
    idempotency_key,
    min_position,
    query_wait,
    wants,
)
from parley_gateway.reads import thread_of_run
from parley_gateway.runs import RunTold, message_of
from parley_gateway.send import Outcome

MOST_CANCELLED = 100
"""How many runs one request may stop; what is more is said, and asked for again."""
_AT_ONCE = 16


async def _get(core: Core, request: Request, who: Principal) -> Response:
    position, then = min_position(request), as_of(request)
    run = await core.reads.run(who, request.path_params["run_id"], position, past=True)
    if then is not None:
        w, run_id = who.workspace_id, run.id
        run = await core.reads.then(
            run.thread_id, lambda at: core.history.run(w, run_id, at, as_of=then), "run at that time"
        )
    return answer(200, outbound.run(run))


# ---- tools that the client runs, and calls of which nobody knows what came


async def _result(core: Core, request: Request, who: Principal) -> Response:
    """A result for a parked run: accepted at once; with `?wait=` held until the run ends or waits again; or its stream
    from here on."""
    run_id, tool_call_id = request.path_params["run_id"], request.path_params["tool_call_id"]
    thread_id = thread_of_run(run_id)
    asked = await body_of(request, wire.ToolResult, core.settings.body_mb)
    wait_s, streaming = query_wait(request, WAIT_S), wants(request, MEDIA_TYPE)
    body = inbound.answer_tool(who, run_id, tool_call_id, asked)
    await may_change(core, who, thread_id)
    frames = await _remembering(core, who, thread_id) if streaming else None
    target = f"{run_id}/{tool_call_id}"
    command = command_of(core, request, who, thread_id, target, body, asked.model_dump())
    follow = streaming or bool(wait_s)
    outcome, listener = await core_.ask(core, who, command, follow=follow, pieces=streaming)
    headers = {"Parley-Run-Id": run_id, **(REPLAYED if outcome.repeated else {})}
    pending = list(outcome.receipt.get("pending", ()))
    accepted = {
        "thread_id": thread_id,
        "run_id": run_id,
        "tool_call_id": tool_call_id,
        "status": "waiting" if pending else "running",
        "pending": pending,
        "position": outcome.position,
        "events_url": f"{BASE}/runs/{run_id}/events",
    }
    if listener is None:
        return answer(202, accepted, headers)
    feed = await core_.feed_from(core, who, outcome, listener, run_id, None, True)
    if frames is not None:
        return core_.stream(core, feed, frames, headers)
    if pending:
        feed.close()
        return answer(202, accepted, headers)
    run, _ = await core_.told(feed, run_id, thread_id, wait_s or 0, lambda run: run.waits_for is not None)
    if run.ended_seq is None:
        return answer(202, {**accepted, **waiting(run)}, headers)
    view = await _read(core, who, run_id, f"{thread_id}@{run.ended_seq}")
    if view is None:
        return answer(202, accepted, headers)
    message = message_of(view)
    shown = None if message is None else outbound.message(message)
    return answer(200, {"thread_id": thread_id, "run": outbound.run(view), "message": shown}, headers)


async def _remembering(core: Core, who: Principal, thread_id: str) -> outbound.Frames:
    """The frames of a stream that begins in the middle of a run, knowing which calls are open; as well as history can
    say so now, since the answer is taken in any case."""
    frames = outbound.Frames(thread_id, past=False)
    try:
        facts = await open_at(core.history, who.workspace_id, thread_id, None)
    except (Unavailable, Behind, Missing):
        return frames
    for fact in facts:
        frames(ShownFact(fact, ""))
    return frames


def waiting(run: RunTold) -> Json:
    """What is said of a run that has not ended."""
    if run.waits_for is None:
        return {}
    return {"status": "waiting", "waits_for": run.waits_for, "pending": list(run.pending)}


async def _settle(core: Core, request: Request, who: Principal) -> Response:
    run_id, tool_call_id = request.path_params["run_id"], request.path_params["tool_call_id"]
    thread_id = thread_of_run(run_id)
    asked = await body_of(request, wire.Settlement, core.settings.body_mb)
    await may_change(core, who, thread_id)
    target, body = f"{run_id}/{tool_call_id}", inbound.settle_tool(who, run_id, tool_call_id, asked)
    command = command_of(core, request, who, thread_id, target, body, asked.model_dump())
    outcome = await core.sender.ask(who, command)
    settled = {
        "thread_id": thread_id,
        "run_id": run_id,
        "tool_call_id": tool_call_id,
        "status": "ok" if asked.happened else "error",
        "happened": asked.happened,
        "by": who.user_id,
        "position": outcome.position,
    }
    return answer(202 if outcome.pending else 200, settled, REPLAYED if outcome.repeated else None)


# ---- stopping


async def _cancel(core: Core, request: Request, who: Principal) -> Response:
    """Stop a run. One that has ended is answered as it is, so that asking twice does no harm."""
    run_id = request.path_params["run_id"]
    thread_id = thread_of_run(run_id)
    await body_of(request, wire.Nothing, core.settings.body_mb)
    wait_s = query_wait(request, WAIT_S)
    await may_change(core, who, thread_id)
    command = command_of(core, request, who, thread_id, run_id, CancelRun(principal=who.asker, run_id=run_id))
    try:
        outcome, listener = await core_.ask(core, who, command, follow=bool(wait_s), pieces=False)
    except Problem as problem:
        if problem.code != "not_open":
            raise
        # The refusal was heard after the run's end, so what the hub has read holds it.
        view = await _read(core, who, run_id, core.hub.end_of(thread_id))
        if view is None or view.ended_seq is None:
            raise
        return answer(200, outbound.run(view), problem.headers)
    # A second cancel is told of the first, which is no replay where no key asked for one.
    headers = REPLAYED if outcome.repeated and idempotency_key(request) is not None else None
    accepted = {"id": run_id, "thread_id": thread_id, "position": outcome.position}
    if outcome.pending:
        return answer(202, accepted, headers)
    position = outcome.position
    if listener is not None:
        ends = await _ends(core, who, outcome, listener, [run_id], wait_s or 0)
        if run_id not in ends:
            return answer(202, accepted, headers)
        position = f"{thread_id}@{ends[run_id]}"
    view = await _read(core, who, run_id, position)
    # The run was told to stop; where it stands now cannot always be read.
    return answer(202, accepted, headers) if view is None else answer(200, outbound.run(view), headers)


async def _cancel_thread(core: Core, request: Request, who: Principal) -> Response:
    thread_id = thread_id_of(request)
    await body_of(request, wire.Nothing, core.settings.body_mb)
    wait_s = query_wait(request, WAIT_S)
    await may_change(core, who, thread_id)
    command = command_of(core, request, who, thread_id, thread_id, CancelThread(principal=who.asker))
    outcome, listener = await core_.ask(core, who, command, follow=bool(wait_s), pieces=False)
    headers = REPLAYED if outcome.repeated else None
    run_ids = [str(run_id) for run_id in outcome.receipt.get("run_ids", ())]
    told: Json = {"thread_id": thread_id, "cancelled": run_ids, "position": outcome.position}
    if outcome.pending:
        return answer(202, told, headers)
    if listener is not None:
        ends = await _ends(core, who, outcome, listener, run_ids, wait_s or 0)
        if len(ends) < len(run_ids):
            return answer(202, told, headers)
        told["position"] = f"{thread_id}@{max([outcome.seq or 0, *ends.values()])}"
    return answer(200, told, headers)


async def _cancel_many(core: Core, request: Request, who: Principal) -> Response:
    """Stop the oldest open runs of a filter, each by a command of its own. An Idempotency-Key covers each run's: a
    repeated request stops, and names, what is open then."""
    asked = await body_of(request, wire.RunFilter, core.settings.body_mb)
    idempotency_key(request)  # a bad one is refused, also where there is nothing to stop
    if not asked.model_dump(exclude_none=True):
        raise invalid("at least one of agent_id, user_id, thread_id, older_than_s is wanted")
    agent_id = None if asked.agent_id is None else (await agent_named(core, who, asked.agent_id)).id
    who.to_chat(agent_id)
    if asked.user_id not in (None, who.user_id) and not who.admin:
        raise forbidden("another user's runs need a key with the scope admin")
    if asked.thread_id is not None and not is_uuid(asked.thread_id):
        raise not_found("thread")
    until_ms = None if asked.older_than_s is None else max(0, core.clock() - int(asked.older_than_s * 1000))
    params = {
        "agent_id": agent_id,
        "user_id": asked.user_id or (None if who.admin else who.user_id),
        "thread_id": asked.thread_id,
        "until_ms": until_ms,
        "limit": MOST_CANCELLED,
    }
    page = await core.reads.open_runs(who, params, min_position(request))
    gate = asyncio.Semaphore(_AT_ONCE)

    async def stop(run: OpenRunView) -> str | None:
        body = CancelRun(principal=who.asker, run_id=run.id)
        command = command_of(core, request, who, run.thread_id, run.id, body)
        async with gate:
            try:
                await core.sender.ask(who, command)
            except Unavailable:
                raise
            except Problem:
                # It ended a moment ago, or its thread went away.
                return None
        return run.id

    stopped = await asyncio.gather(*(stop(run) for run in page.items))
    return answer(200, {"cancelled": [run for run in stopped if run], "more": page.next_cursor is not None})


async def _ends(
    core: Core, who: Principal, outcome: Outcome, listener: Listener, run_ids: list[str], wait_s: float
) -> Mapping[str, int]:
    """When these runs ended, as far as they do in time. The outcome may be an end itself."""
    if outcome.type in RUN_ENDS:
        core.hub.leave(listener)
        return {str(outcome.receipt.get("run_id")): outcome.seq or 0}
    feed = await core_.feed_from(core, who, outcome, listener, None, None, True)
    return await core_.ended(feed, run_ids, wait_s)


async def _read(core: Core, who: Principal, run_id: str, position: str) -> RunView | None:
    """The run as it stands at the position; None where that cannot be read now."""
    try:
        return await core.history.run(who.workspace_id, run_id, [position], 5000)
    except (Unavailable, Behind, Missing):
        return None


PATHS: dict[str, dict[str, Handler]] = {
    "/runs/cancel": {"POST": _cancel_many},
    "/runs/{run_id}": {"GET": _get},
    "/runs/{run_id}/cancel": {"POST": _cancel},
    "/runs/{run_id}/tools/{tool_call_id}": {"POST": _result},
    "/runs/{run_id}/tools/{tool_call_id}/settle": {"POST": _settle},
    "/threads/{thread_id}/cancel": {"POST": _cancel_thread},
}
"""Every path of runs below the base, with its methods."""

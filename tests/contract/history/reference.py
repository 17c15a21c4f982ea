"""What the view must say, worked out the slow way from the whole list of facts: a second, independent reading of what
each fact means, without rows, batches or a database. Answers are in the shapes of `parley_events.reads`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Block, ThreadSeed, Usage
from parley_events.clock import rfc3339
from parley_events.codec import Fact

Answer = dict[str, Any]
EVER = -(10**9)
"""A seq before all others."""


def shown(text: str | None) -> str | None:
    """A text as the view can hold it."""
    return None if text is None else text.replace("\x00", "\ufffd")


@dataclass
class Parts:
    """`answer`: the number of the answer that comes next. Of calls of tools that the client runs, by their seq: the
    call that leads their message (`leads`), and for one that leads its number and the text before it."""

    answer: int
    told: int = 0
    leads: dict[int, int] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)
    before: dict[int, str] = field(default_factory=dict)


class Reference:
    """The facts that count, in the order of the log (of each partition), seen at `now_ms`. `whole`: what forks took
    over is among them already, as facts of their own behind the fork's."""

    def __init__(self, facts: list[Fact], now_ms: int = 0, *, whole: bool = False) -> None:
        self.now_ms = now_ms
        self.facts = [fact for fact in facts if fact.seq is not None]
        self.streams: dict[str, list[Fact]] = {}
        for fact in self.facts:
            own = self.streams.setdefault(fact.stream, [])
            own.append(fact)
            if isinstance(fact.body, f.ThreadForked) and not whole:
                own.extend(_taken_over(fact, fact.body))

    # ---- threads

    def threads(self, workspace: str) -> list[Answer]:
        """All threads of a workspace that are not deleted, by their latest activity."""
        found = [
            self.thread(stream)
            for stream, facts in self.streams.items()
            if not stream.startswith("ws:") and facts[0].workspace_id == workspace
        ]
        return sorted(
            (one for one in found if one is not None), key=lambda one: (one["active"], one["id"]), reverse=True
        )

    def thread(self, stream: str) -> Answer | None:
        facts = self.streams[stream]
        if any(isinstance(fact.body, f.ThreadDeleted) for fact in facts):
            return None
        first = facts[0].body
        seed = first.opened if isinstance(first, f.MessagePosted) else getattr(first, "seed", None)
        assert isinstance(seed, ThreadSeed)
        values: Answer = {"title": seed.title, "pinned": False, "archived": False, "metadata": seed.metadata}
        for fact in facts:
            if isinstance(fact.body, f.ThreadUpdated):
                for name in fact.body.changes:
                    value = getattr(fact.body, name)
                    values[name] = {} if name == "metadata" and value is None else value
            elif isinstance(fact.body, f.ThreadForked) and fact.body.title is not None:
                values["title"] = fact.body.title
        ever = [message for fact in facts for message in self._made_by(fact)]
        now = self.messages(stream)
        clears = [fact.time_ms for fact in facts if isinstance(fact.body, f.ThreadCleared)]
        touches = [
            fact.time_ms for fact in facts if isinstance(fact.body, f.ThreadUpdated | f.ThreadExpired | f.ThreadCleared)
        ]
        born = facts[0].time_ms
        said = [message["time_ms"] for message in ever]
        cleared = [_seq(fact) for fact in facts if isinstance(fact.body, f.ThreadCleared)]
        return {
            "id": stream,
            "workspace_id": facts[0].workspace_id,
            "title": shown(values["title"]),
            "agent_id": seed.agent_id,
            "team_id": seed.team_id,
            "user_id": seed.user_id,
            "channel": seed.channel,
            "pinned": values["pinned"],
            "archived": values["archived"],
            "system_prompt": seed.system_prompt,
            "context": seed.context,
            "metadata": values["metadata"],
            "created_at": rfc3339(born),
            "updated_at": rfc3339(max([born, *touches, *said])),
            "last_message_at": rfc3339(max(message["time_ms"] for message in now)) if now else None,
            "message_count": len(now),
            "expired": any(isinstance(fact.body, f.ThreadExpired) for fact in facts)
            or any(key == "session" and due <= self.now_ms for _, key, due in self._dues_of(stream)),
            "end_user": seed.end_user,
            "idle_s": seed.idle_s,
            "cleared_seq": cleared[-1] if cleared else min(0, *(_seq(fact) - 1 for fact in facts)),
            "position": f"{stream}@{max(map(_seq, facts))}",
            "active": max([born, *clears, *said]),
        }

    # ---- messages

    def messages(self, stream: str) -> list[Answer]:
        """What is shown of a thread now, in order; tool calls with the status they have now."""
        facts = self.streams[stream]
        border = max(
            (_seq(fact) for fact in facts if isinstance(fact.body, f.ThreadCleared | f.ThreadDeleted)), default=EVER
        )
        statuses = self._call_statuses(stream)
        found = [message for fact in facts if _seq(fact) > border for message in self._made_by(fact)]
        for message in found:
            for call in message["tool_calls"] or ():
                call["status"] = statuses[message["seq"]]
                if call["status"] not in ("running", "waiting"):
                    call["is_error"] = call["status"] != "ok"
        return found

    def _made_by(self, fact: Fact) -> Iterator[Answer]:
        """The messages that a fact made at its time, whatever happened later."""
        body, seq = fact.body, _seq(fact)
        run = getattr(body, "run_id", None)
        if run is None or not self._shows(fact, run):
            return
        base: Answer = {
            "seq": seq,
            "thread_id": fact.stream,
            "run_id": run,
            "tool_calls": None,
            "tool_call_id": None,
            "author": None,
            "attachments": [],
            "lead_context": None,
            "knowledge_ids": [],
            "metadata": {},
            "created_at": rfc3339(fact.time_ms),
            "time_ms": fact.time_ms,
        }
        if isinstance(body, f.MessagePosted):
            if body.system_prompt is not None or body.context is not None:
                text = body.system_prompt if body.system_prompt is not None else orjson.dumps(body.context).decode()
                own = ids.fact_message_id(fact.stream, seq)
                yield {**base, "id": own, "number": body.numbers[0], "role": "system", "content": shown(text)}
            yield {
                **base,
                "id": body.message_id,
                "number": body.numbers[1],
                "role": "user",
                "content": shown(body.text),
                "author": body.author.model_dump(),
                "attachments": [attachment.model_dump() for attachment in body.attachments],
                "lead_context": body.lead_context,
                "knowledge_ids": list(body.knowledge_ids),
                "metadata": body.metadata,
            }
        elif isinstance(body, f.ToolCalled | f.ToolReturned | f.ToolAnswered):
            row = {
                **base,
                "id": ids.fact_message_id(fact.stream, seq),
                "number": body.numbers[0],
                "role": "tool",
                "content": None,
                "tool_call_id": body.tool_call_id,
            }
            if isinstance(body, f.ToolCalled):
                call = {"id": body.tool_call_id, "name": body.name, "arguments": body.arguments}
                row["tool_calls"] = [{**call, "status": "running", "result": None, "is_error": None}]
                row["number"] = self._parts(fact.stream, run).numbers.get(seq, body.numbers[0])
            else:
                row["content"] = shown(body.result)
            if isinstance(body, f.ToolReturned):
                row["attachments"] = [file.model_dump() for file in body.files]
            yield row
        elif body.type in f.RUN_ENDS:
            view = self.run(fact.stream, run)
            posted = self._origin(fact.stream, run).body
            assert isinstance(posted, f.MessagePosted)
            if view["answer"] or body.type == "run.completed":
                agent = {"kind": "agent", "id": view["agent_id"], "name": None}
                yield {
                    **base,
                    "id": view["message_id"],
                    "number": self._parts(fact.stream, run).answer,
                    "role": "assistant",
                    "content": view["answer"],
                    "author": agent,
                }

    def _parts(self, stream: str, run: str) -> Parts:
        """How a run's answer is told in parts, by contracts with numbers."""
        facts = self.streams[stream]
        posted = self._origin(stream, run).body
        parts = Parts(posted.numbers[2] if isinstance(posted, f.MessagePosted) else 0)
        said = ""
        for place, fact in enumerate(facts):
            body, seq = fact.body, _seq(fact)
            if getattr(body, "run_id", None) != run:
                continue
            if isinstance(body, f.ModelReturned):
                said += _said(body.blocks)
            elif isinstance(body, f.ToolAnswered):
                parts.answer = body.numbers[1]
            elif isinstance(body, f.ToolCalled) and body.effect == "client" and self._shows(fact, run):
                now = Reference(facts[:place], whole=True)._call_statuses(stream)
                still = [one for one in parts.leads if now[one] in ("running", "waiting", "unknown")]
                parts.leads[seq] = parts.leads[still[0]] if still else seq
                if not still:
                    parts.numbers[seq], parts.answer = parts.answer, body.numbers[0]
                    parts.before[seq], parts.told = said[parts.told :], len(said)
        return parts

    def numbered(self, streams: list[str], tools: bool) -> list[Answer]:
        """The messages of threads as contracts with numbers show them."""
        found = []
        for stream in streams:
            facts = {_seq(fact): fact.body for fact in self.streams[stream]}
            rows = self.messages(stream)
            for row in rows:
                body, seq = facts[row["seq"]], row["seq"]
                parts = self._parts(stream, row["run_id"])
                client = seq in parts.leads or isinstance(body, f.ToolAnswered)
                if parts.leads.get(seq, seq) != seq or (row["role"] == "tool" and not client and not tools):
                    continue
                if seq in parts.leads:
                    mine = [
                        one for one in rows if parts.leads.get(one["seq"]) == seq and one["run_id"] == row["run_id"]
                    ]
                    calls = [call for one in mine for call in one["tool_calls"]]
                    row = {**row, "content": shown(parts.before[seq]) or None, "tool_calls": calls}
                elif row["role"] == "assistant":
                    row = {**row, "content": row["content"][parts.told :]}
                found.append({**row, "client": client})
        return sorted(found, key=lambda row: row["number"])

    def said(self, streams: list[str]) -> list[Answer]:
        """Questions and answers of threads, in the order of their numbers."""
        rows = [row for stream in streams for row in self.messages(stream) if row["role"] in ("user", "assistant")]
        return sorted(rows, key=lambda row: row["number"])

    def unread(self, user: str, streams: list[str]) -> list[Answer]:
        """The answers beyond what the user has read of each thread, by their times."""
        found = []
        for stream in streams:
            marks = [
                fact.body.up_to
                for fact in self.streams[stream]
                if isinstance(fact.body, f.ThreadRead) and fact.body.user_id == user
            ]
            found += [
                row
                for row in self.messages(stream)
                if row["role"] == "assistant" and row["seq"] > max(marks, default=0)
            ]
        return sorted(found, key=lambda row: (row["time_ms"], row["thread_id"], row["seq"]))

    def files(self, stream: str) -> list[Answer]:
        """The newest file of each kind and name, newest first: of what was posted, or made, since the last clear."""
        facts = self.streams[stream]
        border = max((_seq(fact) for fact in facts if isinstance(fact.body, f.ThreadCleared)), default=EVER)
        found: dict[tuple[str, str], Answer] = {}
        for fact in facts:
            kind = "attachment" if isinstance(fact.body, f.MessagePosted) else "artifact"
            run = getattr(fact.body, "run_id", None)
            for file in getattr(fact.body, "attachments" if kind == "attachment" else "files", ()):
                if _seq(self._origin(stream, str(run))) > border:
                    made = {"kind": kind, "seq": _seq(fact), "run_id": run, "created_at": rfc3339(fact.time_ms)}
                    found[kind, file.name] = {**file.model_dump(), **made}
        return sorted(found.values(), key=lambda file: (file["seq"], file["name"]), reverse=True)

    def _shows(self, fact: Fact, run: str) -> bool:
        """Whether the fact's messages were shown when it came: a top-level run, posted since the last clearing."""
        origin = self._origin(fact.stream, run)
        if not isinstance(origin.body, f.MessagePosted):
            return False
        return not any(
            isinstance(other.body, f.ThreadCleared | f.ThreadDeleted) and _seq(origin) < _seq(other) < _seq(fact)
            for other in self.streams[fact.stream]
        )

    def _origin(self, stream: str, run: str) -> Fact:
        return next(
            fact
            for fact in self.streams[stream]
            if isinstance(fact.body, f.MessagePosted | f.ChildStarted) and fact.body.run_id == run
        )

    def _call_statuses(self, stream: str) -> dict[int, str]:
        """The seq of each call → its status now."""
        status: dict[int, str] = {}
        for fact in self.streams[stream]:
            body = fact.body
            earlier = {
                _seq(one): one.body
                for one in self.streams[stream]
                if isinstance(one.body, f.ToolCalled)
                and _seq(one) < _seq(fact)
                and one.body.run_id == getattr(body, "run_id", None)
                and self._shows(one, one.body.run_id)
                and status[_seq(one)] in ("running", "waiting", "unknown")
            }
            if isinstance(body, f.ToolCalled):
                status[_seq(fact)] = "running"
            elif isinstance(body, f.ToolReturned):
                for seq, call in earlier.items():
                    if (call.call, call.index) == (body.call, body.index):
                        status[seq] = body.status
            elif isinstance(body, f.RunWaiting) and not self._ended(fact, body.run_id):
                for seq, call in earlier.items():
                    if call.tool_call_id in body.tool_call_ids and status[seq] == "running":
                        status[seq] = "waiting"
            elif isinstance(body, f.ToolAnswered | f.ToolSettled):
                named = [
                    seq
                    for seq, call in earlier.items()
                    if call.tool_call_id == body.tool_call_id
                    and (body.index is None or (call.call, call.index) == (body.call, body.index))
                ]
                good = not body.is_error if isinstance(body, f.ToolAnswered) else body.happened
                if named:
                    status[max(named)] = "ok" if good else "error"
        return status

    def _ended(self, fact: Fact, run: str) -> bool:
        return any(
            other.body.type in f.RUN_ENDS and other.body.run_id == run and _seq(other) < _seq(fact)  # type: ignore[attr-defined]
            for other in self.streams[fact.stream]
        )

    # ---- runs

    def runs(self) -> list[tuple[str, str]]:
        """(stream, run) of every run."""
        return [
            (stream, fact.body.run_id)
            for stream, facts in self.streams.items()
            for fact in facts
            if isinstance(fact.body, f.MessagePosted | f.ChildStarted)
        ]

    def run(self, stream: str, run: str) -> Answer:
        origin = self._origin(stream, run)
        start = origin.body
        assert isinstance(start, f.MessagePosted | f.ChildStarted)
        own = [
            fact
            for fact in self.streams[stream]
            if (getattr(fact.body, "run_id", None) == run and fact is not origin) or _speaks_in(fact.body, run)
        ]
        end = next((fact for fact in own if fact.body.type in f.RUN_ENDS), None)
        calls = [fact.body for fact in own if isinstance(fact.body, f.ModelCalled)]
        turns = [fact.body for fact in own if isinstance(fact.body, f.ModelReturned)]
        failures = [fact.body for fact in own if isinstance(fact.body, f.ModelFailed)]
        attempts = [fact.body.attempt for fact in own if isinstance(fact.body, f.ModelCalled | f.ModelFailed)]
        answer = "".join(_said(turn.blocks) for turn in turns)
        usage = sum([*(turn.usage for turn in turns), *(failure.usage for failure in failures)], Usage())
        status = "running"
        if isinstance(start, f.MessagePosted) and start.disposition == "queued":
            status = "queued"
        stop_reason, error, message_id = None, None, ids.answer_id(run)
        for fact in own:
            body = fact.body
            if isinstance(body, f.RunWaiting):
                status = "waiting"
            elif isinstance(body, f.ModelCalled | f.ChildStarted) or (
                status == "waiting"
                and (
                    isinstance(
                        body,
                        f.ToolCalled
                        | f.ToolReturned
                        | f.ToolExpired
                        | f.ApprovalAnswered
                        | f.ApprovalExpired
                        | f.RunCancelling,
                    )
                    or (isinstance(body, f.ToolAnswered) and not body.pending)
                )
            ):
                status = "running"
            elif isinstance(body, f.RunCompleted):
                status, stop_reason, usage = "completed", body.stop_reason, body.usage
            elif isinstance(body, f.RunFailed):
                status, usage = "failed", body.usage
                error = {"code": body.code, "message": shown(body.message)}
            elif isinstance(body, f.RunCancelled):
                status, usage = "cancelled", body.usage
                answer += _said(body.blocks)
        return {
            "id": run,
            "thread_id": stream,
            "workspace_id": origin.workspace_id,
            "parent_run_id": getattr(start, "parent_run_id", None),
            "agent_id": calls[-1].agent_id if calls else start.agent_id,
            "agent_version": calls[-1].agent_version if calls else start.agent_version,
            "status": status,
            "attempt": attempts[-1] if attempts else 1,
            "usage": (usage if _seq(origin) > 0 else Usage()).model_dump(),
            "stop_reason": stop_reason,
            "error": error,
            "message_id": message_id,
            "question_id": getattr(start, "message_id", None),
            "answer": shown(answer),
            "last_text": shown(_said(turns[-1].blocks)) if turns else "",
            "posted_seq": origin.seq,
            "ended_seq": None if end is None else end.seq,
            "created_at": rfc3339(origin.time_ms),
            "ended_at": None if end is None else rfc3339(end.time_ms),
        }

    def open_threads(self) -> tuple[set[str], set[str]]:
        """Threads with open runs, and those of them whose every open run is parked and may stay so."""
        open_runs = [self.run(stream, run) for stream, run in self.runs()]
        open_runs = [run for run in open_runs if run["ended_seq"] is None]
        busy = {run["thread_id"] for run in open_runs if run["status"] != "waiting" or self._disturbed(run)}
        all_open = {run["thread_id"] for run in open_runs}
        return all_open, all_open - busy

    def _disturbed(self, run: Answer) -> bool:
        """Whether something came since it was parked that is not its own: the end of another run, or of the thread."""
        facts = self.streams[run["thread_id"]]
        others = f.ThreadCancelling | f.RunCompleted | f.RunFailed | f.RunCancelled
        newest = [fact for fact in facts if isinstance(fact.body, f.RunWaiting | others)][-1]
        if isinstance(newest.body, others):
            return True
        return any(
            isinstance(fact.body, f.ThreadExpired)
            or (isinstance(fact.body, f.ThreadCleared | f.ThreadDeleted) and _seq(fact) > run["posted_seq"])
            for fact in facts
        )

    def dues(self) -> set[tuple[str, str, int]]:
        """(stream, key, time) of what is waited for."""
        return {due for stream in self.streams if not stream.startswith("ws:") for due in self._dues_of(stream)}

    def _dues_of(self, stream: str) -> set[tuple[str, str, int]]:
        facts = self.streams[stream]
        found = {
            (stream, key, due)
            for fact in facts
            for key, due in self._set_by(fact)
            if not any(self._takes_away(later, fact) for later in facts if _seq(later) > _seq(fact))
        }
        first = facts[0].body
        seed = first.opened if isinstance(first, f.MessagePosted) else getattr(first, "seed", None)
        over = any(isinstance(fact.body, f.ThreadExpired | f.ThreadDeleted) for fact in facts)
        runs = [fact.body.run_id for fact in facts if isinstance(fact.body, f.MessagePosted)]
        if seed is not None and seed.idle_s is not None and not over and all(map(self._end_of(stream).get, runs)):
            happened = [fact for fact in facts if not isinstance(fact.body, f.ThreadRead)]
            found.add((stream, "session", max(happened, key=_seq).time_ms + 1000 * seed.idle_s))
        return found

    def _end_of(self, stream: str) -> dict[str, Fact]:
        """The first end of each run that has ended."""
        ends: dict[str, Fact] = {}
        for fact in self.streams[stream]:
            if fact.body.type in f.RUN_ENDS:
                ends.setdefault(fact.body.run_id, fact)  # type: ignore[attr-defined]
        return ends

    def _set_by(self, fact: Fact) -> Iterator[tuple[str, int]]:
        """The timer that a fact sets."""
        body = fact.body
        if isinstance(body, f.ApprovalRequested):
            yield body.approval_id, body.due_at_ms
        elif isinstance(body, f.ToolCalled) and body.effect == "client" and body.due_at_ms is not None:
            yield ids.fact_message_id(fact.stream, _seq(fact)), body.due_at_ms
        elif isinstance(body, f.ModelCalled) and body.due_at_ms is not None:
            yield body.run_id, body.due_at_ms

    def _takes_away(self, later: Fact, fact: Fact) -> bool:
        """Whether a later fact takes away the timer that a fact set."""
        body, set_by = later.body, fact.body
        if getattr(body, "run_id", None) != set_by.run_id:  # type: ignore[attr-defined]
            return False
        if body.type in f.RUN_ENDS:
            return True
        if isinstance(set_by, f.ApprovalRequested):
            answers = isinstance(body, f.ApprovalAnswered | f.ApprovalExpired)
            return answers and body.approval_id == set_by.approval_id  # type: ignore[attr-defined]
        if isinstance(set_by, f.ModelCalled):
            return isinstance(body, f.ModelCalled | f.RunWaiting)
        assert isinstance(set_by, f.ToolCalled)
        if isinstance(body, f.ToolReturned | f.ToolExpired | f.ToolAnswered):
            return (body.call, body.index) == (set_by.call, set_by.index)
        return False

    # ---- approvals, and what is open

    def approvals(self, workspace: str) -> list[Answer]:
        """Every approval of a workspace that can be seen, newest first."""
        found = []
        for stream, facts in self.streams.items():
            if facts[0].workspace_id != workspace or stream.startswith("ws:"):
                continue
            thread = self.thread(stream)
            border = max((_seq(fact) for fact in facts if isinstance(fact.body, f.ThreadCleared)), default=0)
            for fact in facts:
                if thread is None or _seq(fact) <= 0 or not isinstance(fact.body, f.ApprovalRequested):
                    continue
                if _seq(self._origin(stream, fact.body.run_id)) > border:
                    found.append((fact.time_ms, self._approval(fact, fact.body, thread["user_id"])))
        found.sort(key=lambda one: (one[0], one[1]["id"]), reverse=True)
        return [approval for _, approval in found]

    def _approval(self, fact: Fact, body: f.ApprovalRequested, user_id: str | None) -> Answer:
        facts = self.streams[fact.stream]
        over = [
            later
            for later in facts
            if (
                isinstance(later.body, f.ApprovalAnswered | f.ApprovalExpired)
                and later.body.approval_id == body.approval_id
            )
            or (later.body.type in f.RUN_ENDS and later.body.run_id == body.run_id)  # type: ignore[attr-defined]
        ]
        end = over[0] if over else None
        answered = end.body if end is not None and isinstance(end.body, f.ApprovalAnswered) else None
        status = "open"
        if answered is not None:
            status = {"approve": "approved", "deny": "denied"}[answered.decision]
        elif end is not None:
            status = "expired" if isinstance(end.body, f.ApprovalExpired) else "closed"
        agents = [
            one.body.agent_id
            for one in facts
            if isinstance(one.body, f.ModelCalled) and one.body.run_id == body.run_id and _seq(one) < _seq(fact)
        ]
        start: Any = self._origin(fact.stream, body.run_id).body
        return {
            "id": body.approval_id,
            "thread_id": fact.stream,
            "run_id": body.run_id,
            "agent_id": agents[-1] if agents else start.agent_id,
            "user_id": user_id,
            "seq": fact.seq,
            "tool_call_id": body.tool_call_id,
            "name": shown(body.name),
            "arguments": body.arguments,
            "question": shown(body.question),
            "input_schema": body.input_schema,
            "who": [shown(user) for user in body.who],
            "status": status,
            "created_at": rfc3339(fact.time_ms),
            "expires_at": rfc3339(body.due_at_ms),
            "answered_by": None if answered is None else answered.by,
            "comment": None if answered is None else shown(answered.comment),
            "edited": None if answered is None else answered.arguments,
            "answered_at": None if end is None else rfc3339(end.time_ms),
        }

    def open_runs(self, workspace: str) -> list[Answer]:
        """Every top-level run of a workspace that has not ended, oldest first."""
        found = []
        for stream, run in self.runs():
            view, thread = self.run(stream, run), self.thread(stream)
            if thread is None or view["ended_seq"] is not None or view["parent_run_id"] is not None:
                continue
            if view["workspace_id"] == workspace:
                shown_of = {name: view[name] for name in ("id", "thread_id", "status", "created_at")}
                posted: Any = self._origin(stream, run).body
                found.append(
                    {**shown_of, "agent_id": view["agent_id"] or posted.agent_id, "user_id": thread["user_id"]}
                )
        return sorted(found, key=lambda one: (one["created_at"], one["id"]))

    # ---- notes and skills

    def _noted(self, workspace: str) -> Iterator[tuple[Fact, Any, str]]:
        for fact in self.facts:
            body = fact.body
            if isinstance(body, f.ToolReturned) and body.note is not None and fact.workspace_id == workspace:
                start = self._origin(fact.stream, body.run_id).body
                before = [
                    one.body.agent_id
                    for one in self.streams[fact.stream]
                    if isinstance(one.body, f.ModelCalled) and one.body.run_id == body.run_id and _seq(one) < _seq(fact)
                ]
                yield fact, body, before[-1] if before else start.agent_id  # type: ignore[attr-defined]

    def notes(self, workspace: str) -> list[Answer]:
        found = [
            (
                fact.time_ms,
                {
                    "id": body.note.id,
                    "kind": body.note.kind,
                    "title": shown(body.note.title),
                    "body": shown(body.note.body),
                    "agent_id": agent,
                    "run_id": body.run_id,
                    "thread_id": fact.stream,
                    "created_at": rfc3339(fact.time_ms),
                },
            )
            for fact, body, agent in self._noted(workspace)
            if body.note.kind != "skill"
        ]
        found.sort(key=lambda one: (one[0], one[1]["id"]), reverse=True)
        return [note for _, note in found]

    def skills(self, workspace: str) -> set[tuple[str, str, str]]:
        """(agent, slug, updated_at)."""
        newest: dict[tuple[str, str], int] = {}
        for fact, body, agent in self._noted(workspace):
            if body.note.kind == "skill":
                key = (agent, body.note.slug)
                newest[key] = max(newest.get(key, 0), fact.time_ms)
        for fact in self.streams.get(ids.workspace_stream(workspace), ()):
            if isinstance(fact.body, f.SkillChanged):
                key = (fact.body.agent_id, fact.body.slug)
                newest[key] = max(newest.get(key, 0), fact.time_ms)
        return {(agent, slug, rfc3339(time_ms)) for (agent, slug), time_ms in newest.items()}

    # ---- a workspace

    def workspace(self, workspace: str) -> Answer | None:
        found: Answer | None = None
        for fact in self.streams.get(ids.workspace_stream(workspace), ()):
            if isinstance(fact.body, f.WorkspaceCreated):
                found = {
                    "id": workspace,
                    "name": fact.body.name,
                    "context": None,
                    "structures": [],
                    "mcp_servers": [],
                    "connectors": [],
                }
            elif isinstance(fact.body, f.WorkspaceChanged) and found is not None:
                found |= {
                    "context": fact.body.context,
                    "structures": list(fact.body.structures),
                    "mcp_servers": [server.model_dump(mode="json") for server in fact.body.mcp_servers],
                    "connectors": list(fact.body.connectors),
                }
        if found is not None:
            found |= {
                "documents": len(self.documents(workspace)),
                "seq": self.streams[ids.workspace_stream(workspace)][-1].seq,
            }
        return found

    def documents(self, workspace: str) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        for fact in self.streams.get(ids.workspace_stream(workspace), ()):
            body = fact.body
            if isinstance(body, f.KnowledgeAdded):
                found[body.knowledge_id] = {
                    "id": body.knowledge_id,
                    "title": shown(body.title),
                    "content_type": body.content_type,
                    "characters": len(body.text),
                    "created_at": rfc3339(fact.time_ms),
                    "content": shown(body.text),
                }
            elif isinstance(body, f.KnowledgeRemoved):
                found.pop(body.knowledge_id, None)
        return found

    def keys(self, workspace: str) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        name = (self.workspace(workspace) or {}).get("name")
        for fact in self.streams.get(ids.workspace_stream(workspace), ()):
            body = fact.body
            if isinstance(body, f.KeyCreated):
                found[body.key_id] = {
                    "id": body.key_id,
                    "key_hash": body.key_hash,
                    "workspace_id": workspace,
                    "workspace": name,
                    "user_id": body.user_id,
                    "scopes": list(body.scopes),
                    "rate_limit": body.rate_limit,
                    "created_at": rfc3339(fact.time_ms),
                    "revoked": False,
                }
            elif isinstance(body, f.KeyRotated) and body.key_id in found:
                found[body.key_id]["key_hash"] = body.key_hash
            elif isinstance(body, f.KeyRevoked) and body.key_id in found:
                found[body.key_id]["revoked"] = True
        return found

    def agents(self, workspace: str) -> dict[tuple[str, int], Answer]:
        """Every version."""
        found: dict[tuple[str, int], Answer] = {}
        for fact in self.streams.get(ids.workspace_stream(workspace), ()):
            body = fact.body
            if isinstance(body, f.AgentChanged):
                name = body.spec.agent_id
                found[(name, body.agent_version)] = {
                    "id": name,
                    "uuid": ids.agent_uuid(workspace, name),
                    "version": body.agent_version,
                    "spec": body.spec.model_dump(mode="json"),
                    "deleted": False,
                }
            elif isinstance(body, f.AgentDeleted):
                for (name, _), version in found.items():
                    version["deleted"] |= name == body.agent_id
        return found

    def teams(self, workspace: str) -> dict[str, Answer]:
        found: dict[str, Answer] = {}
        for fact in self.streams.get(ids.workspace_stream(workspace), ()):
            body = fact.body
            if isinstance(body, f.TeamChanged):
                name = body.spec.team_id
                found[name] = {
                    "id": name,
                    "uuid": ids.agent_uuid(workspace, name),
                    "version": body.team_version,
                    "spec": body.spec.model_dump(mode="json"),
                }
            elif isinstance(body, f.TeamDeleted):
                found.pop(body.team_id, None)
        return found


def _taken_over(fact: Fact, body: f.ThreadForked) -> Iterator[Fact]:
    """What a fork took over, as facts of its own: each has as many of the fork's numbers as its type wants."""
    given = list(body.numbers)
    for one in body.past:
        kind = f.FACTS[one.type]
        mine = kind.numbers_wanted if issubclass(kind, f.Numbered) else 0
        values = {**one.body, "numbers": given[:mine]} if mine else one.body
        del given[:mine]
        made = kind.model_validate(values)
        yield Fact(one.type, fact.stream, one.seq, fact.epoch, fact.workspace_id, one.time_ms, made)
    assert given == []


def _seq(fact: Fact) -> int:
    assert fact.seq is not None
    return fact.seq


def _speaks_in(body: f.FactBody, run: str) -> bool:
    """Whether a member of the team that answers in this run begins."""
    return isinstance(body, f.ChildStarted) and body.parent_run_id == run and body.member is not None


def _said(blocks: tuple[Block, ...]) -> str:
    return "".join(block.text for block in blocks if block.kind == "text")

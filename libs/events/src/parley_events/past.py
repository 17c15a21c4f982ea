"""A thread's past, as a fork takes it over: the facts that made its messages, moved to another thread. Pure.

`Past` takes the source's facts in their order and gives what `commands.ForkThread` brings along; `sound_past` checks
what came with a command, from whomever; `retelling` tells a past as facts of the fork.

A past keeps what the facts say and when they were put on record. Changed are: the ids, which are the fork's own; the
seqs (and the calls, which are seqs), moved down together so that the last is 0 and the fork's own go on with 1; the
integer ids, which are minted anew; and what means nothing there (timers). A run that had not ended is ended: it is not
gone on with in the fork.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import ValidationError

from parley_events import facts as f
from parley_events.body import Json, PastFact, Usage, json_bytes
from parley_events.ids import answer_id, fact_message_id, is_sha256, moved_id
from parley_events.upcast import upcast

MOST_FACTS = 10_000
"""The most facts that a fork may take over: about a thousand questions with their answers. Each is looked at in one
step of a dispatcher, which does nothing else meanwhile."""
MOST_BYTES = 16 * 1024 * 1024
"""The most that they may have together, as JSON."""
REASON = "the thread was forked here"
NOT_KNOWN = "The outcome of this call is not known here: nothing had come back of it when the thread was forked."
NOT_MADE = "This call was not made: the thread was forked before."
NO_RESULT = "The client gave no result of this call: the thread was forked before."

KEPT: frozenset[str] = frozenset(
    {
        f.MessagePosted.type,
        f.ChildStarted.type,
        f.ModelCalled.type,
        f.ModelReturned.type,
        f.ModelFailed.type,
        f.ToolCalled.type,
        f.ToolReturned.type,
        f.ToolAnswered.type,
        f.ToolExpired.type,
        f.ToolSettled.type,
        f.RunWaiting.type,
        f.ApprovalRequested.type,
        f.ApprovalAnswered.type,
        f.ApprovalExpired.type,
        f.RunCancelling.type,
        f.ThreadCancelling.type,
        *f.RUN_ENDS,
    }
)
"""The types of facts that a past has: all that is on record of runs."""

_STARTS = (f.MessagePosted.type, f.ChildStarted.type)
_SEQS = ("call", "shown")
_AS_THEY_ARE = ("tool_call_id", "effect_key")
"""Fields whose values are the model's, or the world's."""
_OWN: Mapping[str, Json] = {
    f.MessagePosted.type: {"opened": None, "workspace_seq": None},
    f.ModelCalled.type: {"due_at_ms": None},
    f.ToolCalled.type: {"due_at_ms": None},
    f.RunWaiting.type: {"due_at_ms": None},
}
"""What a fact of this type does not take along."""


class PastTooLarge(Exception):
    """There is more than a fork may take over."""


class Told(NamedTuple):
    """A stored fact: its body as JSON, of `version`."""

    seq: int
    type: str
    version: int
    time_ms: int
    body: Json


def told(one: Told) -> Iterator[Told]:
    """The facts that a stored fact tells of its thread: itself, or, where it is a fork, first what it took over."""
    if one.type == f.ThreadForked.type:
        for past in one.body["past"]:
            yield Told(past["seq"], past["type"], past["version"], past["time_ms"], past["body"])
    yield one


@dataclass(slots=True)
class _Call:
    """A call of a tool: `effect` once it was made, `open` until it has a result."""

    tool_call_id: str
    name: str
    effect: str | None = None
    open: bool = True


@dataclass(slots=True)
class _Run:
    answer_id: str
    ended: bool = False
    usage: Usage = field(default_factory=Usage)
    calls: dict[tuple[int, int], _Call] = field(default_factory=dict)


class Past:
    """What a fork takes over of `source`, as far as it was read. `by`: who forks."""

    def __init__(self, source: str, fork: str, by: str) -> None:
        self._source, self._fork, self._by = source, fork, by
        self._kept: list[Told] = []
        self._runs: dict[str, _Run] = {}
        self._size = 0

    def take(self, one: Told) -> None:
        """The next fact of the source, in the order of their seqs. Raises PastTooLarge."""
        if one.type == f.ThreadCleared.type:
            self._kept.clear()
            self._runs.clear()
            self._size = 0
        if one.type not in KEPT:
            return
        run_id = one.body.get("run_id", "")
        if one.type == f.MessagePosted.type or (
            one.type == f.ChildStarted.type and one.body.get("parent_run_id") in self._runs
        ):
            self._runs[run_id] = _Run(one.body.get("answer_id") or answer_id(run_id))
        run = self._runs.get(run_id)
        if run is not None:
            _note(run, one)
        elif one.type != f.ThreadCancelling.type or not self._runs:
            return  # of a run that was cleared away
        self._kept.append(one)
        self._size += len(json_bytes(one.body))
        _check_count(len(self._kept))
        if self._size > MOST_BYTES:
            raise PastTooLarge(f"more than {MOST_BYTES // 2**20} MiB")

    def made(self) -> tuple[PastFact, ...]:
        """All that was taken, as facts of the fork; the runs that had not ended end with it. Raises PastTooLarge."""
        if not self._kept:
            return ()
        last = self._kept[-1]
        ends = [body for run_id in reversed(self._runs) for body in self._end(run_id, self._runs[run_id])]
        whole = [*self._kept]
        for number, body in enumerate(ends, 1):
            seq, data = last.seq + number, body.model_dump(mode="json")
            if isinstance(body, f.ToolReturned):
                data["message_id"] = fact_message_id(self._source, seq)
            whole.append(Told(seq, body.type, body.version, last.time_ms, data))
        _check_count(len(whole))
        down = whole[-1].seq
        return tuple(
            PastFact(
                seq=one.seq - down,
                type=one.type,
                version=one.version,
                time_ms=one.time_ms,
                body=self._moved(one.type, one.body, down),
            )
            for one in whole
        )

    def _end(self, run_id: str, run: _Run) -> Iterator[f.FactBody]:
        """The facts with which a run ends here that was open."""
        if run.ended:
            return
        for (call, index), use in run.calls.items():
            if use.open:
                status, result = _left(use)
                yield f.ToolReturned(
                    run_id=run_id,
                    call=call,
                    index=index,
                    tool_call_id=use.tool_call_id,
                    name=use.name,
                    status=status,
                    result=result,
                )
        yield f.RunCancelled(run_id=run_id, message_id=run.answer_id, by=self._by, reason=REASON, usage=run.usage)

    def _moved(self, kind: str, body: Json, down: int) -> Json:
        content = f.FACTS[kind].content
        moved: Json = {}
        for name, value in body.items():
            if name in _SEQS and isinstance(value, int):
                moved[name] = value - down
            elif name not in ("numbers", *content, *_AS_THEY_ARE):
                moved[name] = self._renamed(value, down)
            elif name != "numbers":
                moved[name] = value
        return moved | _OWN.get(kind, {})

    def _renamed(self, value: Any, down: int) -> Any:
        """An id of the source's as one of the fork's; everything else as it is."""
        if isinstance(value, str) and value.startswith(f"{self._source}."):
            return moved_id(value, self._fork, down)
        return [self._renamed(one, down) for one in value] if isinstance(value, list) else value


def _check_count(count: int) -> None:
    if count > MOST_FACTS:
        raise PastTooLarge(f"more than {MOST_FACTS} facts")


def _note(run: _Run, one: Told) -> None:
    """What a fact says of how its run stands."""
    body = one.body
    place = (body.get("call") or 0, body.get("index") or 0)
    if one.type in (f.ModelReturned.type, f.ModelFailed.type):
        run.usage = run.usage + Usage.model_validate(body.get("usage") or {})
    if one.type == f.ModelReturned.type:
        asked = [block for block in body.get("blocks") or () if block.get("kind") == "tool"]
        for index, block in enumerate(asked):
            run.calls[place[0], index] = _Call(block.get("tool_call_id") or "", block.get("name") or "")
    elif one.type == f.ToolCalled.type:
        use = run.calls.setdefault(place, _Call(body.get("tool_call_id", ""), body.get("name", "")))
        use.effect, use.open = body.get("effect"), True
    elif one.type in (f.ToolReturned.type, f.ToolAnswered.type):
        if place in run.calls:
            run.calls[place].open = False
    elif one.type in f.RUN_ENDS:
        run.ended = True


def _left(use: _Call) -> tuple[Any, str]:
    """What a call has in place of a result, as status and text."""
    if use.effect is None:
        return "cancelled", NOT_MADE
    return ("cancelled", NO_RESULT) if use.effect == "client" else ("unknown", NOT_KNOWN)


# ---- what came with a command


def body_of(one: PastFact) -> f.FactBody:
    """The body of a fact of a past. ValueError: it is none, or of a newer version than this code knows."""
    kind = f.FACTS.get(one.type) if one.type in KEPT else None
    if kind is None:
        raise ValueError(f"a past has no {one.type[:100]!r}")
    if not 1 <= one.version <= kind.version:
        raise ValueError(f"{one.type}: version {one.version} is not among those that this code knows")
    values = one.body if one.version == kind.version else upcast(one.type, one.version, kind.version, one.body)
    return kind.model_validate(values)


def sound_past(past: tuple[PastFact, ...]) -> tuple[PastFact, ...]:
    """The past, if it is one that `Past` could have made; ValueError says what is wrong with it, and quotes nothing. A
    command may come from anyone who may write the topic, and what a view cannot hold would stop the projector."""
    if len(past) > MOST_FACTS:
        raise ValueError(f"a past may have at most {MOST_FACTS} facts")
    runs: set[str] = set()
    for place, one in enumerate(past):
        if place and one.seq <= past[place - 1].seq:
            raise ValueError("the seqs of a past must rise")
        try:
            body: Any = body_of(one)
        except ValidationError:
            raise ValueError(f"a {one.type} of the past is not what its version says") from None
        except (LookupError, TypeError, AttributeError):
            raise ValueError(f"a {one.type} of the past cannot be read") from None
        if one.type in _STARTS:
            runs.add(body.run_id)
        elif one.type != f.ThreadCancelling.type and body.run_id not in runs:
            raise ValueError("a past has facts of runs that it does not have")
        for file in (*getattr(body, "attachments", ()), *getattr(body, "files", ())):
            if not is_sha256(file.sha256) or not 0 <= file.size <= 2**53:
                raise ValueError("a file of the past is none")
    if past and past[-1].seq != 0:
        raise ValueError("the last seq of a past must be 0")
    return past

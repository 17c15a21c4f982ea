"""The guards that Parley stands on, each taken out on demand within a process: what the suite must then notice.

`GUARDS` is the whole list. Taking one out changes this process alone, in memory; where the code is not as it was when
this was written the process ends at once, so that no guard is only seemingly out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True, slots=True)
class Guard:
    """`what` it keeps from happening; `takers`: how it is taken out, per service."""

    name: str
    what: str
    takers: dict[str, Callable[[], None]]

    def take_out(self, kind: str) -> None:
        """Take it out of this process, if that is a service which has it."""
        if kind in self.takers:
            self.takers[kind]()


def _believe_every_epoch() -> None:
    from parley_events.facts import PartitionClaimed
    from parley_events.fence import FactFence, PieceFence

    def fact(self: Any, offset: int, kind: str, epoch: int) -> bool:
        if kind == PartitionClaimed.type:
            self.epoch = offset
        return True

    def piece(self: Any, epoch: int) -> bool:
        return True

    FactFence.accepts = fact  # type: ignore[method-assign]
    PieceFence.accepts = piece  # type: ignore[method-assign]


_COMPARED = " AND p.next_offset = w.from_offset AND p.epoch = w.from_epoch"


def _move_without_looking() -> None:
    from parley_history.writes import SQL

    if _COMPARED not in SQL["move"]:
        raise SystemExit("the statement that moves positions has changed: tell unguarded.py what compares there now")
    SQL["move"] = SQL["move"].replace(_COMPARED, "")


def _read_nothing_back() -> None:
    from parley_dispatcher.owner import Owner

    async def read_back(self: Any, fact: Any) -> None:
        return None

    Owner.read_back = read_back  # type: ignore[method-assign]


def _remember_no_command() -> None:
    from parley_dispatcher import owner

    decide: Callable[..., Any] = vars(owner)["decide"]

    def forgetful(state: Any, command: Any, *more: Any, **others: Any) -> Any:
        state.outcomes.pop(command.id, None)
        return decide(state, command, *more, **others)

    vars(owner)["decide"] = forgetful


def _intend_nothing() -> None:
    from parley_dispatcher.journal import Journal
    from parley_events.facts import ToolCalled

    append: Callable[..., Any] = Journal.append

    def silent(self: Any, owner: Any, state: Any, run: Any, body: Any, *more: Any, **others: Any) -> Any:
        if isinstance(body, ToolCalled) and body.effect not in ("read_only", "client"):
            # As a fact that was read back long ago: nothing is waited for.
            return SimpleNamespace(seq=0, stream=state.stream, type=body.type, body=body)
        return append(self, owner, state, run, body, *more, **others)

    Journal.append = silent  # type: ignore[method-assign]


def _fold_every_seq() -> None:
    from parley_history import projector

    def everything(batch: Any, seqs: Any) -> tuple[list[Any], dict[str, tuple[str, int]]]:
        return list(batch.facts), {fact.stream: (fact.workspace_id, row.seq) for fact, row in batch.facts}

    if "new_facts" not in vars(projector):
        raise SystemExit("the projector drops what it has elsewhere now: tell unguarded.py where")
    vars(projector)["new_facts"] = everything


def _show_every_seq() -> None:
    from parley_gateway.feed.follow import Follow

    fact: Callable[..., Any] = Follow.fact

    def again(self: Any, item: Any, *more: Any, **others: Any) -> Any:
        if item.seq is not None and item.seq <= self.seq:
            self.seq = item.seq - 1
        return fact(self, item, *more, **others)

    Follow.fact = again  # type: ignore[method-assign, assignment]


_EVERYWHERE = ("dispatcher", "history", "gateway")

GUARDS: dict[str, Guard] = {
    guard.name: guard
    for guard in (
        Guard(
            "epoch",
            "facts and pieces of a superseded owner are dropped by every reader",
            dict.fromkeys(_EVERYWHERE, _believe_every_epoch),
        ),
        Guard(
            "compare_and_set",
            "a projector moves a position only from where it stands",
            {"history": _move_without_looking},
        ),
        Guard(
            "read_back",
            "an effect begins only once its intent was read back with no newer claim before it",
            {"dispatcher": _read_nothing_back},
        ),
        Guard(
            "dedupe",
            "a command that was decided before is recognised by its id",
            {"dispatcher": _remember_no_command},
        ),
        Guard(
            "intent",
            "what cannot be taken back is on record before it is done",
            {"dispatcher": _intend_nothing},
        ),
        Guard(
            "seq",
            "readers drop a seq that they have",
            {"history": _fold_every_seq, "gateway": _show_every_seq},
        ),
    )
}
"""Every guard, by its name."""


def same_tool_ids() -> None:
    """Not a guard: the scripted model gives all tools of a turn one id, where the message says `#same-ids`."""
    from parley_dispatcher.providers.base import Used
    from parley_dispatcher.providers.scripted import ScriptedModel

    stream: Callable[..., Any] = ScriptedModel.stream

    async def doubled(self: Any, request: Any) -> Any:
        same = "#same-ids" in request.question
        async for event in stream(self, request):
            yield replace(event, tool_call_id=f"call_{request.call_id}") if same and isinstance(event, Used) else event

    ScriptedModel.stream = doubled  # type: ignore[method-assign]

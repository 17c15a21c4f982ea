"""A run of the suite in which everything broke and every promise was kept: the checker finds nothing in it.

Thread 1: a run with tools of two kinds, taken over in the middle of its second turn; a second run, queued meanwhile and
cancelled at once; a third, cancelled while a tool that may not be repeated was under way. Thread 2: an approval, and a
tool that the client runs. Beside them a command that nobody can read, and one that was tried twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from parley_events import commands as c
from parley_events import facts as f
from parley_events import ids
from parley_events.body import Block, Usage
from tests.faults.evidence import Evidence, Execution, Fault, Follower, Request
from tests.unit.faults.made import ANN, T0, Made, partition, thread

ONE, TWO = thread(1), thread(2)
LEDGER_TOOLS = ("ledger__pay", "ledger__book")


@dataclass(frozen=True, slots=True)
class Sound:
    """The evidence, and what tests break in it."""

    evidence: Evidence
    first: str
    queued: str
    cancelled: str
    parked: str
    pay_key: str
    book_key: str
    late_key: str


def tool(call_id: str, name: str, **arguments: int) -> Block:
    return Block(kind="tool", tool_call_id=call_id, name=name, arguments=arguments)


def sound() -> Sound:
    """All of it."""
    made = Made()
    number = partition(ONE)
    made.garbage(number)
    old = made.claim(number)
    if partition(TWO) != number:
        made.claim(partition(TWO))
    first, pay, book = _first_run(made, old)
    queued = made.post(ONE, "c2", "second")
    _taken_over(made, first, old)
    cancelled, late = _cancelled(made, queued)
    parked, third = _parked(made)
    ledger = (
        Execution(pay, "ledger__pay", {"n": 0}, "unsafe", T0 + 90),
        Execution(book, "ledger__book", {"n": 1}, "idempotent", T0 + 91, answered=False),
        Execution(book, "ledger__book", {"n": 1}, "idempotent", T0 + 95, applied=False),
        Execution(late, "ledger__pay", {"n": 0}, "unsafe", T0 + 200, answered=False),
        Execution(third, "ledger__pay", {"n": 7}, "unsafe", T0 + 300),
    )
    evidence = made.evidence(
        ledger=ledger,
        ledger_tools=LEDGER_TOOLS,
        followers=_followers(made, first, cancelled, parked),
        requests=_requests(first, cancelled),
        faults=(Fault("SIGKILL", "dispatcher 1", 100, T0 + 100, 160, T0 + 160, (TWO,), (ONE,)),),
    )
    evidence.views["approvals"] = (
        {
            "id": ids.approval_id(TWO, 4),
            "thread_id": TWO,
            "run_id": parked,
            "seq": 4,
            "tool_call_id": "t2.0",
            "name": "ledger__pay",
            "arguments": {"n": 0},
            "question": "Pay?",
            "input_schema": None,
            "who": [],
            "due_ms": T0 + 10_000,
            "status": "approved",
            "answered_by": "ann",
            "comment": "go on",
            "edited": {"n": 7},
        },
    )
    return Sound(evidence, first, queued, cancelled, parked, pay, book, late)


def _first_run(made: Made, epoch: int) -> tuple[str, str, str]:
    """Up to the middle of its second turn, in which the dispatcher dies."""
    run = made.post(ONE, "c1", "first")
    call = made.call(run)
    made.piece(ONE, call, "Let me ")
    made.piece(ONE, call, "pay.", at=7)
    made.returns(
        run,
        call,
        0,
        Block(kind="text", text="Let me pay."),
        tool(f"t{call}.0", "ledger__pay", n=0),
        tool(f"t{call}.1", "ledger__book", n=1),
    )
    pay = made.tool(run, call, 0, "ledger__pay", "unsafe")
    book = made.tool(run, call, 1, "ledger__book", "idempotent")
    made.result(run, call, 0, "ledger__pay")
    made.result(run, call, 1, "ledger__book")
    again = made.call(run, turn=1)
    made.piece(ONE, again, "All is ")
    made.piece(ONE, again, "lost", at=7)
    return run, pay, book


def _taken_over(made: Made, run: str, old: int) -> None:
    """Another dispatcher goes on; what the first one still writes does not count, and commands are read twice."""
    made.claim(partition(ONE), "two")
    made.complete(run, epoch=old)
    repeated = f.CommandRepeated(
        command_type="message.post", outcome_type="message.posted", outcome_seq=1, outcome_time_ms=T0, first={"a": 1}
    )
    made.write(ONE, repeated, causation_id="c1")
    call = made.call(run, turn=1, attempt=2)
    made.piece(ONE, call, "All is ")
    made.piece(ONE, call, "well.", at=7)
    made.returns(run, call, 1, Block(kind="text", text="All is well."))
    made.complete(run)


def _cancelled(made: Made, queued: str) -> tuple[str, str]:
    """The queued run is cancelled at once, the one after it while it pays: what came of that nobody knows."""
    made.ask(ONE, c.CancelRun(principal=ANN, run_id=queued), "c3")
    _end(made, queued, causation_id="c3")
    run = made.post(ONE, "c4", "third")
    made.ask(ONE, made_post(), "c4")  # the same request again: its key has the same command id
    again = f.CommandRepeated(
        command_type="message.post", outcome_type="message.posted", outcome_seq=1, outcome_time_ms=T0, first={"a": 1}
    )
    made.write(ONE, again, causation_id="c4")
    call = made.call(run)
    made.returns(run, call, 0, tool(f"t{call}.0", "ledger__pay", n=0))
    key = made.tool(run, call, 0, "ledger__pay", "unsafe")
    made.ask(ONE, c.CancelRun(principal=ANN, run_id=run), "c5")
    made.write(ONE, f.RunCancelling(run_id=run, by="ann"), causation_id="c5")
    made.result(run, call, 0, "ledger__pay", "unknown")
    _end(made, run)
    made.ask(ONE, c.CancelRun(principal=ANN, run_id=run), "c6")
    refused = f.CommandRejected(command_type="run.cancel", code="not_open", message="the run has ended")
    made.write(ONE, refused, causation_id="c6")
    return run, key


def made_post() -> c.PostMessage:
    return c.PostMessage(principal=ANN, text="third")


def _end(made: Made, run: str, causation_id: str | None = None) -> None:
    body = f.RunCancelled(run_id=run, message_id=ids.answer_id(run), by="ann", usage=Usage())
    made.write(run[:36], body, causation_id=causation_id)


def _parked(made: Made) -> tuple[str, str]:
    """An approval with other arguments than were asked about, and a tool of the client: answered one by one."""
    run = made.post(TWO, "d1", "pay and tell me the weather")
    call = made.call(run)
    made.returns(run, call, 0, tool(f"t{call}.0", "ledger__pay", n=0), tool(f"t{call}.1", "get_weather", n=1))
    asked = f.ApprovalRequested(
        run_id=run,
        call=call,
        index=0,
        tool_call_id=f"t{call}.0",
        name="ledger__pay",
        arguments={"n": 0},
        question="Pay?",
        due_at_ms=T0 + 10_000,
    )
    seq = made.write(TWO, asked)
    made.tool(run, call, 1, "get_weather", "client", due_at_ms=T0 + 10_000)
    wait = f.RunWaiting(run_id=run, waits_for="approval", tool_call_ids=(f"t{call}.0", f"t{call}.1"))
    made.write(TWO, wait)
    approval = ids.approval_id(TWO, seq)
    answer = c.AnswerApproval(principal=ANN, approval_id=approval, decision="approve", arguments={"n": 7})
    made.ask(TWO, answer, "d2")
    answered = f.ApprovalAnswered(
        approval_id=approval, run_id=run, decision="approve", by="ann", comment="go on", arguments={"n": 7}
    )
    made.write(TWO, answered, causation_id="d2")
    key = made.tool(run, call, 0, "ledger__pay", "unsafe", arguments={"n": 7})
    made.result(run, call, 0, "ledger__pay")
    made.write(TWO, wait.model_copy(update={"waits_for": "client_tool", "tool_call_ids": (f"t{call}.1",)}))
    made.ask(TWO, c.AnswerTool(principal=ANN, tool_call_id=f"t{call}.1", result="sunny"), "d3")
    told = f.ToolAnswered(run_id=run, tool_call_id=f"t{call}.1", result="sunny", call=call, index=1)
    made.write(TWO, told, causation_id="d3")
    last = made.call(run, turn=1)
    made.piece(TWO, last, "Paid, and")
    made.returns(run, last, 1, Block(kind="text", text="Paid, and sunny."))
    made.complete(run)
    return run, key


def _followers(made: Made, first: str, cancelled: str, parked: str) -> tuple[Follower, ...]:
    return (
        made.follow("stays", "threads", first, ONE),
        made.follow("comes back", "threads", first, ONE, cuts=(3, 1, 4, 3)),
        made.follow("whole thread", "threads", None, ONE, cuts=(9,)),
        made.follow("organisation", "org_chat", first, ONE, cuts=(2, 4)),
        made.follow("cancelled", "threads", cancelled, ONE, cuts=(2,)),
        made.follow("waits", "threads", parked, TWO, cuts=(4, 5)),
    )


def _requests(first: str, cancelled: str) -> tuple[Request, ...]:
    path = f"/api/v1/chat/threads/{ONE}/messages"
    answer = {"thread_id": ONE, "message_id": ids.question_id(ONE, "c4"), "run_id": cancelled}
    return (
        Request("a", "ann", 0, "POST", path, 1, {"content": "first"}, "k1", 202, {"run_id": first}),
        Request("a", "ann", 0, "POST", path, 2, {"content": "third"}, "k2"),
        Request("a", "ann", 0, "POST", path, 3, {"content": "third"}, "k2", 202, answer | {"position": f"{ONE}@1"}),
        Request("a", "ann", 1, "POST", path, 4, {"content": "third"}, "k2", 202, answer),
    )

"""Runs that wait, in whatever order things come: models, people, clients, timers, cancels, further messages.

The pure centre and what records for it, on one thread, without a log: a random life, and then its end. Whatever
happened, every run ends, nothing unapproved was called, and the model saw each call with one result.
"""

from __future__ import annotations

from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from parley_dispatcher.appender import Appender
from parley_dispatcher.decide import decide
from parley_dispatcher.dues import SESSION, fire
from parley_dispatcher.errors import NotOwner
from parley_dispatcher.journal import Journal, returned_of
from parley_dispatcher.parking import Parking
from parley_dispatcher.prompt import build_request
from parley_dispatcher.runs import Run, ToolUse
from parley_dispatcher.state import ThreadState, evolve
from parley_dispatcher.steps import CallModel, CallTools, Finish, Park, next_step
from parley_dispatcher.telemetry import Instruments
from parley_dispatcher.tools import TOOLS, tools_of
from parley_dispatcher.tools.base import Result
from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import Block, ClientTool, Limits, ThreadSeed, Usage
from parley_events.codec import Command, Fact
from tests.unit.dispatcher.story import DAY_MS, T0, THREAD
from tests.unit.dispatcher.test_appender import Sent
from tests.unit.dispatcher.world import ANN, WORKSPACE, agent

SPEC = agent(
    approvals=("publish", "locate"),
    client_tools=(ClientTool(name="get_weather"), ClientTool(name="locate", expires_s=3600)),
    limits=Limits(steps=30, seconds=3600),
)
NAMES = ["clock", "publish", "get_weather", "locate", "nowhere"]


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives that never has to wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


class Life:
    """A thread, and everything that may happen to it."""

    def __init__(self) -> None:
        self.state = ThreadState(THREAD)
        self.now_ms, self.commands = T0, 0
        self.facts: list[f.FactBody] = []
        self.records: list[Fact] = []
        self._appender = Appender(0, 1, 0, Sent(), lambda: self.now_ms)
        world: Any = SimpleNamespace(instruments=Instruments(), clock=lambda: self.now_ms)
        self._journal = Journal(world)
        self._parking = Parking(self._journal, lambda: self.now_ms)

    # ---- as an owner

    def append(self, state: ThreadState, body: f.FactBody, **envelope: Any) -> Any:
        fact = self._appender.append(state, body, workspace_id=WORKSPACE, **envelope)
        self.facts.append(fact.body)
        self.records.append(fact)
        return fact

    def taken_over(self) -> None:
        """The state as another owner would fold it, from the log alone."""
        again = ThreadState(THREAD)
        for fact in self.records:
            evolve(again, fact)
        assert again == self.state
        self.state = again

    async def keep(self, workspace_id: str, body: f.FactBody) -> None:
        return None

    # ---- what may happen

    def ask(self, body: c.CommandBody) -> f.FactBody:
        self.commands += 1
        command = Command(f"c{self.commands}", THREAD, WORKSPACE, self.now_ms, body, body_hash="h")
        outcome = decide(self.state, command, 1)
        self.append(self.state, outcome, causation_id=command.id, body_hash="h")
        return outcome

    def post(self) -> None:
        self.ask(c.PostMessage(principal=ANN, text="hello", agent_id="scripted", open=ThreadSeed(user_id="ann")))

    def fire_all(self) -> None:
        """Every key that history could ever have listed, now."""
        keys = [SESSION, *self.state.approvals, *self.state.runs]
        keys += [use.message_id for run in self.state.runs.values() for _, use in run.uses()]
        for key in keys:
            body = fire(self.state, key, self.now_ms)
            if body is not None:
                self.append(self.state, body)
                assert fire(self.state, key, self.now_ms) is None, "each fires once"

    def step(self, said: list[str], calls_at_once: int = 10) -> bool:
        """What the run's task would do next; whether there was anything."""
        run = self.state.current()
        for stopping in [one for one in self.state.open_runs.values() if one.status == "cancelling"]:
            self._journal.finish_cancelled(self, self.state, stopping)  # type: ignore[arg-type]
            return True
        step = None if run is None else next_step(run, SPEC.limits, self.now_ms)
        if run is None or step is None:
            return False
        match step:
            case Finish():
                self._journal.finish(self, self.state, run, step.body)  # type: ignore[arg-type]
            case Park():
                assert run.waiting and run.expires_ms is not None, "every park expires"
                self.append(self.state, step.body)
            case CallModel():
                self._model(run, step, said)
            case CallTools():
                work = self._parking.begin(self, self.state, run, step, SPEC, tools_of(SPEC))  # type: ignore[arg-type]
                for use in at_once(work)[:calls_at_once]:
                    self._call(run, step.call, use)
        return True

    def _model(self, run: Run, step: CallModel, said: list[str]) -> None:
        request = build_request(self.state, run, SPEC, None, [], step.attempt)
        check_results(request.messages)
        called = self.append(
            self.state,
            f.ModelCalled(
                run_id=run.run_id,
                turn=step.turn,
                attempt=step.attempt,
                agent_id="scripted",
                agent_version=1,
                model="scripted",
                shown=self.state.seq,
                due_at_ms=run.deadline_ms(SPEC.limits.seconds, self.now_ms),
            ),
        )
        arguments = {"publish": {"text": "x"}}
        blocks = [
            Block(kind="tool", tool_call_id=f"t{step.turn}{place}", name=name, arguments=arguments.get(name, {}))
            for place, name in enumerate(said)
        ]
        returned = f.ModelReturned(
            run_id=run.run_id,
            call=called.seq or 0,
            turn=step.turn,
            blocks=tuple(blocks),
            stop_reason="tool_use" if blocks else "end_turn",
            usage=Usage(),
        )
        self.append(self.state, returned)

    def _call(self, run: Run, call: int, use: ToolUse) -> None:
        assert use.name in ("clock", "publish", "nowhere"), "the client runs its own"
        called = f.ToolCalled(
            run_id=run.run_id,
            call=call,
            index=use.index,
            tool_call_id=use.tool_call_id,
            name=use.name,
            arguments=use.given,
            effect="unsafe" if use.name == "publish" else "read_only",
            effect_key="k",
        )
        self.append(self.state, called)
        status = "ok" if use.name in TOOLS else "error"
        self.append(self.state, returned_of(run, call, use, status, Result("done")))


def check_results(messages: list[Any]) -> None:
    """Every call that the model is shown has exactly one result, in the next message."""
    for place, message in enumerate(messages):
        used = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        told = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
        before = messages[place - 1]["content"] if place else []
        assert told == [block["id"] for block in before if block["type"] == "tool_use"]
        assert not used or place + 1 < len(messages)


WEIGHTS = ["step"] * 14 + ["answer"] * 5 + ["result"] * 5 + ["post"] * 2 + ["cancel", "thread", "timers", "takeover"]


def happen(life: Life, draw: st.DrawFn) -> None:
    """One thing, of all that may happen now."""
    life.now_ms += draw(st.sampled_from([1, 1, 1, 1000, 1000, 1_000_000, 3_700_000, DAY_MS]))
    open_runs = list(life.state.open_runs)
    match draw(st.sampled_from(WEIGHTS)):
        case "step":
            life.step(draw(st.lists(st.sampled_from(NAMES), max_size=4)), draw(st.integers(1, 3)))
        case "answer" if life.state.approvals:
            approval = draw(st.sampled_from(sorted(life.state.approvals)))
            decision: Any = draw(st.sampled_from(["approve", "deny"]))
            life.ask(c.AnswerApproval(principal=ANN, approval_id=approval, decision=decision))
        case "result" if open_runs:
            run = life.state.runs[draw(st.sampled_from(open_runs))]
            ids = sorted({use.tool_call_id for _, use in run.uses()})
            if ids:
                life.ask(c.AnswerTool(principal=ANN, tool_call_id=draw(st.sampled_from(ids)), result="rain"))
        case "post":
            life.post()
        case "cancel" if open_runs:
            life.ask(c.CancelRun(principal=ANN, run_id=draw(st.sampled_from(open_runs))))
        case "thread":
            life.ask(c.CancelThread(principal=ANN))
        case "timers":
            life.fire_all()
        case "takeover":
            life.taken_over()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_happens_every_run_ends_and_nothing_unapproved_is_called(data: st.DataObject) -> None:
    life = Life()
    life.post()
    for _ in range(data.draw(st.integers(1, 40))):
        try:
            happen(life, data.draw)  # type: ignore[arg-type]
        except NotOwner:
            assert any(run.stopped for run in life.state.runs.values())
    # Nobody says anything any more: time alone brings everything to its end.
    for _ in range(200):
        for _ in range(1000):
            if not life.step([]):
                break
        if not life.state.open_runs:
            break
        life.now_ms += DAY_MS
        life.fire_all()
    assert not life.state.open_runs
    check(life.facts)


def check(facts: list[f.FactBody]) -> None:
    approved: set[str] = set()
    asked: dict[tuple[str, int, int], str] = {}
    results: list[tuple[str, int, int]] = []
    ends: list[str] = []
    stopped: set[str] = set()
    for body in facts:
        match body:
            case f.ApprovalRequested():
                assert body.run_id not in stopped, "nobody is asked after a cancel"
                asked[body.run_id, body.call, body.index] = body.approval_id
            case f.ApprovalAnswered():
                if body.decision == "approve":
                    approved.add(body.approval_id)
            case f.ToolCalled():
                assert body.run_id not in stopped, "no effect starts after a cancel"
                if body.name in ("publish", "locate"):
                    assert asked[body.run_id, body.call, body.index] in approved
            case f.ToolReturned():
                results.append((body.run_id, body.call, body.index))
                assert body.run_id not in ends, "a result after its run's end"
            case f.ToolAnswered():
                results.append((body.run_id, body.call or 0, body.index or 0))
            case f.RunCancelling():
                stopped.add(body.run_id)
            case f.ThreadCancelling():
                stopped.update(body.run_ids)
            case f.RunCompleted() | f.RunFailed() | f.RunCancelled():
                ends.append(body.run_id)
    posted = [body.run_id for body in facts if isinstance(body, f.MessagePosted)]
    assert sorted(ends) == sorted(posted), "each run ends once"
    assert len(results) == len(set(results)), "a call has one result"

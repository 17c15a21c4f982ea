"""Given facts, when a command, then its outcome: a stream told by its facts alone, numbered as the appender does."""

from __future__ import annotations

from typing import Any

from parley_dispatcher.decide import decide
from parley_dispatcher.state import Run, State, ThreadState, ToolUse, WorkspaceState, evolve, initial
from parley_events import commands as c
from parley_events import facts as f
from parley_events import ids
from parley_events.body import Author, Block, ThreadSeed, Usage
from parley_events.codec import Command, Fact
from tests.unit.dispatcher.world import ANN, WORKSPACE, agent

THREAD = "00000000-0000-4000-8000-000000000001"
STREAM = f"ws:{WORKSPACE}"
T0 = 1_760_000_000_000
DAY_MS = 86_400_000


class Story:
    """A stream and its state. `happened` folds facts in; `asked` decides a command and folds its outcome in."""

    def __init__(self, stream: str = THREAD, *facts: f.FactBody) -> None:
        self.state: State = initial(stream)
        self.now_ms = T0
        for body in facts:
            self.happened(body)

    @property
    def thread(self) -> ThreadState:
        assert isinstance(self.state, ThreadState)
        return self.state

    @property
    def workspace(self) -> WorkspaceState:
        assert isinstance(self.state, WorkspaceState)
        return self.state

    def happened(self, body: f.FactBody, **envelope: Any) -> int:
        """The seq of the fact (0: it has none)."""
        numbered = body.type not in f.UNNUMBERED
        fact = Fact(
            type=body.type,
            stream=self.state.stream,
            seq=self.state.seq + 1 if numbered else None,
            epoch=0,
            workspace_id=WORKSPACE,
            time_ms=self.now_ms,
            body=body,
            **envelope,
        )
        evolve(self.state, fact)
        return fact.seq or 0

    def asked(self, body: c.CommandBody, command_id: str = "c1", *, version: int | None = 1, **more: Any) -> Any:
        """The outcome of a command."""
        envelope = {
            "id": command_id,
            "stream": self.state.stream,
            "workspace_id": WORKSPACE,
            "body_hash": "hash",
        } | more
        command = Command(time_ms=self.now_ms, body=body, **envelope)
        outcome = decide(self.state, command, version)
        self.happened(outcome, causation_id=command.id, body_hash=command.body_hash)
        return outcome

    # ---- a thread's life, in facts

    def posted(self, name: str = "one", text: str = "hello", **more: Any) -> Run:
        """A message, and the run that answers it."""
        run = ids.run_id(self.state.stream, name)
        body = f.MessagePosted(
            message_id=ids.question_id(self.state.stream, name),
            run_id=run,
            answer_id=ids.answer_id(run),
            disposition="started",
            author=Author(id="ann"),
            agent_id="scripted",
            agent_version=1,
            text=text,
            opened=None if self.thread.exists else ThreadSeed(user_id="ann"),
            **more,
        )
        self.happened(body, causation_id=name, body_hash="hash")
        return self.thread.runs[run]

    def called(self, run: Run, attempt: int | None = None) -> int:
        return self.happened(
            f.ModelCalled(
                run_id=run.run_id,
                turn=len(run.turns),
                attempt=run.attempt + 1 if attempt is None else attempt,
                agent_id="scripted",
                agent_version=1,
                model="scripted",
                shown=self.state.seq,
            )
        )

    def returned(self, run: Run, *blocks: Block, stop: str = "end_turn") -> int:
        """A turn that said these blocks; its call."""
        call = run.call or self.called(run)
        self.happened(
            f.ModelReturned(
                run_id=run.run_id,
                call=call,
                turn=len(run.turns),
                blocks=blocks,
                stop_reason=stop,
                usage=Usage(input_tokens=3, output_tokens=2),
            )
        )
        return call

    def failed(self, run: Run, kind: str = "429", retry: bool = True, wait_ms: int = 100) -> None:
        self.happened(
            f.ModelFailed(
                run_id=run.run_id,
                call=run.call or self.called(run),
                turn=len(run.turns),
                attempt=run.attempt,
                kind=kind,
                message="no",
                usage=Usage(input_tokens=1),
                retry=retry,
                retry_after_ms=wait_ms if retry else 0,
            )
        )

    def tool_called(self, run: Run, index: int = 0) -> None:
        turn = run.turns[-1]
        use = turn.tools[index]
        self.happened(
            f.ToolCalled(
                run_id=run.run_id,
                call=turn.call,
                index=index,
                tool_call_id=use.tool_call_id,
                name=use.name,
                arguments=use.arguments,
                effect="unsafe",
                effect_key=f"key-{turn.call}-{index}",
            )
        )

    def tool_returned(self, run: Run, index: int = 0, status: str = "ok", result: str = "fine") -> None:
        turn = run.turns[-1]
        use = turn.tools[index]
        self.happened(
            f.ToolReturned.model_validate(
                {
                    "run_id": run.run_id,
                    "call": turn.call,
                    "index": index,
                    "tool_call_id": use.tool_call_id,
                    "name": use.name,
                    "status": status,
                    "result": result,
                }
            )
        )

    # ---- what waits

    def requested(self, run: Run, index: int = 0, **more: Any) -> str:
        """A person is asked about a call; the approval's id."""
        turn = run.turns[-1]
        use = turn.tools[index]
        fields: dict[str, Any] = {"arguments": use.arguments, "due_at_ms": self.now_ms + DAY_MS} | more
        seq = self.happened(
            f.ApprovalRequested(
                run_id=run.run_id,
                call=turn.call,
                index=index,
                tool_call_id=use.tool_call_id,
                name=use.name,
                approval_id=ids.approval_id(self.state.stream, self.state.seq + 1),
                **fields,
            )
        )
        return ids.approval_id(self.state.stream, seq)

    def handed_over(self, run: Run, index: int = 0) -> str:
        """A call of a tool that the client runs; its message's id."""
        turn = run.turns[-1]
        use = turn.tools[index]
        seq = self.happened(
            f.ToolCalled(
                run_id=run.run_id,
                call=turn.call,
                index=index,
                tool_call_id=use.tool_call_id,
                name=use.name,
                arguments=use.given,
                effect="client",
                effect_key=f"key-{turn.call}-{index}",
                due_at_ms=self.now_ms + 2 * DAY_MS,
            )
        )
        return ids.fact_message_id(self.state.stream, seq)

    def waiting(self, run: Run) -> None:
        self.happened(
            f.RunWaiting(
                run_id=run.run_id,
                waits_for=run.waits_for or "approval",
                tool_call_ids=tuple(use.tool_call_id for use in run.waiting),
            )
        )

    def decided(self, run: Run, use: ToolUse, move: str) -> None:
        """An approval is `approved`, `denied` or `approval_expired`."""
        assert use.asked is not None
        approval = use.asked.approval_id
        if move == "approval_expired":
            self.happened(f.ApprovalExpired(approval_id=approval, run_id=run.run_id))
            return
        decision: Any = "approve" if move == "approved" else "deny"
        self.happened(
            f.ApprovalAnswered(approval_id=approval, run_id=run.run_id, decision=decision, by="bob", comment="so")
        )

    def told(self, run: Run, use: ToolUse, move: str = "tool_answered") -> None:
        """A call of the client's is answered, or has expired."""
        call = run.turns[-1].call
        same: dict[str, Any] = {
            "run_id": run.run_id,
            "call": call,
            "index": use.index,
            "tool_call_id": use.tool_call_id,
        }
        if move == "tool_expired":
            self.happened(f.ToolExpired(**same))
            return
        pending = tuple(one.tool_call_id for one in run.waiting if one is not use and one.waits_for == "client_tool")
        self.happened(f.ToolAnswered(**same, result="rain", pending=pending))

    def settled(self, run: Run, use: ToolUse, happened: bool) -> None:
        [call] = [turn.call for turn, one in run.uses() if one is use]
        self.happened(
            f.ToolSettled(
                run_id=run.run_id,
                tool_call_id=use.tool_call_id,
                happened=happened,
                by="ann",
                call=call,
                index=use.index,
            )
        )

    # ---- ends

    def completed(self, run: Run) -> None:
        self.happened(
            f.RunCompleted(run_id=run.run_id, message_id=run.answer_id, stop_reason="end_turn", usage=run.usage)
        )

    def cancelling(self, run: Run) -> None:
        self.happened(f.RunCancelling(run_id=run.run_id, by="ann", reason="enough"))

    def cancelled(self, run: Run, *blocks: Block) -> None:
        self.happened(
            f.RunCancelled(
                run_id=run.run_id, message_id=run.answer_id, by="ann", call=run.call, blocks=blocks, usage=run.usage
            )
        )


def text(words: str) -> Block:
    return Block(kind="text", text=words)


def use(name: str = "clock", call_id: str = "t1", **more: Any) -> Block:
    return Block(kind="tool", tool_call_id=call_id, name=name, **more)


def workspace(*more: f.FactBody) -> Story:
    return Story(STREAM, f.WorkspaceCreated(workspace_id=WORKSPACE, name="default"), *more)


def changed(agent_id: str, version: int = 1, digest: str | None = None) -> f.AgentChanged:
    return f.AgentChanged(agent_version=version, spec=agent(agent_id), digest=digest)


def code(outcome: f.FactBody) -> str:
    """The code of a refusal."""
    assert isinstance(outcome, f.CommandRejected), outcome
    assert outcome.code in f.REJECTION_CODES
    assert outcome.message
    return outcome.code


SAY = c.PostMessage(principal=ANN, text="hello", agent_id="scripted", open=ThreadSeed(user_id="ann"))

"""Facts for tests: a writer that numbers them as a dispatcher does, and made-up stories of threads and workspaces."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, ClassVar

from parley_events import facts as f
from parley_events import ids
from parley_events.body import (
    AgentSpec,
    Attachment,
    Author,
    Block,
    McpServer,
    McpTool,
    Note,
    TeamSpec,
    ThreadSeed,
    Usage,
)
from parley_events.codec import Fact, encode_fact
from parley_events.log.port import Outgoing
from parley_events.partition import partition_of
from parley_events.past import Past, Told, told
from tests.contract.history.listlog import ListLog

START_MS = 1_750_000_000_000


def workspace(number: int) -> str:
    """The id of a workspace."""
    return f"00000000-0000-4000-8000-{number:012d}"


def thread(number: int) -> str:
    """The id of a thread."""
    return f"10000000-0000-4000-8000-{number:012d}"


@dataclass
class Writer:
    """Appends facts to a log: claims partitions, counts seqs and integer ids, moves a clock of its own."""

    log: ListLog
    now_ms: int = START_MS
    epochs: dict[int, int] = field(default_factory=dict)
    seqs: dict[str, int] = field(default_factory=dict)
    ticks: dict[int, int] = field(default_factory=dict)
    written: list[Fact] = field(default_factory=list)
    """Every fact that counts, in the order in which it was appended."""

    def claim(self, partition: int) -> int:
        """The new epoch of the partition."""
        body = f.PartitionClaimed(owner="test")
        fact = Fact(type=body.type, stream="", seq=None, epoch=-1, workspace_id="", time_ms=self.now_ms, body=body)
        self.epochs[partition] = self.log.append(encode_fact(fact, partition))
        return self.epochs[partition]

    def partition(self, stream: str) -> int:
        return partition_of(stream.encode(), self.log.partitions)

    def write(self, stream: str, workspace_id: str, body: f.FactBody, **envelope: str | int | None) -> Fact:
        """Append the next fact of a stream; the partition is claimed first where nobody holds it."""
        partition = self.partition(stream)
        if partition not in self.epochs:
            self.claim(partition)
        fact = self.make(stream, workspace_id, body, **envelope)
        offset = self.log.append(encode_fact(fact, partition))
        self.written.append(fact._replace(offset=offset))
        return fact

    def make(self, stream: str, workspace_id: str, body: f.FactBody, **envelope: str | int | None) -> Fact:
        """The next fact of a stream, numbered, not appended."""
        partition = self.partition(stream)
        self.now_ms += 7
        numbered = body.type not in f.UNNUMBERED
        if numbered:
            self.seqs[stream] = self.seqs.get(stream, 0) + 1
        if isinstance(body, f.Numbered):
            numbers = []
            for _ in range(body.wanted):
                self.ticks[partition] = self.ticks.get(partition, 0) + 1
                numbers.append(self.ticks[partition] * 256 + partition)
            body = body.model_copy(update={"numbers": tuple(numbers)})
        return Fact(
            type=body.type,
            stream=stream,
            seq=self.seqs[stream] if numbered else None,
            epoch=self.epochs.get(partition, -1),
            workspace_id=workspace_id,
            time_ms=self.now_ms,
            body=body,
            run_id=getattr(body, "run_id", None),
            **envelope,  # type: ignore[arg-type]
        )

    def resend(self, fact: Fact) -> None:
        """The same bytes again."""
        self.log.append(self.record(fact))

    def record(self, fact: Fact) -> Outgoing:
        return encode_fact(fact, self.partition(fact.stream))

    # ---- short forms

    def post(self, stream: str, workspace_id: str, text: str = "hello", *, command: str = "c1", **more: object) -> str:
        """A message; opens the thread where it is new. The run's id."""
        run = ids.run_id(stream, command)
        if stream not in self.seqs and "opened" not in more:
            more["opened"] = ThreadSeed(user_id="ada", agent_id="assistant")
        fields: dict[str, object] = {
            "message_id": ids.question_id(stream, command),
            "run_id": run,
            "answer_id": ids.answer_id(run),
            "disposition": "started",
            "author": Author(id="ada", name="Ada"),
            "agent_id": "assistant",
            "agent_version": 1,
            "text": text,
            **more,
        }
        self.write(stream, workspace_id, f.MessagePosted.model_validate(fields), causation_id=command)
        return run

    def turn(self, stream: str, workspace_id: str, run: str, text: str, number: int = 0) -> None:
        """A model turn that says something."""
        call = self.write(stream, workspace_id, model_called(run, number, shown=self.seqs[stream]))
        body = f.ModelReturned(
            run_id=run,
            call=call.seq or 0,
            turn=number,
            blocks=(Block(kind="thought", text="hm"), Block(kind="text", text=text)),
            stop_reason="end_turn",
            usage=Usage(input_tokens=3, output_tokens=5),
        )
        self.write(stream, workspace_id, body, call=call.seq)

    def complete(self, stream: str, workspace_id: str, run: str, usage: Usage | None = None) -> Fact:
        body = f.RunCompleted(
            run_id=run,
            message_id=ids.answer_id(run),
            stop_reason="end_turn",
            usage=usage or Usage(input_tokens=3, output_tokens=5),
        )
        return self.write(stream, workspace_id, body)


def model_called(
    run: str, turn: int, attempt: int = 1, shown: int = 1, version: int = 1, due_at_ms: int | None = None
) -> f.ModelCalled:
    """An attempt."""
    return f.ModelCalled(
        run_id=run,
        turn=turn,
        attempt=attempt,
        agent_id="assistant",
        agent_version=version,
        model="scripted",
        shown=shown,
        due_at_ms=due_at_ms,
    )


def random_story(seed: int, log: ListLog, steps: int) -> Writer:
    """A made-up history: several threads and workspaces at once, takeovers, zombies, resent bytes, noise."""
    rng = random.Random(seed)
    writer = Writer(log)
    open_runs: dict[str, list[str]] = {}
    gone: set[str] = set()
    turns: dict[str, int] = {}
    calls: dict[str, list[tuple[int, int, str]]] = {}
    unknown: dict[str, list[tuple[int, int, str]]] = {}
    numbers = list(range(6))
    for step in range(steps):
        number = rng.choice(numbers)
        stream, ws = thread(number), workspace(number % 2)
        partition = writer.partition(stream)
        chance = rng.random()
        if chance < 0.06:
            _noise(rng, writer, stream, ws, partition, step)
            continue
        if chance < 0.18:
            _workspace_fact(rng, writer, workspace(rng.randrange(2)), step)
            continue
        if stream in gone:
            for run in open_runs.get(stream, [])[:]:
                _end(rng, writer, stream, ws, run)
            open_runs[stream] = []
            continue
        if chance < 0.21 and stream in writer.seqs and len(numbers) < 12:
            numbers.append(2 * len(numbers) + number % 2)
            _fork(rng, writer, stream, thread(numbers[-1]), ws, step)
            continue
        runs = open_runs.setdefault(stream, [])
        if not runs or chance < 0.25:
            runs.append(_post(rng, writer, stream, ws, step, bool(runs)))
            continue
        if chance < 0.33:
            body = _thread_fact(rng, step)
            writer.write(stream, ws, body)
            if isinstance(body, f.ThreadDeleted):
                gone.add(stream)
            continue
        run = rng.choice(runs)
        if _step_of_run(rng, writer, stream, ws, run, turns, calls, unknown, runs):
            runs.remove(run)
    return writer


def _post(rng: random.Random, writer: Writer, stream: str, ws: str, step: int, busy: bool) -> str:
    more: dict[str, object] = {"disposition": "queued" if busy else "started"}
    if stream not in writer.seqs:
        owner, idle_s = rng.choice(["ada", "bob", None]), rng.choice([None, 1, 60])
        end_user = rng.choice([None, None, "kim"])
        seed = {"user_id": owner, "agent_id": "assistant", "idle_s": idle_s, "end_user": end_user}
        more["opened"] = ThreadSeed.model_validate({**seed, "team_id": rng.choice([None, None, "pair"])})
    if rng.random() < 0.2:
        more["context"] = {"step": step, "nul": "\x00"}
    if rng.random() < 0.2:
        more["system_prompt"] = f"be brief {step}"
    if rng.random() < 0.2:
        more["attachments"] = (_file(rng, step), Attachment(name="b", content_type="a/b", size=2, sha256="1" * 64))
    if rng.random() < 0.2:
        more |= {"lead_context": {"lead": step, "nul": "\x00"}, "knowledge_ids": (f"document-{step}",)}
    if rng.random() < 0.3:
        more["metadata"] = {"k": [step, None, "é"]}
    return writer.post(stream, ws, f"question {step} \x00 é", command=f"c{step}", **more)


def _fork(rng: random.Random, writer: Writer, source: str, fork: str, ws: str, step: int) -> None:
    """A new thread that begins with what another says, up to somewhere; also one that is a fork itself."""
    facts = [fact for fact in writer.written if fact.stream == source and fact.seq is not None]
    stored = [
        one
        for fact in facts
        for one in told(Told(fact.seq or 0, fact.type, 1, fact.time_ms, fact.body.model_dump(mode="json")))
    ]
    at = rng.choice([facts[-1].seq or 0, rng.choice(stored).seq])
    past = Past(source, fork, "ada")
    for one in stored:
        if one.seq <= at:
            past.take(one)
    seed = ThreadSeed(user_id="ada", agent_id="assistant", title=f"forked\x00 {step}", idle_s=rng.choice([None, 1, 60]))
    title = rng.choice([None, f"fork {step}"])
    writer.write(fork, ws, f.ThreadForked(source_thread_id=source, at=at, seed=seed, title=title, past=past.made()))


def _thread_fact(rng: random.Random, step: int) -> f.FactBody:
    choice = rng.randrange(8)
    if choice == 7:
        return f.ThreadCancelling(by="ada", reason="enough", run_ids=())
    if choice == 0:
        return f.ThreadUpdated(title=f"title {step}", pinned=True, changes=("title", "pinned"))
    if choice == 1:
        return f.ThreadUpdated(archived=rng.random() < 0.5, changes=("archived",))
    if choice == 2:
        return f.ThreadUpdated(metadata={"step": step}, changes=("metadata",))
    if choice == 3:
        return f.ThreadCleared()
    if choice == 4:
        return f.ThreadRead(user_id=("ada", "bob")[step % 2], up_to=step % 40)
    if choice == 5:
        return f.ThreadExpired(idle_since_ms=step)
    return f.ThreadDeleted() if rng.random() < 0.3 else f.ThreadUpdated(title=None, changes=("title",))


def _step_of_run(
    rng: random.Random,
    writer: Writer,
    stream: str,
    ws: str,
    run: str,
    turns: dict[str, int],
    calls: dict[str, list[tuple[int, int, str]]],
    unknown: dict[str, list[tuple[int, int, str]]],
    runs: list[str],
) -> bool:
    """One more fact of a run; whether it ended."""
    choice = rng.randrange(14)
    turn = turns.get(run, 0)
    pending = calls.setdefault(run, [])
    if choice <= 3:
        turns[run] = turn + 1
        if rng.random() < 0.3:
            due = rng.choice([None, writer.now_ms + 9000])
            writer.write(stream, ws, model_called(run, turn, version=rng.randrange(1, 4), due_at_ms=due))
            body = f.ModelFailed(
                run_id=run,
                call=writer.seqs[stream],
                turn=turn,
                attempt=rng.randrange(1, 4),
                kind="overloaded",
                message="busy",
                usage=Usage(input_tokens=1),
                retry=True,
            )
            writer.write(stream, ws, body)
        else:
            writer.turn(stream, ws, run, f"answer {turn} é", turn)
    elif choice == 4:
        call = (writer.seqs[stream], len(pending), f"call-{rng.randrange(3)}")
        pending.append(call)
        effect: Any = rng.choice(["idempotent", "client", "client"])
        due = rng.choice([None, writer.now_ms + 3000])
        writer.write(stream, ws, _tool_called(run, *call, due_at_ms=due).model_copy(update={"effect": effect}))
    elif choice == 5 and pending:
        call = pending.pop(rng.randrange(len(pending)))
        returned = _tool_returned(rng, run, *call)
        writer.write(stream, ws, returned)
        if returned.status == "unknown":
            unknown.setdefault(run, []).append(call)
    elif choice == 6 and pending:
        call = pending[-1]
        pending.clear()
        place = {"call": call[0], "index": call[1]}
        names = tuple(f"call-{n}" for n in range(rng.choice([0, 0, 1])))
        fields = {"run_id": run, "tool_call_id": call[2], "result": "mine", "is_error": rng.random() < 0.5, **place}
        writer.write(stream, ws, f.ToolAnswered.model_validate({**fields, "pending": names}))
    elif choice == 7:
        names = tuple(call[2] for call in pending)
        due = rng.choice([None, writer.now_ms + 1000])
        writer.write(stream, ws, f.RunWaiting(run_id=run, waits_for="client_tool", tool_call_ids=names, due_at_ms=due))
    elif choice == 8:
        _approval(rng, writer, stream, ws, run)
    elif choice == 9:
        child = ids.child_run_id(stream, f"{run}/{writer.seqs[stream]}")
        member = rng.choice((None, 1))
        writer.write(
            stream,
            ws,
            f.ChildStarted(
                run_id=child,
                parent_run_id=run,
                tool_call_id="x",
                agent_id="helper",
                agent_version=2,
                text="do",
                member=member,
            ),
        )
        runs.append(child)
    elif choice == 10:
        # Only what came to an unknown end is settled; now and then a call that nobody knows.
        settled: dict[str, object] = {"run_id": run, "tool_call_id": "x", "happened": rng.random() < 0.7, "by": "ada"}
        for call in unknown.get(run, [])[-1:]:
            settled |= dict(zip(("call", "index", "tool_call_id"), call, strict=True))
        writer.write(stream, ws, f.ToolSettled.model_validate(settled))
    elif choice == 11 and pending:
        call = rng.choice(pending)
        writer.write(stream, ws, f.ToolExpired(run_id=run, call=call[0], index=call[1], tool_call_id=call[2]))
    elif choice == 12:
        writer.write(stream, ws, f.RunCancelling(run_id=run, by="timer", code="time_limit"))
    else:
        _end(rng, writer, stream, ws, run)
        return True
    return False


def _approval(rng: random.Random, writer: Writer, stream: str, ws: str, run: str) -> None:
    approval = ids.approval_id(stream, writer.seqs[stream] + 1)
    request = f.ApprovalRequested(
        approval_id=approval,
        run_id=run,
        call=1,
        index=0,
        tool_call_id="call-0",
        name="pay",
        arguments={"eur": 3, "nul": "\x00"},
        question=rng.choice([None, "Pay\x00?"]),
        input_schema=rng.choice([None, {"type": "object"}]),
        who=rng.choice([(), ("ada",), ("eve", "nul\x00")]),
        due_at_ms=writer.now_ms + 5000,
    )
    writer.write(stream, ws, request)
    writer.write(stream, ws, f.RunWaiting(run_id=run, waits_for="approval", tool_call_ids=("call-0",)))
    if rng.random() < 0.3:
        decision: Any = rng.choice(["approve", "deny"])
        edited = rng.choice([None, {"eur": 2}])
        answer = f.ApprovalAnswered(
            approval_id=approval, run_id=run, decision=decision, by="ada", comment="c\x00", arguments=edited
        )
        writer.write(stream, ws, answer)
    elif rng.random() < 0.3:
        writer.write(stream, ws, f.ApprovalExpired(approval_id=approval, run_id=run))


def _tool_called(run: str, call: int, index: int, tool_call_id: str, due_at_ms: int | None = None) -> f.ToolCalled:
    return f.ToolCalled(
        run_id=run,
        call=call,
        index=index,
        tool_call_id=tool_call_id,
        name="book",
        arguments={"n": index, "nul": "\x00"},
        effect="idempotent" if due_at_ms is None else "client",
        effect_key=f"{run}/{call}/{index}",
        due_at_ms=due_at_ms,
    )


def _tool_returned(rng: random.Random, run: str, call: int, index: int, tool_call_id: str) -> f.ToolReturned:
    note = None
    if rng.random() < 0.5:
        kind: Any = rng.choice(["decision", "milestone", "skill"])
        note = Note(
            kind=kind, id=f"note-{run}-{call}-{index}", title="T\x00", body="B", slug=f"s{rng.randrange(3)}", name="N"
        )
    status: Any = rng.choice(["ok", "error", "unknown", "denied", "cancelled"])
    return f.ToolReturned(
        run_id=run,
        call=call,
        index=index,
        tool_call_id=tool_call_id,
        name="book",
        status=status,
        result="booked \x00",
        note=note,
        files=tuple(_file(rng, number) for number in range(rng.choice([0, 0, 1, 3]))),
    )


def _file(rng: random.Random, number: int) -> Attachment:
    """A file of one of a few names, so that some come again."""
    name = rng.choice(["a.txt", "é.png", "report.md"])
    return Attachment(name=name, content_type="text/plain", size=number, sha256=f"{rng.randrange(16**8):064x}")


def _end(rng: random.Random, writer: Writer, stream: str, ws: str, run: str) -> None:
    answer, usage = ids.answer_id(run), Usage(input_tokens=11, output_tokens=13, cache_read_tokens=1)
    choice = rng.randrange(3)
    if choice == 0:
        writer.write(stream, ws, f.RunCompleted(run_id=run, message_id=answer, stop_reason="end_turn", usage=usage))
    elif choice == 1:
        writer.write(
            stream, ws, f.RunFailed(run_id=run, message_id=answer, code="model", message="no\x00", usage=usage)
        )
    else:
        writer.write(stream, ws, f.RunCancelling(run_id=run, by="ada"))
        blocks = (Block(kind="text", text="half"),) if rng.random() < 0.5 else ()
        writer.write(stream, ws, f.RunCancelled(run_id=run, message_id=answer, by="ada", blocks=blocks, usage=usage))


def _workspace_fact(rng: random.Random, writer: Writer, ws: str, step: int) -> None:
    stream = ids.workspace_stream(ws)
    if stream not in writer.seqs:
        writer.write(stream, ws, f.WorkspaceCreated(workspace_id=ws, name=f"ws {ws[-1]}"))
        return
    number = rng.randrange(3)
    body: f.FactBody
    match rng.randrange(13):
        case 0:
            body = f.WorkspaceChanged(
                context=f"know {step}",
                structures=("a", "b"),
                mcp_servers=(McpServer(name=f"s{step}", command=("run",), tools={"t": McpTool(effect="unsafe")}),),
                connectors=(f"s{step}",),
            )
        case 1 | 2:
            body = f.KeyCreated(
                key_id=f"key-{step}", key_hash=f"{step:064x}", user_id="ada", scopes=("chat", "read"), rate_limit="9/m"
            )
        case 3:
            body = f.KeyRevoked(key_id=f"key-{rng.randrange(max(step, 1))}")
        case 4:
            body = f.KeyRotated(key_id=f"key-{rng.randrange(max(step, 1))}", key_hash=f"{step + 10**6:064x}")
        case 5 | 6:
            spec = AgentSpec(agent_id=f"agent-{number}", name=f"Agent {step}", temperature=0.5)
            body = f.AgentChanged(agent_version=step + 1, spec=spec)
        case 7:
            body = f.AgentDeleted(agent_id=f"agent-{number}")
        case 9:
            body = f.SkillChanged(
                agent_id="assistant", slug=f"s{number}", name=f"S\x00 {step}", description="D\x00", body="B\x00"
            )
        case 10 | 11:
            text = f"{step}\x00 " + "".join(rng.choice(["boat ", "tea. ", "é", "\n", "\n\n"]) for _ in range(step * 20))
            body = f.KnowledgeAdded(
                knowledge_id=f"document-{number}", title=f"Doc\x00 {step}", text=text, content_type="text/markdown"
            )
        case 12:
            body = f.KnowledgeRemoved(knowledge_id=f"document-{number}")
        case _:
            if rng.random() < 0.3:
                body = f.TeamDeleted(team_id=f"team-{number}")
            else:
                team = TeamSpec(team_id=f"team-{number}", name=f"Team {step}", members=("a", "b"))
                body = f.TeamChanged(team_version=step + 1, spec=team)
    writer.write(stream, ws, body)


def _noise(rng: random.Random, writer: Writer, stream: str, ws: str, partition: int, step: int) -> None:
    """What must leave no row: a zombie's facts, bytes sent again, outcomes without a seq. Or: a type not known yet."""
    choice = rng.randrange(5)
    if choice == 0:
        writer.claim(partition)
    elif choice == 1 and stream in writer.seqs:
        old = writer.epochs[partition]
        writer.claim(partition)
        body = f.ThreadUpdated(title="zombie", changes=("title",))
        zombie = Fact(
            type=body.type,
            stream=stream,
            seq=writer.seqs[stream] + 1,
            epoch=old,
            workspace_id=ws,
            time_ms=writer.now_ms,
            body=body,
        )
        writer.resend(zombie)
    elif choice == 2:
        again = [fact for fact in writer.written if fact.stream == stream and fact.epoch == writer.epochs[partition]]
        for fact in again[-3:]:
            writer.resend(fact)
    elif choice == 3 and partition in writer.epochs:
        body_rejected = f.CommandRejected(command_type="message.post", code="invalid", message="no")
        writer.write(stream, ws, body_rejected, causation_id=f"r{step}")
    elif choice == 4 and stream in writer.seqs:
        writer.write(stream, ws, _Tomorrow(note=f"n{step}"))


class _Tomorrow(f.FactBody):
    """A fact of a newer version of Parley."""

    type: ClassVar[str] = "thread.dreamt"
    note: str

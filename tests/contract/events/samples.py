"""One record of every class of the catalogue, with every field set to something that an encoder could get wrong.

Fixed data: no clock, no random id. The files in `golden/` are what these are on the wire.
"""

from __future__ import annotations

from parley_events import commands as c
from parley_events import facts as f
from parley_events.body import (
    AgentSpec,
    Approval,
    Attachment,
    Author,
    Block,
    ClientTool,
    Json,
    Limits,
    McpServer,
    McpTool,
    Note,
    PastFact,
    Principal,
    TeamPlay,
    TeamSpec,
    ThreadSeed,
    Usage,
)
from parley_events.codec import Command, Fact
from parley_events.ids import PARLEY, answer_id, approval_id, fact_message_id, question_id, run_id, workspace_stream
from parley_events.pieces import Piece

PARTITIONS = 8
PARTITION = 5
OFFSET = 7_000_000_000
RECORD_MS = 1_776_695_401_000
"""The log's time of every record; later than the record's own."""

TIME_MS = 1_776_695_400_123
WORKSPACE = "0b54a1de-0d5c-4b8a-9d1f-4b1f4a3c2e10"
THREAD = "7d3f0c52-93a4-4f6e-8f0a-2f6a3c1b9e77"
COMMAND_ID = str(PARLEY)
OTHER_THREAD = "00000000-0000-4000-8000-00000000002a"
DOCUMENT = "3f2a7c10-5d0e-4c58-b0a4-2b8e1d6f9a55"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

TEXT = 'Grüße 👋🏽 \u2028 "quoted" \\ back\nslash, naïve café, 日本語, \u0007, e\u0301, 𝔘'
JSON: Json = {
    "ключ": ["é", None, True, -0.5, 1e21, 9007199254740991, {"deep": {"er": [[], {}, "🧵"]}}],
    "": "empty name",
    "html": "</script>&amp;",
}
RUN = run_id(THREAD, COMMAND_ID)
QUESTION = question_id(THREAD, COMMAND_ID)
ANSWER = answer_id(RUN)

WHO = Principal(user_id="zoë@example.org", name="Zoë Ünal", admin=True)
AUTHOR = Author(kind="agent", id="researcher", name="Forscher 🔬")
FILE = Attachment(name="räksmörgås.pdf", content_type="application/pdf", size=2**40, sha256=HASH)
MCP_SERVERS = (
    McpServer(
        name="search",
        url="https://search.example.org/mcp",
        headers={"Authorization": "env:SEARCH_TOKEN"},
        timeout_s=12.5,
    ),
    McpServer(
        name="ledger",
        command=("python", "ledger.py"),
        cwd="/srv/büro",
        env={"LEDGER": "effects.jsonl"},
        tools={"pay": McpTool(effect="unsafe"), "book": McpTool(effect="checkable", check="booked")},
    ),
)
SEED = ThreadSeed(
    user_id="zoë@example.org",
    agent_id="assistant",
    team_id="founders",
    title=TEXT,
    system_prompt="Sei höflich.\n",
    context=JSON,
    metadata=JSON,
    channel="org_chat",
    idle_s=3600,
    end_user="kundin-7 é",
)
USAGE = Usage(input_tokens=12, output_tokens=345, cache_read_tokens=6789, cache_write_tokens=1)
BLOCKS = (
    Block(kind="thought", text="Hmm … 🤔", signature="c2lnbmF0dXJl"),
    Block(kind="text", text=TEXT),
    Block(kind="tool", tool_call_id="toolu_1", name="calculator", arguments=JSON, malformed='{"expression": '),
    Block(kind="opaque", data={"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}),
)
AGENT = AgentSpec(
    agent_id="researcher",
    name="Forscher 🔬",
    description=TEXT,
    roles=("lead", "критик"),
    model="scripted",
    base_url="https://models.example.org",
    api_key="env:RESEARCH_KEY",
    thinking=2048,
    system_prompt=TEXT,
    context="Wissen",
    temperature=0.25,
    tools=("clock", "calculator"),
    approvals=(
        "append_line",
        Approval(tool="ledger/*", question=TEXT, input_schema={"type": "object"}, who=("zoë",), expires_s=77),
    ),
    client_tools=(
        ClientTool(name="pick_file", description="Wähle", input_schema={"type": "object", "é": [1]}, expires_s=3600),
    ),
    limits=Limits(steps=7, seconds=90, max_tokens=1024),
)
TEAM = TeamSpec(
    team_id="founders", name="Gründer", members=("assistant", "researcher"), mode="debate", lead="assistant"
)
PLAY = TeamPlay(team_id="founders", team_version=4, name="Gründer", members=("assistant", "researcher"), mode="debate")

PAST = (
    PastFact(
        seq=-1,
        type="message.posted",
        version=1,
        time_ms=TIME_MS - 86_400_000,
        body={
            "message_id": QUESTION,
            "run_id": RUN,
            "answer_id": ANSWER,
            "disposition": "started",
            "author": {"kind": "user", "id": "zoë@example.org", "name": None},
            "agent_id": "researcher",
            "agent_version": 3,
            "text": TEXT,
            "metadata": JSON,
        },
    ),
    PastFact(
        seq=0,
        type="run.completed",
        version=1,
        time_ms=TIME_MS - 86_399_000,
        body={"run_id": RUN, "message_id": ANSWER, "stop_reason": "end_turn", "usage": {"input_tokens": 1}},
    ),
)
"""What a fork took over."""

_BODIES_OF_COMMANDS: tuple[c.CommandBody, ...] = (
    c.CreateThread(principal=WHO, seed=SEED),
    c.UpdateThread(
        principal=WHO,
        title=TEXT,
        pinned=True,
        archived=False,
        metadata=JSON,
        changes=("title", "pinned", "archived", "metadata"),
    ),
    c.DeleteThread(principal=WHO),
    c.ForkThread(principal=WHO, source_thread_id=OTHER_THREAD, at=17, title=TEXT, seed=SEED, past=PAST),
    c.ClearThread(principal=WHO),
    c.PostMessage(
        principal=WHO,
        text=TEXT,
        author=AUTHOR,
        agent_id="researcher",
        agent_version=3,
        open=SEED,
        attachments=(FILE,),
        context=JSON,
        lead_context=JSON,
        knowledge_ids=(DOCUMENT, OTHER_THREAD),
        workspace_seq=2**40,
        metadata=JSON,
        system_prompt="Sei kurz.",
        system_append="Und freundlich: ☀️",
        on_busy="queue",
        unattended=("client_tool",),
        play=PLAY,
    ),
    c.CancelRun(principal=WHO, run_id=RUN, reason=TEXT),
    c.CancelThread(principal=WHO, reason=TEXT),
    c.AnswerApproval(principal=WHO, approval_id=approval_id(THREAD, 9), decision="deny", comment=TEXT, arguments=JSON),
    c.AnswerTool(principal=WHO, run_id=RUN, tool_call_id="toolu_1", result=TEXT, is_error=True),
    c.SettleTool(principal=WHO, run_id=RUN, tool_call_id="toolu_1", happened=True, comment=TEXT),
    c.MarkRead(principal=WHO, up_to=41),
    c.FireTimer(principal=WHO, due_key="approval:9", due_at_ms=TIME_MS),
    c.CreateWorkspace(principal=WHO, workspace_id=WORKSPACE, name="Büro 東京"),
    c.ChangeWorkspace(
        principal=WHO,
        context=TEXT,
        structures=("sales", "R&D"),
        mcp_servers=MCP_SERVERS,
        connectors=("search",),
        digest=HASH,
    ),
    c.CreateKey(
        principal=WHO, key_id="key_1", key_hash=HASH, user_id="zoë", scopes=("threads", "admin"), rate_limit="10/second"
    ),
    c.RotateKey(principal=WHO, key_id="key_1", key_hash=HASH),
    c.RevokeKey(principal=WHO, key_id="key_1"),
    c.PutAgent(principal=WHO, spec=AGENT, digest=HASH, expected=2),
    c.DeleteAgent(principal=WHO, agent_id="researcher"),
    c.PutTeam(principal=WHO, spec=TEAM, digest=HASH, expected=0),
    c.DeleteTeam(principal=WHO, team_id="founders"),
    c.PutSkill(
        principal=WHO, agent_id="researcher", slug="boil-eggs", name="Œufs", description=TEXT, body=TEXT, digest=HASH
    ),
    c.AddKnowledge(principal=WHO, knowledge_id=DOCUMENT, title=TEXT, text=TEXT * 3, content_type="text/markdown"),
    c.RemoveKnowledge(principal=WHO, knowledge_id=DOCUMENT),
)

_OF_A_WORKSPACE = ("workspace.", "key.", "agent.", "team.", "skill.", "knowledge.")


def _stream(kind: str) -> str:
    return workspace_stream(WORKSPACE) if kind.startswith(_OF_A_WORKSPACE) else THREAD


def _command(body: c.CommandBody) -> Command:
    whole = isinstance(body, c.PostMessage)
    return Command(
        id=COMMAND_ID if whole else f"{body.type}/é-1",
        stream=_stream(body.type),
        workspace_id=WORKSPACE,
        time_ms=TIME_MS,
        body=body,
        body_hash=HASH,
        fresh=whole,
        correlation_id="порядок-7" if whole else None,
        traceparent=TRACE if whole else None,
        source="/parley/gateway" if whole else "/shop/orders",
        redrive_of="5-4711" if whole else None,
    )


_BODIES_OF_FACTS: tuple[f.FactBody, ...] = (
    f.ThreadCreated(seed=SEED),
    f.ThreadUpdated(title=TEXT, pinned=False, archived=True, metadata=JSON, changes=("title", "archived")),
    f.ThreadDeleted(by="zoë@example.org"),
    f.ThreadCleared(by="zoë@example.org"),
    f.ThreadForked(
        numbers=(1_152_921_504_606_846_981, 1_152_921_504_606_847_237, 1_152_921_504_606_847_493),
        source_thread_id=OTHER_THREAD,
        at=17,
        seed=SEED,
        title=TEXT,
        past=PAST,
    ),
    f.ThreadExpired(idle_since_ms=TIME_MS),
    f.ThreadRead(user_id="zoë@example.org", up_to=41),
    f.MessagePosted(
        numbers=(1_152_921_504_606_846_981, 1_152_921_504_606_847_237, 1_152_921_504_606_847_493),
        message_id=QUESTION,
        run_id=RUN,
        answer_id=ANSWER,
        disposition="queued",
        author=AUTHOR,
        agent_id="researcher",
        agent_version=3,
        text=TEXT,
        attachments=(FILE,),
        context=JSON,
        lead_context=JSON,
        knowledge_ids=(DOCUMENT, OTHER_THREAD),
        workspace_seq=2**40,
        metadata=JSON,
        system_prompt="Sei kurz.",
        system_append="Und freundlich: ☀️",
        opened=SEED,
        unattended=("approval", "client_tool"),
        play=PLAY,
    ),
    f.ChildStarted(
        run_id=f"{THREAD}.r0123456789abcdef",
        parent_run_id=RUN,
        tool_call_id="toolu_1",
        agent_id="analyst",
        agent_version=2,
        text=TEXT,
        member=3,
        round=1,
    ),
    f.ModelCalled(
        run_id=RUN,
        turn=2,
        attempt=3,
        agent_id="researcher",
        agent_version=3,
        model="scripted",
        shown=11,
        due_at_ms=TIME_MS,
    ),
    f.ModelReturned(run_id=RUN, call=12, turn=2, blocks=BLOCKS, stop_reason="tool_use", usage=USAGE),
    f.ModelFailed(
        run_id=RUN,
        call=12,
        turn=2,
        attempt=3,
        kind="529",
        message=TEXT,
        usage=USAGE,
        retry=True,
        retry_after_ms=1500,
    ),
    f.ToolCalled(
        numbers=(4503599627370501,),
        run_id=RUN,
        call=12,
        index=1,
        tool_call_id="toolu_1",
        name="append_line",
        arguments=JSON,
        effect="client",
        effect_key=f"{RUN}/13/1",
        due_at_ms=TIME_MS,
        message_id=fact_message_id(THREAD, 14),
    ),
    f.ToolReturned(
        numbers=(4503599627370757,),
        run_id=RUN,
        call=12,
        index=1,
        tool_call_id="toolu_1",
        name="record_decision",
        status="unknown",
        result=TEXT,
        duration_ms=12_345,
        note=Note(
            kind="skill", id=f"{RUN}.n1", title="Título", body=TEXT, slug="como-é", name="Cómo", description="Para é."
        ),
        files=(Attachment(name="gráfico.png", content_type="image/png", size=68, sha256="b7" * 32),),
        message_id=fact_message_id(THREAD, 15),
    ),
    f.ToolAnswered(
        numbers=(4503599627371013, 4503599627371269),
        run_id=RUN,
        tool_call_id="toolu_2",
        result=TEXT,
        is_error=True,
        pending=("toolu_3",),
        call=12,
        index=1,
        message_id=fact_message_id(THREAD, 16),
    ),
    f.ToolSettled(run_id=RUN, tool_call_id="toolu_1", happened=True, by="zoë", comment=TEXT, call=12, index=0),
    f.RunWaiting(run_id=RUN, waits_for="client_tool", tool_call_ids=("toolu_2", "toolu_3"), due_at_ms=TIME_MS),
    f.ApprovalRequested(
        approval_id=approval_id(THREAD, 9),
        run_id=RUN,
        call=12,
        index=0,
        tool_call_id="toolu_1",
        name="append_line",
        arguments=JSON,
        question=TEXT,
        input_schema={"type": "object", "é": [1]},
        who=("zoë", "bob"),
        due_at_ms=TIME_MS,
    ),
    f.ApprovalAnswered(
        approval_id=approval_id(THREAD, 9), run_id=RUN, decision="approve", by="zoë", comment=TEXT, arguments=JSON
    ),
    f.ApprovalExpired(approval_id=approval_id(THREAD, 9), run_id=RUN),
    f.RunCancelling(run_id=RUN, by="zoë", reason=TEXT, code="time_limit"),
    f.RunCompleted(run_id=RUN, message_id=ANSWER, stop_reason="end_turn", usage=USAGE),
    f.RunFailed(run_id=RUN, message_id=ANSWER, code="model_529", message=TEXT, usage=USAGE),
    f.RunCancelled(run_id=RUN, message_id=ANSWER, by="zoë", reason=TEXT, call=12, blocks=BLOCKS, usage=USAGE),
    f.WorkspaceCreated(workspace_id=WORKSPACE, name="Büro 東京"),
    f.WorkspaceChanged(
        context=TEXT, structures=("sales", "R&D"), mcp_servers=MCP_SERVERS, connectors=("search",), digest=HASH
    ),
    f.KeyCreated(key_id="key_1", key_hash=HASH, user_id="zoë", scopes=("threads", "admin"), rate_limit="10/second"),
    f.KeyRotated(key_id="key_1", key_hash=HASH),
    f.KeyRevoked(key_id="key_1"),
    f.AgentChanged(agent_version=3, spec=AGENT, digest=HASH),
    f.AgentDeleted(agent_id="researcher"),
    f.TeamChanged(team_version=2, spec=TEAM, digest=HASH),
    f.TeamDeleted(team_id="founders"),
    f.KnowledgeAdded(knowledge_id=DOCUMENT, title=TEXT, text=TEXT * 3, content_type="text/markdown"),
    f.KnowledgeRemoved(knowledge_id=DOCUMENT),
    f.CommandRejected(command_type="message.post", code="unknown_agent", message="There is no agent “zoë”."),
    f.CommandRepeated(
        command_type="message.post",
        outcome_type="message.posted",
        outcome_seq=8,
        outcome_time_ms=TIME_MS,
        first={"message_id": QUESTION, "numbers": [1, 2, 3], "nested": JSON},
    ),
    f.PartitionClaimed(owner="dispatcher-é/4711", first_unfinished=88, attempt=2),
    f.SkillChanged(agent_id="researcher", slug="boil-eggs", name="Œufs", description=TEXT, body=TEXT, digest=HASH),
    f.ToolExpired(run_id=RUN, call=12, index=1, tool_call_id="toolu_2"),
    f.ThreadCancelling(by="zoë", reason=TEXT, run_ids=(RUN, f"{THREAD}.r0123456789abcdef")),
    f.CommandTried(attempt=2),
)


def _fact(seq: int, body: f.FactBody) -> Fact:
    claim = isinstance(body, f.PartitionClaimed | f.CommandTried)
    outcome = isinstance(body, f.MessagePosted | f.CommandRejected | f.CommandRepeated)
    run: str | None = getattr(body, "run_id", None)
    return Fact(
        type=body.type,
        stream="" if claim else _stream(body.type),
        seq=None if body.type in f.UNNUMBERED else seq,
        epoch=0 if isinstance(body, f.PartitionClaimed) else OFFSET - 100,
        workspace_id="" if claim else WORKSPACE,
        time_ms=TIME_MS,
        body=body,
        run_id=run,
        call=getattr(body, "call", None) if body.type in ("model.returned", "model.failed", "run.cancelled") else None,
        causation_id="dispatcher-é/4711" if isinstance(body, f.PartitionClaimed) else COMMAND_ID if outcome else None,
        body_hash=HASH if outcome else None,
        correlation_id="порядок-7" if outcome else None,
        traceparent=TRACE if run else None,
        offset=OFFSET,
        command_offset=OFFSET - 90 if outcome or isinstance(body, f.CommandTried) else None,
    )


COMMAND_SAMPLES: dict[str, Command] = {
    f"command.{body.type}.v{body.version}": _command(body) for body in _BODIES_OF_COMMANDS
}
FACT_SAMPLES: dict[str, Fact] = {
    f"fact.{body.type}.v{body.version}": _fact(seq, body) for seq, body in enumerate(_BODIES_OF_FACTS, 1)
}

OLD_COMMANDS: dict[str, Command] = {}
OLD_FACTS: dict[str, Fact] = {}
"""Samples of versions that are written no more, as today's code must read them. Their files stay for ever."""

PIECES: tuple[int, tuple[Piece, ...]] = (
    OFFSET - 100,
    (
        Piece(THREAD, 12, 0, "thought", 0, "Hmm … 🤔"),
        Piece(THREAD, 12, 1, "text", 0, TEXT),
        Piece(OTHER_THREAD, 3, 0, "text", 4096, " "),
    ),
)

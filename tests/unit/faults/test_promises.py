"""Each way of breaking a promise is found, and said to be one of that promise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.check import check
from tests.faults.evidence import Memory
from tests.unit.faults import breaking as b
from tests.unit.faults.made import T0
from tests.unit.faults.sound import ONE, sound

SOUND = sound()
BROKEN: dict[str, tuple[int, str, b.Break]] = {
    # 0: the evidence
    "a command was not read": (0, "not every record below", b.field("commands", lambda all_, _: all_[1:])),
    "a fact was not read": (0, "not every record below", b.field("events", lambda all_, _: all_[:-1])),
    "a fact is no fact": (
        0,
        "a fact cannot be decoded",
        b.field("events", lambda all_, _: (*all_[:-1], replace(all_[-1], value=b"{"))),
    ),
    "a follower resumed elsewhere": (
        0,
        "leg 1 asked for",
        b.legs("comes back", lambda all_: (all_[0], replace(all_[1], cursor="1"), *all_[2:])),
    ),
    # 1: one outcome
    "a command without an outcome": (1, "c99 has no outcome", b.ask_in_vain),
    "a command that took effect twice": (1, "took effect 2 times", b.double("message.posted")),
    "an outcome that nobody asked": (
        1,
        "which nobody asked",
        b.field("commands", lambda all_, _: tuple(one for one in all_ if dict(one.headers).get("ce_id") != b"c3")),
    ),
    "a refusal that was said twice by one owner": (1, "was refused 2 times", b.double("command.rejected")),
    "a refusal of what took effect": (
        1,
        "was refused, and took effect",
        b.events(lambda r, fact: b.refusing(r, fact, "c3")),
    ),
    "an unreadable command that is not kept": (1, "and 0 times in parley.rejected", b.field("rejected", lambda *_: ())),
    "an unreadable command that is kept more often than there were owners": (
        1,
        "and 3 times in parley.rejected",
        b.field("rejected", lambda all_, _: all_ * 3),
    ),
    "a sound command that was rejected": (
        1,
        "a sound command was rejected",
        b.field("rejected", lambda all_, _: (*all_, b.rejected_at(all_[0], 1))),
    ),
    "a message without an end": (1, "never ended", b.drop("run.completed", 1)),
    "a message with two ends": (1, "ended 2 times", b.double("run.completed", 1)),
    "a zombie that is believed": (1, "ended 2 times", b.believe_the_zombie),
    "a fact after the end": (1, "after its end", b.swap("run.cancelling", "run.cancelled", ONE)),
    "an answer with a position that is not there": (
        1,
        "nothing is at",
        b.field("requests", lambda all_, _: b.told(all_)),
    ),
    "an answer with a run that is not there": (1, "there is no run", b.drop("message.posted", 2)),
    "a retry that was told another run": (
        1,
        "a retry was told another run_id",
        b.field("requests", lambda all_, c: (*all_[:-1], replace(all_[-1], answer={"run_id": c.first}))),
    ),
    "two messages with one run": (
        1,
        "two messages were answered with one run",
        b.field("requests", lambda all_, _: (*all_, replace(all_[0], key="k9"))),
    ),
    "poison that nobody was told of": (1, "who asked was not told", b.field("rejected", lambda a, _: b.poison(a, 1))),
    "poison that is kept twice": (1, "poison is 2 times", b.field("rejected", lambda a, _: b.poison(a, 2))),
    "a rejected record from nowhere": (
        1,
        "does not say where it comes from",
        b.field("rejected", lambda all_, _: (*all_, replace(all_[0], headers=()))),
    ),
    "a rejected record of nothing": (
        1,
        "is not on the topic",
        b.field("rejected", lambda all_, _: (*all_, b.rejected_at(all_[0], 99))),
    ),
    "a run that was opened twice": (1, "was opened twice", b.double("message.posted")),
    "a retry that was refused": (
        1,
        "a retry of what was accepted was refused with 409",
        b.field("requests", lambda all_, _: (*all_, replace(all_[-1], status=409))),
    ),
    "an answer with another's message": (
        1,
        "and answers another message",
        b.field("requests", lambda all_, _: (*all_[:-1], b.telling(all_[-1], message_id="m"))),
    ),
    "an approval that is answered twice": (1, "has approval.answered, and had", b.double("approval.answered")),
    "an answer to what nobody asked": (1, "was never asked", b.alter("approval.answered", approval_id="p")),
    "an approval that is asked for twice": (1, "asked for twice", b.double("approval.requested")),
    "a run that is cancelled twice": (1, "begun to be cancelled 2 times", b.double("run.cancelling")),
    "a cancel that is not kept": (1, "and ended as run.cancelled", b.alter("run.cancelling", code="time_limit")),
    "a deadline that came too early": (1, "before it was due", b.too_early),
    # 2: order
    "a hole in a stream": (
        2,
        "there is a hole",
        b.events(lambda r, fact: () if fact.type == "tool.returned" else (r,)),
    ),
    "one seq for two facts": (2, "given to two different facts", b.events(lambda r, fact: b.twins(r, fact))),
    "outcomes out of their order": (2, "took effect before", b.swap_outcomes),
    "two runs of a thread at once": (2, "is at work while", b.swap("run.cancelled", "model.called", ONE)),
    "a run that overtakes": (2, "is at work while", b.drop("run.cancelled", 0)),
    "a message that is said to wait": (2, "is said to be queued", b.alter("message.posted", disposition="queued")),
    "a message that is said not to wait": (
        2,
        "is said to be started",
        b.alter("message.posted", 1, disposition="started"),
    ),
    "an integer id that falls": (2, "is not above", b.alter("tool.returned", 1, numbers=(1,))),
    "a fact in another partition": (
        2,
        "lies in another partition",
        b.events(lambda r, fact: (replace(r, key=b"else"),) if fact.type == "tool.returned" else (r,)),
    ),
    # 3: effects
    "an unsafe tool that was run twice": (3, "unsafe ledger__pay was called 2 times", b.run_again(0)),
    "an idempotent tool with two effects": (3, "had its effect 2 times", b.run_again(1)),
    "a call with other arguments": (3, "again with other arguments", b.run_again(1, arguments={"n": 5}, applied=False)),
    "a tool that nobody meant to run": (3, "no tool.called that counts has its key", b.run_again(0, effect_key="k")),
    "a tool that was run as another": (
        3,
        "the log means ledger__pay",
        b.field("ledger", lambda all_, _: (replace(all_[0], tool="ledger__book"), *all_[1:])),
    ),
    "a result that is not in the ledger": (3, "is not in the ledger", b.field("ledger", lambda all_, _: all_[1:])),
    "a call that was run and is denied": (3, "is said not to be made", b.alter("tool.returned", status="denied")),
    "a doubt that is told as an error": (
        3,
        "that is unknown, and not an error",
        b.alter("tool.returned", 2, status="error"),
    ),
    "two results of a call": (3, "of a call that has its tool.returned", b.double("tool.returned", 0)),
    "two intents of a call": (3, "a second tool.called of one call", b.double("tool.called", 0)),
    "one key for two calls": (3, "stands for two calls", b.double("tool.called", 0, index=5)),
    "a call without a word of what came of it": (3, "nothing says what came of it", b.drop("tool.returned", 2)),
    "a turn that is made again": (3, "is made again, and was complete", b.alter("model.called", 2, turn=0)),
    "an attempt that is not counted": (3, "attempt 1 of turn 1 after 1", b.alter("model.called", 2, attempt=1)),
    "a turn that is complete twice": (3, "was completed twice", b.double("model.returned", 0)),
    "an effect after a cancel": (
        3,
        "tool.called after the run.cancelling",
        b.swap("tool.called", "run.cancelling", ONE, 2),
    ),
    "an execution after a cancel": (
        3,
        "after the run.cancelling of its run",
        b.field("ledger", lambda all_, _: (*all_[:3], replace(all_[3], wall_ms=T0 + 9_000), *all_[4:])),
    ),
    "an orphan that the model is shown": (3, "of its last turn has no result", b.orphan),
    "a result that the tool server never gave": (
        3,
        "never gave an answer",
        b.field("ledger", lambda all_, _: (replace(all_[0], answered=False), *all_[1:])),
    ),
    "a tool that nobody approved": (3, "and nobody approved it", b.alter("approval.answered", decision="deny")),
    "a tool that was approved otherwise": (
        3,
        "with other arguments than approved",
        b.alter("approval.answered", arguments={"n": 8}),
    ),
    # 4: views
    "a row that is missing": (4, "messages: the row is missing", b.rows("messages", lambda all_: all_[1:])),
    "a row too many": (
        4,
        "runs: there is a row that no fact makes",
        b.rows("runs", lambda all_: (*all_, {**all_[0], "id": "ghost"})),
    ),
    "a text that is another": (4, "messages: content is 'x'", b.column("messages", "content", "x")),
    "a fact that was folded twice": (4, "threads: message_count is", b.column("threads", "message_count", 99)),
    "tokens that were counted twice": (4, "runs: output_tokens is 99", b.column("runs", "output_tokens", 99)),
    "a status that is behind": (4, "runs: status is 'running'", b.column("runs", "status", "running")),
    "an approval that is open still": (4, "approvals: status is 'open'", b.column("approvals", "status", "open")),
    "a due that is over": (
        4,
        "dues: there is a row that no fact makes",
        b.rows("dues", lambda _: ({"stream": ONE, "due_key": "k", "due_ms": 1},)),
    ),
    "a stored fact from a zombie": (4, "facts: type is", b.column("facts", "type", "run.completed", 3)),
    "a view that is behind": (4, "positions: next_offset is 3", b.column("positions", "next_offset", 3)),
    "a view under an old claim": (4, "positions: epoch is 77", b.column("positions", "epoch", 77)),
    # 5: followers
    "a fact that was not shown": (
        5,
        "where the facts go on with tool.called",
        b.frames("stays", b.without("tool.called")),
    ),
    "a fact that was shown twice": (5, "frames after the end", b.frames("stays", b.twice)),
    "a restart that was not told": (5, "run.restarted", b.frames("stays", b.without("run.restarted"))),
    "a piece that was lost": (5, "was shown with", b.frames("stays", b.without("text.delta"))),
    "a piece that is another": (5, "they part at", b.frames("stays", b.said("text.delta", delta="Let us "))),
    "a gap over a resume": (
        5,
        "characters came, and the id went from",
        b.frames("comes back", b.said("text.delta", delta=""), 1),
    ),
    "an id that goes back": (
        5,
        "ids go back",
        b.frames("stays", lambda seen: (*seen[:-1], replace(seen[-1], id="2"))),
    ),
    "a frame without an id": (
        5,
        "a frame without an id",
        b.frames("stays", lambda s: (replace(s[0], id=None), *s[1:])),
    ),
    "an id that is none": (5, "is no cursor", b.frames("stays", lambda s: (replace(s[0], id="x"), *s[1:]))),
    "an end that never came": (5, "never saw it", b.frames("stays", lambda seen: seen[:-1])),
    "text after its turn": (5, "after its model.returned", b.frames("stays", lambda s: (*s[:6], s[3], *s[6:]))),
    "a run that is said not to be there": (
        5,
        "was answered with 404",
        b.legs("comes back", lambda all_: (b.refused(None, 404), *all_)),
    ),
    "a cursor that was refused": (
        5,
        "was answered with 400",
        b.legs("comes back", lambda all_: (all_[0], b.refused(all_[1].cursor, 400), *all_[1:])),
    ),
    "a result that is shown as another": (
        5,
        "tool.returned was shown with",
        b.frames("stays", b.said("tool.returned", tool_call={"id": "t2.0", "result": "no", "status": "ok"})),
    ),
    "a stored message that nobody saw": (5, "in the stored message", b.column("messages", "content", "x", 6)),
    "an event that the organisation missed": (
        5,
        "where the facts go on with",
        b.frames("organisation", b.without("tool_result"), 1),
    ),
    "two ends for the organisation": (5, "frames after the end", b.frames("organisation", b.twice)),
    "a piece that the organisation missed": (5, "and the id counts", b.frames("organisation", b.without("text"))),
    "a text that the organisation missed": (5, "of turn 1 is", b.frames("organisation", b.without("text", 2))),
    "a text that is another for the organisation": (
        5,
        "block 0 of turn 0 is",
        b.frames("organisation", b.said("text", content="Let us "), 0),
    ),
    "a summary that is another": (
        5,
        "saw complete",
        b.frames("organisation", b.said("complete", content={"summary": "x"})),
    ),
    # 6: recovery
    "a run that is open": (6, "is open still", b.drop("run.completed", 1)),
    "a run that ended late": (
        6,
        "after its limit of",
        b.field("limits", lambda limits, _: replace(limits, end_s=-1.0)),
    ),
    "a bystander that stood still": (6, "stood still for", b.stand_still),
    "offsets that are not committed": (
        6,
        "is committed, and the topic ends at",
        b.field("committed", lambda *_: {0: 0}),
    ),
    "a run that should be parked": (6, "should be parked, and is not", b.not_parked),
    "a run left open that nobody knows": (6, "is not on the log", b.field("left_open", lambda *_: ("nobody",))),
    # 7: nothing lost
    "a fact that is not on the log": (7, "was shown, and is not on the log", b.drop("run.completed", 0)),
    "a text that is not on the log": (7, "and is not stored so", b.alter("model.returned", 1, blocks=())),
    "a run that was told to have ended otherwise": (
        7,
        "was told to be failed",
        b.field("requests", lambda all_, c: (*all_, b.waited(all_[0], c.first, "failed", "Let me pay.All is well."))),
    ),
    "a message that was told otherwise": (
        7,
        "was told as 'x'",
        b.field("requests", lambda all_, c: (*all_, b.waited(all_[0], c.first, "completed", "x"))),
    ),
    # 9: memory
    "a process that grew": (
        9,
        "held 900 MiB",
        b.field("memory", lambda all_, _: (*all_, Memory("history", 3, 0, 900 * 2**20))),
    ),
}
"""What was broken → the promise, a part of what the checker says, and how."""


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name: str) -> None:
    promise, what, broken = BROKEN[name]
    found = check(broken(SOUND))
    assert [one for one in found if one.promise == promise and what in one.what], (
        "\n".join(map(str, found)) or "nothing"
    )

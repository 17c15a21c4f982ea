"""Stories for followers: the facts of a thread with several runs, attempts and tools, and the pieces of its calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from hypothesis import strategies as st

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Author, Block, TeamPlay, ThreadSeed, Usage
from parley_events.codec import Fact
from parley_events.pieces import Piece

THREAD = "0f0f0f0f-1111-4222-8333-444444444444"
USERS = (None, "ann", "bob")
"""Whose a thread may be: everybody's, or one's."""
USAGE = Usage()


_OF_A_CALL = (f.ModelReturned, f.ModelFailed, f.RunCancelled)


@dataclass
class Story:
    """`texts`: (call, block) → the whole text of a turn that is on record. `spoken`: the same of every attempt, as far
    as the model came. `void`: the seqs of ends that leave nothing of their run's last attempt. `user`: whose the thread
    is (None: everybody's)."""

    thread: str = THREAD
    user: str | None = None
    facts: list[Fact] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    texts: dict[tuple[int, int], str] = field(default_factory=dict)
    spoken: dict[tuple[int, int], str] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    void: set[int] = field(default_factory=set)

    def add(self, body: f.FactBody, run: str | None = None) -> int:
        seq = len(self.facts) + 1
        call = getattr(body, "call", None) if isinstance(body, _OF_A_CALL) else None
        if isinstance(body, f.Numbered):
            body = body.model_copy(update={"numbers": tuple(range(10 * seq, 10 * seq + body.wanted))})
        self.facts.append(Fact(body.type, self.thread, seq, 0, "w", 1000 + seq, body, run_id=run, call=call))
        return seq

    def post(self, n: int, members: int = 0) -> str:
        """A message; a team of so many answers it."""
        run = ids.run_id(self.thread, f"c{n}")
        free = {*self.runs} <= {fact.run_id for fact in self.facts if fact.type in f.RUN_ENDS}
        self.runs.append(run)
        self.add(
            f.MessagePosted(
                message_id=ids.question_id(self.thread, f"c{n}"),
                run_id=run,
                answer_id=ids.answer_id(run),
                disposition="started" if free else "queued",
                author=Author(id="ann"),
                agent_id="assistant",
                agent_version=1,
                text="hi",
                play=TeamPlay(team_id="t", members=tuple(f"m{at}" for at in range(members))) if members else None,
            ),
            run,
        )
        return run

    def speaks(self, parent: str, at: int) -> str:
        """A member of a team begins."""
        run = ids.member_run_id(parent, 0, at)
        self.runs.append(run)
        body = {"run_id": run, "parent_run_id": parent, "tool_call_id": "", "text": "", "member": at}
        self.add(f.ChildStarted.model_validate({**body, "agent_id": f"m{at}", "agent_version": 1}), parent)
        return run

    def call(self, run: str, turn: int, attempt: int) -> int:
        return self.add(
            f.ModelCalled(
                run_id=run,
                turn=turn,
                attempt=attempt,
                agent_id="assistant",
                agent_version=1,
                model="scripted",
                shown=len(self.facts),
            ),
            run,
        )

    def speak(self, call: int, block: int, kind: str, text: str, cuts: list[int]) -> None:
        before = sum(len(said) for (of, index), said in self.spoken.items() if of == call and index < block)
        places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
        for start, end in itertools.pairwise(places):
            self.pieces.append(Piece(self.thread, call, block, kind, start, text[start:end], before))  # type: ignore[arg-type]
        self.spoken[call, block] = text

    def returned(self, run: str, call: int, turn: int, blocks: list[Block]) -> None:
        self.add(
            f.ModelReturned(
                run_id=run, call=call, turn=turn, blocks=tuple(blocks), stop_reason="end_turn", usage=USAGE
            ),
            run,
        )
        for index, block in enumerate(blocks):
            if block.kind not in ("tool", "opaque"):
                self.texts[call, index] = block.text

    def failed(self, run: str, call: int, turn: int, attempt: int) -> None:
        self.add(
            f.ModelFailed(
                run_id=run, call=call, turn=turn, attempt=attempt, kind="cut", message="m", usage=USAGE, retry=True
            ),
            run,
        )

    def fail(self, run: str) -> None:
        body = f.RunFailed(run_id=run, message_id=ids.answer_id(run), code="model_cut", message="m", usage=USAGE)
        self.void.add(self.add(body, run))

    def cancel(self, run: str, call: int | None, blocks: list[Block]) -> int:
        """The run is stopped, with what its unfinished call had said."""
        self.add(f.RunCancelling(run_id=run, by="ann"), run)
        for index, block in enumerate(blocks):
            if call is not None and block.kind in ("text", "thought"):
                self.texts[call, index] = block.text
        body = f.RunCancelled(
            run_id=run, message_id=ids.answer_id(run), by="ann", call=call, blocks=tuple(blocks), usage=USAGE
        )
        return self.add(body, run)

    # ---- what a run waits for

    def ask(self, run: str, call: int, index: int, *, answer: str) -> None:
        """An approval, and what becomes of it: approve, deny or expire."""
        place = {"run_id": run, "call": call, "index": index, "tool_call_id": f"t{index}"}
        named = {**place, "name": "publish", "arguments": {"text": "é😀"}}
        approval = f"{self.thread}.p{len(self.facts) + 1}"
        self.add(
            f.ApprovalRequested.model_validate({**named, "approval_id": approval, "due_at_ms": 9, "question": "Go?"}),
            run,
        )
        self.add(f.RunWaiting(run_id=run, waits_for="approval", tool_call_ids=(f"t{index}",), due_at_ms=9), run)
        if answer == "expire":
            self.add(f.ApprovalExpired(approval_id=approval, run_id=run), run)
        else:
            body = {"approval_id": approval, "run_id": run, "by": "bob", "decision": answer, "comment": "so"}
            self.add(f.ApprovalAnswered.model_validate(body), run)
        if answer == "approve":
            self.add(f.ToolCalled.model_validate({**named, "effect": "unsafe", "effect_key": "k"}), run)
        returned = {**place, "name": "publish", "status": "ok" if answer == "approve" else "denied", "result": "r"}
        self.add(f.ToolReturned.model_validate(returned), run)

    def hand(self, run: str, call: int, index: int, *, answered: bool) -> None:
        """A tool that the client runs; its result, or none in time."""
        place = {"run_id": run, "call": call, "index": index, "tool_call_id": f"t{index}"}
        named = {**place, "name": "get_weather", "arguments": {"location": "Bern"}}
        called = {**named, "effect": "client", "effect_key": "k", "due_at_ms": 9}
        self.add(f.ToolCalled.model_validate(called), run)
        self.add(f.RunWaiting(run_id=run, waits_for="client_tool", tool_call_ids=(f"t{index}",), due_at_ms=9), run)
        if answered:
            self.add(f.ToolAnswered.model_validate({**place, "result": "21 °C"}), run)
            return
        self.add(f.ToolExpired.model_validate(place), run)
        returned = {**place, "name": "get_weather", "status": "error", "result": "too late"}
        self.add(f.ToolReturned.model_validate(returned), run)

    def end(self, run: str) -> None:
        self.add(f.RunCompleted(run_id=run, message_id=ids.answer_id(run), stop_reason="end_turn", usage=USAGE), run)


SIGNS = ("a", "b", " ", "é", "e\u0301", "😀", "👩\u200d🚀", "🇨🇭", "\u05d0", "\u0000", "\u2028", "\n", '"', "\\")
"""What texts are made of: some are several code points, some lie beyond the first 65,536, some are odd in JSON."""
words = st.lists(st.sampled_from(SIGNS), min_size=1, max_size=12).map("".join)
cuts = st.lists(st.integers(0, 12), max_size=4)


@st.composite
def stories(draw: st.DrawFn, *, same_words: bool = False, side_by_side: bool = False, queued: bool = False) -> Story:
    """One or two runs after each other (or side by side, as a child run is), each with turns, blocks and attempts,
    parks between them, and an end of any kind. `same_words`: a further attempt begins with what the one before it said,
    and every run says all of it. `queued`: the next message comes while the run before it is open, perhaps."""
    story = Story()
    lanes = [
        _run(draw, story, partial(story.post, n), draw(st.integers(1, 2)), same_words)
        for n in range(draw(st.integers(1, 2)))
    ]
    if not side_by_side:
        if queued and len(lanes) > 1:
            for _ in range(draw(st.integers(1, 12))):
                next(lanes[0], None)
            next(lanes[1])
        for lane in lanes:
            for _ in lane:
                pass
        return story
    _mix(draw, lanes)
    return story


@st.composite
def team_stories(draw: st.DrawFn) -> Story:
    """A run that a team answers: its members side by side, then its own turns; `runs` has it first. Something else goes
    on in the thread before and after."""
    story = Story()
    elsewhere = [_run(draw, story, partial(story.post, n), 1, False) for n in (7, 8)]
    _mix(draw, [elsewhere[0]] if draw(st.booleans()) else [])
    size = draw(st.integers(1, 3))
    run = story.post(0, size)
    members = [_run(draw, story, partial(story.speaks, run, at), draw(st.integers(1, 2)), False) for at in range(size)]
    _mix(draw, members)
    _mix(draw, [_run(draw, story, lambda: run, 1, False)])
    _mix(draw, [elsewhere[1]] if draw(st.booleans()) else [])
    story.runs.sort(key=lambda one: one != run)
    return story


@st.composite
def small_stories(draw: st.DrawFn, thread: str) -> Story:
    """A short one, for a thread beside another; some begin with a fact that says whose they are."""
    story = Story(thread=thread, user=draw(st.sampled_from(USERS)))
    if draw(st.booleans()):
        story.add(f.ThreadCreated(seed=ThreadSeed(user_id=story.user)))
    for n in range(draw(st.integers(1, 2))):
        for _ in _run(draw, story, partial(story.post, n), 1, False):
            pass
    return story


def _mix(draw, lanes: list[Iterator[int]]) -> None:  # type: ignore[no-untyped-def]
    open_lanes = list(lanes)
    while open_lanes:
        lane = open_lanes[draw(st.integers(0, len(open_lanes) - 1))]
        if next(lane, None) is None:
            open_lanes.remove(lane)


ENDS = ("completed", "completed", "failed", "cancelled", "cancelled", "taken over", "between")
"""How a run ends; `cancelled`: in the middle of what the model says; `taken over`: cancelled, and who had its words is
gone; `between`: cancelled between two turns."""


def _run(draw, story: Story, begin: Callable[[], str], turns: int, same_words: bool):  # type: ignore[no-untyped-def]
    run = begin()
    yield 1
    ending = draw(st.sampled_from(("completed", "cancelled") if same_words else ENDS))
    for turn in range(turns):
        kinds = draw(st.lists(st.sampled_from(["text", "thought", "tool", "opaque"]), min_size=1, max_size=3))
        final = [draw(words) for _ in kinds]
        attempts = draw(st.integers(1, 3))
        unfinished = turn == turns - 1 and ending not in ("completed", "between")
        for attempt in range(1, attempts + 1):
            call = story.call(run, turn, attempt)
            yield 1
            last = attempt == attempts
            whole = last and (not unfinished or same_words)
            for index, kind in enumerate(kinds):
                if kind in ("tool", "opaque"):
                    continue
                text = final[index] if last or same_words else draw(words)
                if not whole:
                    text = text[: draw(st.integers(0, len(text)))]
                story.speak(call, index, kind, text, draw(cuts))
            if last and unfinished:
                break
            if not last:
                # The process may also die without a word: then the next attempt is all that is seen.
                if draw(st.booleans()):
                    story.failed(run, call, turn, attempt)
                    yield 1
                continue
            story.returned(run, call, turn, [_block(kind, index, final[index]) for index, kind in enumerate(kinds)])
            yield 1
        if unfinished:
            said = [_block(kind, index, story.spoken.get((call, index), "")) for index, kind in enumerate(kinds)]
            _stop(story, run, call, turn, attempts, ending, said)
            yield 1
            return
        yield from _wait(draw, story, run, call, kinds)
    if ending == "between":
        story.cancel(run, None, [])
    else:
        story.end(run)
    yield 1


def _block(kind: str, index: int, text: str) -> Block:
    if kind == "tool":
        return Block(kind="tool", tool_call_id=f"t{index}", name="clock")
    if kind == "opaque":
        return Block(kind="opaque", data={"type": "redacted_thinking"})
    return Block(kind=kind, text=text)  # type: ignore[arg-type]


def _stop(story: Story, run: str, call: int, turn: int, attempt: int, ending: str, said: list[Block]) -> None:
    """The run ends while its model call has not returned."""
    if ending == "cancelled":
        story.cancel(run, call, said)
    elif ending == "taken over":
        story.void.add(story.cancel(run, None, []))
    else:
        story.failed(run, call, turn, attempt)
        story.fail(run)


def _wait(draw, story: Story, run: str, call: int, kinds: list[str]):  # type: ignore[no-untyped-def]
    """What follows the calls of a turn: a person is asked, the client is to run them."""
    for index, kind in enumerate(kinds):
        if kind == "tool" and (how := draw(st.sampled_from(["", "approve", "deny", "expire", "client", "late"]))):
            if how in ("client", "late"):
                story.hand(run, call, index, answered=how == "client")
            else:
                story.ask(run, call, index, answer=how)
            yield 1

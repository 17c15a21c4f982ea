"""Stories for followers: the facts of a thread with several runs, attempts and tools, and the pieces of its calls."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import strategies as st

from parley_events import facts as f
from parley_events import ids
from parley_events.body import Author, Block, Usage
from parley_events.codec import Fact
from parley_events.pieces import Piece

THREAD = "0f0f0f0f-1111-4222-8333-444444444444"
USAGE = Usage()


@dataclass
class Story:
    """`texts`: (call, block) → the whole text of a turn that returned. `spoken`: the same of every attempt, as far as
    the model came. `turns`: run → its turns, each the final texts by block."""

    facts: list[Fact] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    texts: dict[tuple[int, int], str] = field(default_factory=dict)
    spoken: dict[tuple[int, int], str] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)

    def add(self, body: f.FactBody, run: str | None = None) -> int:
        seq = len(self.facts) + 1
        call = getattr(body, "call", None) if isinstance(body, f.ModelReturned | f.ModelFailed) else None
        self.facts.append(Fact(body.type, THREAD, seq, 0, "w", 1000 + seq, body, run_id=run, call=call))
        return seq

    def post(self, n: int) -> str:
        run = ids.run_id(THREAD, f"c{n}")
        self.runs.append(run)
        self.add(
            f.MessagePosted(
                message_id=ids.question_id(THREAD, f"c{n}"),
                run_id=run,
                answer_id=ids.answer_id(run),
                disposition="started",
                author=Author(id="ann"),
                agent_id="assistant",
                agent_version=1,
                text="hi",
            ),
            run,
        )
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
            self.pieces.append(Piece(THREAD, call, block, kind, start, text[start:end], before))  # type: ignore[arg-type]
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

    def end(self, run: str) -> None:
        self.add(f.RunCompleted(run_id=run, message_id=ids.answer_id(run), stop_reason="end_turn", usage=USAGE), run)


words = st.text(st.sampled_from("ab é😀\n"), min_size=1, max_size=12)
cuts = st.lists(st.integers(0, 12), max_size=4)


@st.composite
def stories(draw: st.DrawFn, *, same_words: bool = False, side_by_side: bool = False) -> Story:
    """One or two runs after each other (or side by side, as a child run is), each with turns, blocks and attempts.
    `same_words`: a further attempt begins with what the one before it said."""
    story = Story()
    lanes = [_run(draw, story, n, draw(st.integers(1, 2)), same_words) for n in range(draw(st.integers(1, 2)))]
    if not side_by_side:
        for lane in lanes:
            for _ in lane:
                pass
        return story
    open_lanes = list(lanes)
    while open_lanes:
        lane = open_lanes[draw(st.integers(0, len(open_lanes) - 1))]
        if next(lane, None) is None:
            open_lanes.remove(lane)
    return story


def _run(draw, story: Story, n: int, turns: int, same_words: bool):  # type: ignore[no-untyped-def]
    run = story.post(n)
    yield 1
    for turn in range(turns):
        kinds = draw(st.lists(st.sampled_from(["text", "thought", "tool", "opaque"]), min_size=1, max_size=3))
        final = [draw(words) for _ in kinds]
        attempts = draw(st.integers(1, 3))
        for attempt in range(1, attempts + 1):
            call = story.call(run, turn, attempt)
            yield 1
            last = attempt == attempts
            for index, kind in enumerate(kinds):
                if kind in ("tool", "opaque"):
                    continue
                text = final[index] if last or same_words else draw(words)
                if not last:
                    text = text[: draw(st.integers(0, len(text)))]
                story.speak(call, index, kind, text, draw(cuts))
            if not last:
                # The process may also die without a word: then the next attempt is all that is seen.
                if draw(st.booleans()):
                    story.failed(run, call, turn, attempt)
                    yield 1
                continue
            silent = {
                "tool": lambda index: Block(kind="tool", tool_call_id=f"t{index}", name="clock"),
                "opaque": lambda index: Block(kind="opaque", data={"type": "redacted_thinking"}),
            }
            blocks = [
                silent[kind](index) if kind in silent else Block(kind=kind, text=final[index])
                for index, kind in enumerate(kinds)
            ]
            story.returned(run, call, turn, blocks)
            yield 1
    story.end(run)
    yield 1

"""A stream of `org_chat`, send by send and byte for byte; what every cursor gives; and how a new attempt reads."""

from __future__ import annotations

from pathlib import Path

from parley_events.body import Block, Note
from parley_events.codec import Fact
from parley_events.pieces import Piece
from tests.contract.dialects.transcript import Stage, Transcript
from tests.contract.dialects.watch import Watch
from tests.support.asgi import Exchange, ask, exchange
from tests.support.sse import Frame, frame_of
from tests.unit.gateway.world import WORKSPACE, World, run_id_of, tool_block

BASE = "/api/org/chat"
PAGES = Path(__file__).parent / "transcripts"
MESSAGE = {"structure_id": WORKSPACE, "role_id": "executive-office-cmo", "message": "Launch."}


def text_of(frames: list[Frame], kind: str = "text") -> str:
    return "".join(frame.data["content"] for frame in frames if frame.type == kind)


async def tell(here: World, made: Transcript) -> Exchange:
    stage = Stage(here)
    d = here.dispatcher
    path = f"{BASE}/message"
    async with exchange(here.gateways[0][0], "POST", path, key=here.key, body=MESSAGE) as x:
        watch = Watch(x)
        posted = await stage.posted()
        thread = posted.stream
        call = d.called(posted)
        d.pieces(Piece(thread, call, 0, "thought", 0, "Looking up "))
        await watch.sees("thought")
        d.pieces(Piece(thread, call, 0, "thought", 11, "skills..."))
        await watch.sees("thought")
        skills = {"query": "launch"}
        uses = ("list_skills", "record_decision", "flag_milestone", "learn_skill")
        blocks = (
            Block(kind="thought", text="Looking up skills..."),
            Block(kind="text", text="I'll run it. "),
            *(tool_block(name, call, skills) for name in uses),
        )
        d.returned(posted, call, *blocks)
        await watch.sees("text")
        d.use(posted, call, "list_skills", skills, '{"matched":"ad-campaigns"}')
        await watch.sees("tool_call", "tool_result")
        notes = {
            "record_decision": Note(kind="decision", id="d1", title="Go", body="We go."),
            "flag_milestone": Note(kind="milestone", id="m1", title="Launched"),
            "learn_skill": Note(kind="skill", id="s1", slug="ads", name="Advertising"),
        }
        for index, (name, note) in enumerate(notes.items(), 1):
            d.use(posted, call, name, skills, "kept", note=note, index=index)
            await watch.sees("tool_call", "tool_result", {"skill": "skill_learned"}.get(note.kind, note.kind))
        call = d.called(posted, turn=1)
        d.pieces(Piece(thread, call, 0, "text", 0, "Launched "))
        await watch.sees("text")
        d.returned(posted, call, Block(kind="text", text="Launched 3 campaigns"), turn=1)
        await watch.sees("text")
        d.completed(posted)
        await watch.sees("complete")
        await watch.ends()
        made.request("POST", path, {"body": MESSAGE})
        made.answer(x)
    end = d.state(thread).seq
    await here.eventually(lambda: len(here.past.facts[thread]) == end)
    return x


async def test_a_run_is_streamed_frame_by_frame(here: World) -> None:
    made = Transcript(here)
    x = await tell(here, made)
    run = x.headers["parley-run-id"]
    assert x.headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
        "parley-run-id": run,
        "parley-position": f"{run[:36]}@1",
    }
    frames = [frame_of(part) for part in x.parts]
    assert all(set(frame.data) == {"type", "content", "timestamp"} for frame in frames)
    assert all(frame.id for frame in frames)
    made.note("the same run, read when it has ended")
    await made.ask("GET", f"{BASE}/runs/{run}/events")
    made.compare(PAGES / "stream.txt")


async def test_every_id_gives_exactly_the_rest(here: World) -> None:
    await here.application()
    x = await tell(here, Transcript(here))
    frames = [frame_of(part) for part in x.parts]
    path = f"{BASE}/runs/{x.headers['parley-run-id']}/events"
    facts = [frame.data for frame in frames if frame.type not in ("text", "thought")]
    assert sum("-" in str(frame.id) for frame in frames) == 3, "cursors between the frames of one fact are among them"
    for place, frame in enumerate(frames):
        headers = {"Last-Event-ID": str(frame.id)}
        again = await ask(here.gateways[place % 2][0], "GET", path, key=here.key, headers=headers)
        assert again.status == 200 and again.over
        both = frames[: place + 1] + [frame_of(part) for part in again.parts]
        assert [b.data for b in both if b.type not in ("text", "thought")] == facts, frame.id
        assert text_of(both) == "I'll run it. Launched 3 campaigns", frame.id
        assert text_of(both, "thought") == "Looking up skills...", frame.id
        assert [b.type in ("complete", "error") for b in both] == [False] * (len(both) - 1) + [True]
    assert facts[-1]["content"]["summary"] == "Launched 3 campaigns"


class Live:
    """A stream whose run is in the test's hands; `resumed` leaves it at its last frame and comes back elsewhere."""

    def __init__(self, here: World) -> None:
        self.here, self.stage, self.frames = here, Stage(here), list[Frame]()

    async def begin(self) -> Fact:
        app = self.here.gateways[0][0]
        late = await ask(app, "POST", f"{BASE}/message/sync", key=self.here.key, params={"wait": "0"}, body=MESSAGE)
        self.path = f"{BASE}/runs/{late.headers['parley-run-id']}/events"
        return await self.stage.posted()

    async def follow(self, *types: str, gateway: int = 0) -> None:
        """Come (back), and see frames of these types, then leave."""
        headers = {"Last-Event-ID": str(self.frames[-1].id)} if self.frames else {}
        app = self.here.gateways[gateway][0]
        async with exchange(app, "GET", self.path, key=self.here.key, headers=headers) as x:
            self.frames += await Watch(x).sees(*types)


async def test_a_new_attempt_with_the_same_words_is_not_seen(here: World) -> None:
    live = Live(here)
    d = here.dispatcher
    posted = await live.begin()
    call = d.called(posted)
    d.pieces(Piece(posted.stream, call, 0, "text", 0, "Launched "))
    await live.follow("text")
    d.failed(posted, call)
    call = d.called(posted, attempt=2)
    d.pieces(Piece(posted.stream, call, 0, "text", 0, "Launched 3 "))
    await live.follow("text")
    d.returned(posted, call, Block(kind="text", text="Launched 3 campaigns"))
    d.completed(posted)
    await live.follow("text", "complete")
    assert text_of(live.frames) == "Launched 3 campaigns"
    assert [frame.data["content"] for frame in live.frames[:3]] == ["Launched ", "3 ", "campaigns"]


async def test_a_new_attempt_with_other_words_comes_after_a_blank_line(here: World) -> None:
    await here.application()
    live = Live(here)
    d = here.dispatcher
    posted = await live.begin()
    call = d.called(posted)
    d.pieces(Piece(posted.stream, call, 0, "text", 0, "Launched "))
    await live.follow("text")
    d.failed(posted, call)
    call = d.called(posted, attempt=2)
    d.pieces(Piece(posted.stream, call, 0, "text", 0, "La"))
    d.pieces(Piece(posted.stream, call, 0, "text", 2, "ter. "))
    await live.follow("text", gateway=1)
    d.returned(posted, call, Block(kind="text", text="Later. Really."))
    d.completed(posted)
    await live.follow("text", "complete")
    assert text_of(live.frames) == "Launched \n\nLater. Really."
    assert live.frames[-1].data["content"]["summary"] == "Later. Really.", "the stored message rules"


async def test_a_failed_run_ends_in_one_error(here: World) -> None:
    stage = Stage(here)
    d = here.dispatcher
    async with exchange(here.gateways[0][0], "POST", f"{BASE}/message", key=here.key, body=MESSAGE) as x:
        watch = Watch(x)
        posted = await stage.posted()
        call = d.called(posted)
        d.failed(posted, call, retry=False)
        d.ended(posted, "400", "no")
        [error] = await watch.sees("error")
        await watch.ends()
    assert error.data["content"] == {"message": "no", "code": "model_400"}


async def test_a_cancelled_run_ends_in_one_error(here: World) -> None:
    stage = Stage(here)
    d = here.dispatcher
    app = here.gateways[0][0]
    async with exchange(app, "POST", f"{BASE}/message", key=here.key, body=MESSAGE) as x:
        watch = Watch(x)
        posted = await stage.posted()
        call = d.called(posted)
        assert (await ask(app, "POST", f"/api/v1/chat/runs/{run_id_of(posted)}/cancel", key=here.key)).status == 200
        d.cancelled(posted, call, Block(kind="text", text="So far"))
        _, error = await watch.sees("text", "error")
        await watch.ends()
    assert error.data["content"] == {"message": "cancelled", "code": "cancelled"}

"""Every request of `org_chat` that is not a stream: its command, and its answer byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parley_events.body import Block, Note
from parley_events.commands import PostMessage
from parley_events.pieces import Piece
from tests.contract.dialects.transcript import Stage, Transcript
from tests.support.asgi import ask, exchange
from tests.support.sse import frame_of
from tests.unit.gateway.world import STRUCTURE, WORKSPACE, World, run_id_of, say, tool_block

BASE = "/api/org/chat"
PAGES = Path(__file__).parent / "transcripts"
ROLE = "executive-office-cmo"
NODE = {"structure_id": WORKSPACE, "role_id": ROLE}
QUERY = f"structure_id={WORKSPACE}&role_id={ROLE}"


async def test_sync_answers_with_all_events_and_history_has_both_sides(here: World) -> None:
    here.dispatcher.play = say("Launched ", "3 campaigns")
    made = Transcript(here)
    made.note("nothing was said here yet")
    await made.ask("GET", f"{BASE}/history?{QUERY}")
    asked = {**NODE, "message": "Launch.", "attachments": [], "channel": "a field that nobody knows"}
    for _ in range(2):
        await made.ask("POST", f"{BASE}/message/sync", body=asked, headers={"Idempotency-Key": "k"})
    made.note("under the same key with another body")
    await made.ask("POST", f"{BASE}/message/sync", body={**asked, "message": "Stop."}, headers={"Idempotency-Key": "k"})
    made.note("another structure of the same workspace has a chat of its own; the role by its agent's id")
    other = {"structure_id": STRUCTURE, "role_id": "assistant", "message": "Hi."}
    await made.ask("POST", f"{BASE}/message/sync", body=other)
    await made.ask("GET", f"{BASE}/history?{QUERY}")
    await made.ask("GET", f"{BASE}/history?structure_id={STRUCTURE}&role_id=assistant&limit=1")
    made.compare(PAGES / "sync.txt")


async def test_the_request_of_the_contracts_own_page_is_taken(here: World) -> None:
    """As it stands there, but for what is left out: the workspace, and the bytes of the file."""
    asked = {
        "structure_id": WORKSPACE,
        "role_id": "executive-office-cmo",
        "message": "Launch this week's paid campaigns.",
        "attachments": [
            {"name": "marketing-plan.pdf", "content_base64": "JVBERi0=", "content_type": "application/pdf"}
        ],
    }
    answer = await ask(here.gateways[0][0], "POST", f"{BASE}/message", key=here.key, body=asked)
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/event-stream")
    assert frame_of(answer.parts[-1]).type == "complete"
    posted = here.dispatcher.heard[-1].body
    assert isinstance(posted, PostMessage)
    assert (posted.text, posted.agent_id) == ("Launch this week's paid campaigns.", "assistant")
    [file] = posted.attachments
    assert (file.name, file.content_type, file.size) == ("marketing-plan.pdf", "application/pdf", 5)


async def test_past_the_wait_it_is_polled(here: World) -> None:
    stage = Stage(here)
    made = Transcript(here)
    late = await made.ask("POST", f"{BASE}/message/sync?wait=0", body={**NODE, "message": "Go."})
    posted = await stage.posted()
    await made.ask("GET", late.json()["poll_url"])
    call = here.dispatcher.called(posted)
    here.dispatcher.speak(posted, call, ("Do", "ne"), block=1)
    here.dispatcher.returned(posted, call, Block(kind="thought", text="Hm."), Block(kind="text", text="Done"))
    here.dispatcher.completed(posted)
    await made.ask(
        "GET", f"{late.json()['poll_url']}?min_position={posted.stream}@{here.dispatcher.state(posted.stream).seq}"
    )
    made.compare(PAGES / "poll.txt")


async def test_a_run_that_fails_or_is_cancelled_is_200_with_an_error_event(here: World) -> None:
    stage = Stage(here)
    made = Transcript(here)
    for end in ("failed", "cancelled"):
        late = await made.ask("POST", f"{BASE}/message/sync?wait=0", body={**NODE, "message": end})
        posted = await stage.posted()
        call = here.dispatcher.called(posted)
        if end == "failed":
            here.dispatcher.failed(posted, call, retry=False)
            here.dispatcher.ended(posted, "cut", "the stream broke")
        else:
            here.dispatcher.cancelled(posted, call, Block(kind="text", text="So far"))
        position = f"{posted.stream}@{here.dispatcher.state(posted.stream).seq}"
        await made.ask("GET", f"{late.json()['poll_url']}?min_position={position}")
    made.compare(PAGES / "errors.txt")


async def test_decisions_and_milestones_are_in_the_log(here: World) -> None:
    stage = Stage(here)
    made = Transcript(here)
    late = await made.ask("POST", f"{BASE}/message/sync?wait=0", body={**NODE, "message": "Decide."})
    posted = await stage.posted()
    d = here.dispatcher
    call = d.called(posted)
    d.returned(posted, call, *(tool_block(name, call, {}) for name in ("decide", "flag")))
    notes = (
        Note(kind="decision", id="d1", title="Go", body="We go."),
        Note(kind="milestone", id="m1", title="Launched"),
    )
    for index, (name, note) in enumerate(zip(("decide", "flag"), notes, strict=True)):
        d.use(posted, call, name, {}, "ok", note=note, index=index)
    d.completed(posted)
    position = f"{posted.stream}@{d.state(posted.stream).seq}"
    await made.ask("GET", f"{late.json()['poll_url']}?min_position={position}")
    await made.ask("GET", f"/api/org/log?structure_id={WORKSPACE}")
    made.compare(PAGES / "log.txt")


async def test_what_is_not_there_is_said_to(here: World) -> None:
    made = Transcript(here)
    message = {**NODE, "message": "Go."}
    made.note("no UUID; nobody's structure; nobody's role; no role; no message")
    for changes in (
        {"structure_id": "acme"},
        {"structure_id": "99999999-2222-4333-8444-555555555555"},
        {"role_id": "nobody"},
        {"role_id": None},
        {"message": " "},
    ):
        await made.ask("POST", f"{BASE}/message", body={**message, **changes})
    await made.ask("GET", f"{BASE}/history?structure_id={WORKSPACE}")
    await made.ask("GET", f"{BASE}/history")
    await made.ask("GET", "/api/org/log")
    made.note("an attachment with a path in its name; a file that is not there")
    files = [{"name": "../plan.txt", "content_base64": "aGk=", "content_type": "text/plain"}]
    await made.ask("POST", f"{BASE}/message", body={**message, "attachments": files})
    await made.ask("GET", f"{BASE}/artifacts/plan.txt?{QUERY}")
    made.compare(PAGES / "refused.txt")


async def test_every_member_speaks_in_the_same_chat(here: World) -> None:
    """The author is on each message; another structure's chat is another one."""
    app = here.gateways[0][0]
    bob = (await ask(app, "POST", "/api/v1/keys", key=here.admin_key, body={"user": "bob", "scopes": ["*"]})).json()[
        "key"
    ]
    for key, text in ((here.key, "from ann"), (bob, "from bob")):
        said = await ask(app, "POST", f"{BASE}/message/sync", key=key, body={**NODE, "message": text})
        assert said.status == 200
    end = here.dispatcher.state(here.dispatcher.heard[-1].stream).seq
    for key in (here.key, bob):
        params = {**NODE, "min_position": f"{here.dispatcher.heard[-1].stream}@{end}"}
        rows = (await ask(app, "GET", f"{BASE}/history", key=key, params=params)).json()
        assert [(row["content"], row["author"]["name"]) for row in rows if row["role"] == "user"] == [
            ("from bob", "bob"),
            ("from ann", "ann"),
        ]
    run = said.headers["parley-run-id"]
    assert (await ask(app, "GET", f"{BASE}/runs/{run}", key=here.key)).status == 200, "a run of the chat is everyone's"


async def test_one_text_event_per_block_however_the_pieces_came(here: World) -> None:
    """A repeated call finds the hub holding pieces of the open turn: a sync answer has no use for them."""
    stage = Stage(here)
    app = here.gateways[0][0]
    options: dict[str, Any] = {"key": here.key, "body": {**NODE, "message": "Go."}, "headers": {"Idempotency-Key": "k"}}
    d = here.dispatcher
    await ask(app, "POST", f"{BASE}/message/sync", params={"wait": "0"}, **options)
    posted = await stage.posted()
    call = d.called(posted)
    d.pieces(Piece(posted.stream, call, 0, "text", 0, "Do"))
    await here.eventually(lambda: here.core.hub.kept(posted.stream))
    here.past.asked.clear()
    async with exchange(app, "POST", f"{BASE}/message/sync", **options) as x:
        await here.eventually(lambda: here.core.hub.listening == 1 and any("facts" in a for a in here.past.asked))
        d.returned(posted, call, Block(kind="text", text="Done"))
        d.completed(posted)
        await x.end()
    assert [(e["type"], e["content"]) for e in x.json()["events"]][:-1] == [("text", "Done")]
    assert x.headers["parley-run-id"] == run_id_of(posted)

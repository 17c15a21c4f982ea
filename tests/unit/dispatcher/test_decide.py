"""What each command means: given facts, when a command, then its one outcome."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from parley_dispatcher import decide as decide_module
from parley_dispatcher.decide import DECISIONS, DEFAULT_AGENT, answering_agent, decide
from parley_dispatcher.state import REMEMBER_MS, initial
from parley_events import commands as c
from parley_events import facts as f
from parley_events import ids
from parley_events.body import Author, Principal, TeamSpec, ThreadSeed
from parley_events.codec import Command
from tests.unit.dispatcher.story import SAY, STREAM, THREAD, Story, changed, code, text, use, workspace
from tests.unit.dispatcher.world import ANN, BOB, WORKSPACE, agent

ADMIN = Principal(user_id="root", admin=True)
SEED = ThreadSeed(user_id="ann")


# ---- a message


def test_a_message_to_a_new_thread_makes_it_and_starts_a_run() -> None:
    story = Story()
    outcome = story.asked(SAY, "c1")
    assert isinstance(outcome, f.MessagePosted)
    assert (outcome.run_id, outcome.message_id) == (ids.run_id(THREAD, "c1"), ids.question_id(THREAD, "c1"))
    assert outcome.answer_id == ids.answer_id(outcome.run_id)
    assert (outcome.disposition, outcome.opened, outcome.agent_version) == ("started", SAY.open, 1)
    assert outcome.author == Author(kind="user", id="ann", name="Ann")


def test_a_message_while_a_run_is_open_is_queued_and_one_after_its_end_is_started() -> None:
    story = Story()
    first = story.posted()
    assert story.asked(SAY, "c2").disposition == "queued"
    story.returned(first, text("hi"))
    story.completed(first)
    assert story.asked(SAY, "c3").disposition == "queued", "the second is open still"
    second, third = list(story.thread.open_runs.values())
    story.cancelled(second)
    story.cancelled(third)
    assert story.asked(SAY, "c4").disposition == "started"


def test_a_message_opens_only_what_does_not_exist() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=SEED))
    assert story.asked(SAY).opened is None
    closed = c.PostMessage(principal=ANN, text="x", agent_id="scripted")
    assert code(Story().asked(closed)) == "not_found"


def test_what_a_message_carries_is_in_its_fact() -> None:
    body = SAY.model_copy(
        update={
            "author": Author(kind="agent", id="a2"),
            "context": {"page": 1},
            "lead_context": {"lead": 2},
            "metadata": {"m": 3},
            "knowledge_ids": (THREAD,),
            "workspace_seq": 4,
            "system_prompt": "p",
            "system_append": "q",
        }
    )
    outcome = Story().asked(body)
    for name in (
        *("author", "context", "lead_context", "metadata", "knowledge_ids", "workspace_seq"),
        *("system_prompt", "system_append"),
    ):
        assert getattr(outcome, name) == getattr(body, name)


@pytest.mark.parametrize(
    ("bound", "named", "answers"),
    [
        (None, None, DEFAULT_AGENT),
        (None, "analyst", "analyst"),
        ("analyst", None, "analyst"),
        ("analyst", "analyst", "analyst"),
    ],
)
def test_the_bound_agent_answers_else_the_one_named_else_the_default(
    bound: str | None, named: str | None, answers: str
) -> None:
    body = c.PostMessage(principal=ANN, text="x", agent_id=named, open=ThreadSeed(agent_id=bound))
    assert Story().asked(body).agent_id == answers
    thread = Story(THREAD, f.ThreadCreated(seed=ThreadSeed(agent_id=bound)))
    assert thread.asked(body.model_copy(update={"open": None})).agent_id == answers


def test_a_bound_thread_refuses_another_agent() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed(user_id="ann", agent_id="analyst")))
    assert code(story.asked(SAY)) == "invalid"


def test_an_agent_that_is_not_there_is_refused() -> None:
    assert code(Story().asked(SAY, version=None)) == "unknown_agent"


def test_only_a_message_asks_for_an_agent() -> None:
    def needed(stream: str, body: c.CommandBody) -> str | None:
        return answering_agent(initial(stream), Command("c", stream, WORKSPACE, 0, body))

    assert needed(THREAD, SAY) == "scripted"
    assert needed(THREAD, c.DeleteThread(principal=ANN)) is None
    assert needed(STREAM, SAY) is None


def test_an_expired_session_takes_no_message() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=SEED), f.ThreadExpired(idle_since_ms=0))
    assert code(story.asked(SAY)) == "session_expired"


# ---- who may


COMMANDS: list[c.CommandBody] = [
    SAY,
    c.UpdateThread(principal=ANN, title="t", changes=("title",)),
    c.DeleteThread(principal=ANN),
    c.ClearThread(principal=ANN),
    c.MarkRead(principal=ANN, up_to=1),
    c.CancelRun(principal=ANN, run_id=ids.run_id(THREAD, "one")),
    c.CancelThread(principal=ANN),
]


def opened() -> Story:
    story = Story(THREAD, f.ThreadCreated(seed=SEED))
    story.posted()
    return story


@pytest.mark.parametrize("body", COMMANDS, ids=lambda body: body.type)
def test_another_users_another_workspaces_and_a_deleted_thread_look_like_none(body: c.CommandBody) -> None:
    assert code(opened().asked(body.model_copy(update={"principal": BOB}))) == "not_found"
    assert code(opened().asked(body, workspace_id="99999999-2222-4333-8444-555555555555")) == "not_found"
    deleted = opened()
    deleted.happened(f.ThreadDeleted())
    assert code(deleted.asked(body)) == "not_found"


@pytest.mark.parametrize("body", COMMANDS, ids=lambda body: body.type)
def test_its_user_an_admin_and_members_of_a_shared_thread_may(body: c.CommandBody) -> None:
    assert not isinstance(opened().asked(body), f.CommandRejected)
    assert not isinstance(opened().asked(body.model_copy(update={"principal": ADMIN})), f.CommandRejected)
    shared = Story(THREAD, f.ThreadCreated(seed=ThreadSeed()))
    shared.posted()
    assert not isinstance(shared.asked(body.model_copy(update={"principal": BOB})), f.CommandRejected)


# ---- threads


def test_a_thread_is_made_once() -> None:
    story = Story()
    assert story.asked(c.CreateThread(principal=ANN, seed=SEED), "c1") == f.ThreadCreated(seed=SEED)
    assert code(story.asked(c.CreateThread(principal=ANN, seed=SEED), "c2")) == "exists"


def test_an_update_names_what_it_changes() -> None:
    body = c.UpdateThread(principal=ANN, title=None, pinned=True, changes=("title", "pinned"))
    outcome = opened().asked(body)
    assert (outcome.changes, outcome.title, outcome.pinned) == (("title", "pinned"), None, True)


@pytest.mark.parametrize("body", [c.DeleteThread(principal=ANN), c.ClearThread(principal=ANN)])
def test_deleting_and_clearing_mark_what_runs_as_cancelling(body: c.CommandBody) -> None:
    story = opened()
    story.asked(SAY, "c2")
    story.asked(body, "c3")
    assert [run.status for run in story.thread.open_runs.values()] == ["cancelling", "cancelling"]


def test_a_read_mark_is_the_principals_and_goes_no_further_than_the_thread() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed()))
    story.posted()
    assert story.asked(c.MarkRead(principal=BOB, up_to=1), "m1") == f.ThreadRead(user_id="bob", up_to=1)
    assert story.thread.seq == 3
    assert story.asked(c.MarkRead(principal=BOB, up_to=7), "m2") == f.ThreadRead(user_id="bob", up_to=3)


def test_that_somebody_read_it_keeps_no_session_from_expiring() -> None:
    story = Story(THREAD, f.ThreadCreated(seed=ThreadSeed(idle_s=60)))
    idle_since = story.thread.last_ms
    story.now_ms += 50_000
    story.asked(c.MarkRead(principal=ANN, up_to=1))
    assert story.thread.last_ms == idle_since


# ---- cancelling


def test_cancelling_a_run_that_has_its_turn_begins_its_end() -> None:
    story = opened()
    run = story.thread.current()
    assert run is not None
    outcome = story.asked(c.CancelRun(principal=ANN, run_id=run.run_id, reason="enough"))
    assert outcome == f.RunCancelling(run_id=run.run_id, by="ann", reason="enough")
    assert run.status == "cancelling"


def test_cancelling_a_queued_run_ends_it_at_once() -> None:
    story = opened()
    queued = story.posted("two")
    outcome = story.asked(c.CancelRun(principal=ANN, run_id=queued.run_id))
    assert (outcome.type, outcome.message_id) == ("run.cancelled", queued.answer_id)
    assert queued.ended


def test_cancelling_a_parked_run_begins_its_end_as_of_one_that_runs() -> None:
    story = opened()
    run = story.thread.current()
    assert run is not None
    story.returned(run, use("publish", "t1"))
    story.requested(run)
    story.waiting(run)
    outcome = story.asked(c.CancelRun(principal=ANN, run_id=run.run_id))
    assert (outcome.type, run.status) == ("run.cancelling", "cancelling")


@pytest.mark.parametrize("first", ["run", "thread", "clear"])
def test_cancelling_what_is_being_cancelled_is_told_what_stopped_it(first: str) -> None:
    story = opened()
    run = story.thread.current()
    assert run is not None
    cancel = c.CancelRun(principal=ANN, run_id=run.run_id)
    bodies = {"run": cancel, "thread": c.CancelThread(principal=ANN), "clear": c.ClearThread(principal=ANN)}
    story.asked(bodies[first], "c1")
    seq, story.now_ms = story.state.seq, story.now_ms + 5
    again = story.asked(cancel, "c2")
    assert (again.type, again.outcome_type, again.outcome_seq) == ("command.repeated", "run.cancelling", seq)
    assert (again.outcome_time_ms, again.first) == (story.now_ms - 5, {"run_id": run.run_id, "by": "ann", "code": None})
    assert story.state.seq == seq


def test_cancelling_a_thread_stops_all_that_is_open_in_it() -> None:
    story = opened()
    queued = story.posted("two")
    first = story.thread.current()
    assert first is not None
    outcome = story.asked(c.CancelThread(principal=ANN, reason="enough"), "c1")
    assert outcome == f.ThreadCancelling(by="ann", reason="enough", run_ids=(first.run_id, queued.run_id))
    assert (first.status, queued.status, queued.cancel_reason) == ("cancelling", "cancelling", "enough")
    again = story.asked(c.CancelThread(principal=ANN), "c2")
    assert again.run_ids == (first.run_id, queued.run_id), "they are open still"
    assert first.cancel_reason == "enough"


def test_a_timer_that_comes_as_a_command_is_refused() -> None:
    fire = c.FireTimer(principal=ADMIN, due_key="session", due_at_ms=1)
    assert code(opened().asked(fire)) == "forbidden"


def test_cancelling_what_has_ended_is_not_there_or_is_a_child_is_refused() -> None:
    story = opened()
    run = story.thread.current()
    assert run is not None
    story.happened(
        f.ChildStarted(
            run_id="child", parent_run_id=run.run_id, tool_call_id="t", agent_id="a", agent_version=1, text=""
        )
    )
    assert code(story.asked(c.CancelRun(principal=ANN, run_id="child"), "c2")) == "not_found"
    assert code(story.asked(c.CancelRun(principal=ANN, run_id="none"), "c3")) == "not_found"
    story.completed(run)
    assert code(story.asked(c.CancelRun(principal=ANN, run_id=run.run_id), "c4")) == "not_open"


# ---- the same command again


def test_a_command_that_comes_again_is_told_its_first_outcome() -> None:
    story = Story()
    first = story.asked(SAY, "c1")
    again = story.asked(SAY, "c1")
    assert isinstance(again, f.CommandRepeated)
    assert (again.command_type, again.outcome_type, again.outcome_seq) == ("message.post", "message.posted", 1)
    assert again.first["run_id"] == first.run_id
    assert "text" not in again.first, "a receipt has no content"
    assert len(story.thread.runs) == 1
    assert story.state.seq == 1
    assert story.asked(SAY, "c1") == again


def test_the_same_id_with_another_body_is_refused_and_the_first_outcome_stands() -> None:
    story = Story()
    story.asked(SAY, "c1")
    assert code(story.asked(SAY, "c1", body_hash="other")) == "idempotency_conflict"
    assert story.asked(SAY, "c1").outcome_type == "message.posted"


def test_a_refusal_stands_when_the_command_comes_again() -> None:
    story = Story()
    assert code(story.asked(SAY, "c1", version=None)) == "unknown_agent"
    again = story.asked(SAY, "c1")
    assert (again.type, again.outcome_type, again.outcome_seq) == ("command.repeated", "command.rejected", None)
    assert again.first["code"] == "unknown_agent"
    assert not story.thread.exists


def test_a_command_is_recognised_for_seven_days_of_record_time() -> None:
    story = Story()
    story.asked(SAY, "c1")
    story.now_ms += REMEMBER_MS
    story.asked(SAY, "c2")
    assert story.asked(SAY, "c1").type == "command.repeated"
    story.now_ms += 1
    story.asked(SAY, "c3")
    assert story.asked(SAY, "c1").type == "message.posted"
    assert REMEMBER_MS == 7 * 24 * 3600 * 1000


# ---- workspaces


def test_a_workspace_is_made_once_and_under_its_own_id() -> None:
    body = c.CreateWorkspace(principal=ADMIN, workspace_id=WORKSPACE, name="default")
    assert Story(STREAM).asked(body).type == "workspace.created"
    assert code(workspace().asked(body)) == "exists"
    other = body.model_copy(update={"workspace_id": "99999999-2222-4333-8444-555555555555"})
    assert code(Story(STREAM).asked(other)) == "invalid"


KEY = c.CreateKey(principal=ADMIN, key_id="k1", key_hash="0" * 64, user_id="ann", scopes=("*",))


@pytest.mark.parametrize(
    "body",
    [
        KEY,
        c.ChangeWorkspace(principal=ADMIN, context="c"),
        c.PutAgent(principal=ADMIN, spec=agent("a")),
        c.PutTeam(principal=ADMIN, spec=TeamSpec(team_id="t", name="T", members=())),
    ],
)
def test_nothing_is_put_into_a_workspace_that_is_not_there(body: c.CommandBody) -> None:
    assert code(Story(STREAM).asked(body)) == "not_found"


def test_a_key_lives_from_its_making_over_rotations_to_its_revocation() -> None:
    story = workspace()
    rotate = c.RotateKey(principal=ADMIN, key_id="k1", key_hash="1" * 64)
    revoke = c.RevokeKey(principal=ADMIN, key_id="k1")
    assert code(story.asked(rotate, "c0")) == "not_found"
    assert story.asked(KEY, "c1").type == "key.created"
    assert code(story.asked(KEY, "c2")) == "exists"
    assert story.asked(rotate, "c3").key_hash == "1" * 64
    assert story.asked(revoke, "c4").type == "key.revoked"
    assert code(story.asked(rotate, "c5")) == code(story.asked(revoke, "c6")) == "not_found"


def test_each_change_of_an_agent_is_a_new_version_and_none_is_none() -> None:
    story = workspace()
    put = c.PutAgent(principal=ADMIN, spec=agent("a"), digest="d1")
    assert story.asked(put, "c1").agent_version == 1
    unchanged = story.asked(put, "c2")
    assert (unchanged.type, unchanged.outcome_type) == ("command.repeated", "agent.changed")
    by_hand = c.PutAgent(principal=ADMIN, spec=agent("a", description="edited"))
    assert story.asked(by_hand, "c3").agent_version == 2
    assert story.asked(put, "c4").type == "command.repeated", "a restart with the same file undoes no edit"
    assert story.asked(put.model_copy(update={"digest": "d2"}), "c5").agent_version == 3


def test_a_deleted_agent_stays_deleted_until_somebody_wants_it_again() -> None:
    story = workspace(changed("a", 1, "d1"))
    delete = c.DeleteAgent(principal=ADMIN, agent_id="a")
    assert story.asked(delete, "c1").type == "agent.deleted"
    assert code(story.asked(delete, "c2")) == "not_found"
    put = c.PutAgent(principal=ADMIN, spec=agent("a"), digest="d1")
    unchanged = story.asked(put, "c3")
    assert (unchanged.type, unchanged.first) == ("command.repeated", {"deleted": True}), "a restart undoes no deletion"
    assert story.asked(put.model_copy(update={"digest": "d2"}), "c4").agent_version == 2, "a changed file does"
    story.asked(delete, "c5")
    assert story.asked(put.model_copy(update={"digest": None}), "c6").agent_version == 3, "and so does who asks for it"
    assert story.asked(put.model_copy(update={"digest": "d2"}), "c7").first == {}


def test_who_changes_what_somebody_else_changed_meanwhile_is_told() -> None:
    story = workspace(changed("a", 1, "d1"))
    put = c.PutAgent(principal=ADMIN, spec=agent("a"), expected=1)
    assert story.asked(put, "c1").agent_version == 2
    assert code(story.asked(put, "c2")) == "conflict"
    assert code(story.asked(put.model_copy(update={"expected": 0}), "c3")) == "exists"
    story.asked(c.DeleteAgent(principal=ADMIN, agent_id="a"), "c4")
    assert code(story.asked(put.model_copy(update={"expected": 2}), "c5")) == "not_found"
    assert story.asked(put.model_copy(update={"expected": 0}), "c6").agent_version == 3
    team = c.PutTeam(principal=ADMIN, spec=TeamSpec(team_id="t", name="T", members=("a",)), expected=0)
    assert story.asked(team, "c7").team_version == 1
    assert code(story.asked(team, "c8")) == "exists"
    assert code(story.asked(team.model_copy(update={"expected": 7}), "c9")) == "conflict"


def test_there_are_only_so_many_agents_and_teams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide_module, "MOST", 2)
    story = workspace(changed("a"), changed("b"))
    put = c.PutAgent(principal=ADMIN, spec=agent("c"))
    assert code(story.asked(put, "c1")) == "too_many"
    assert story.asked(c.PutAgent(principal=ADMIN, spec=agent("b")), "c2").agent_version == 2, "there already"
    story.asked(c.DeleteAgent(principal=ADMIN, agent_id="a"), "c3")
    assert story.asked(put, "c4").agent_version == 1
    assert code(story.asked(c.PutAgent(principal=ADMIN, spec=agent("a")), "c5")) == "too_many"
    for number, outcome in enumerate(("team.changed", "team.changed", "command.rejected")):
        team = TeamSpec(team_id=f"t{number}", name="T", members=("b",))
        assert story.asked(c.PutTeam(principal=ADMIN, spec=team), f"t{number}").type == outcome


def test_an_agent_that_a_team_names_is_not_deleted() -> None:
    story = workspace(changed("a"), changed("b"))
    team = TeamSpec(team_id="t", name="T", members=("a",), lead="b")
    story.asked(c.PutTeam(principal=ADMIN, spec=team, digest="d"), "c1")
    for number, name in enumerate(("a", "b")):
        assert code(story.asked(c.DeleteAgent(principal=ADMIN, agent_id=name), f"d{number}")) == "in_use"
    story.asked(c.DeleteTeam(principal=ADMIN, team_id="t"), "c2")
    assert story.asked(c.DeleteAgent(principal=ADMIN, agent_id="a"), "c3").type == "agent.deleted"
    again = story.asked(c.PutTeam(principal=ADMIN, spec=team, digest="d"), "c4")
    assert again.first == {"deleted": True}, "a file that did not change brings no team back, either"


def test_a_team_needs_its_members_and_its_lead() -> None:
    story = workspace(changed("a"), changed("b"))
    team = TeamSpec(team_id="t", name="T", members=("a", "b"), lead="a")
    put = c.PutTeam(principal=ADMIN, spec=team, digest="d")
    assert story.asked(put, "c1").team_version == 1
    assert story.asked(put, "c2").type == "command.repeated"
    ghost = c.PutTeam(principal=ADMIN, spec=team.model_copy(update={"members": ("a", "ghost")}))
    assert code(story.asked(ghost, "c3")) == "unknown_agent"
    ghost = c.PutTeam(principal=ADMIN, spec=team.model_copy(update={"lead": "ghost"}))
    assert code(story.asked(ghost, "c4")) == "unknown_agent"
    assert story.asked(c.DeleteTeam(principal=ADMIN, team_id="t"), "c5").type == "team.deleted"
    assert code(story.asked(c.DeleteTeam(principal=ADMIN, team_id="t"), "c6")) == "not_found"


def test_a_skill_from_a_file_is_put_once_and_again_when_the_file_changes() -> None:
    story = workspace(changed("a"), changed("b"))
    put = c.PutSkill(
        principal=ADMIN, agent_id="a", slug="tea", name="Tea", description="Hot.", body="Boil.", digest="d"
    )
    first = story.asked(put, "c1")
    assert (first.type, first.agent_id, first.slug, first.body) == ("skill.changed", "a", "tea", "Boil.")
    unchanged = story.asked(put, "c2")
    assert (unchanged.type, unchanged.outcome_type) == ("command.repeated", "skill.changed")
    by_hand = put.model_copy(update={"digest": None, "body": "Simmer."})
    assert story.asked(by_hand, "c3").body == "Simmer."
    assert story.asked(put, "c4").type == "command.repeated", "a restart with the same file undoes no edit"
    assert story.asked(put.model_copy(update={"digest": "d2"}), "c5").type == "skill.changed"
    assert story.asked(put.model_copy(update={"agent_id": "b"}), "c6").type == "skill.changed", "another agent's"
    assert code(story.asked(put.model_copy(update={"agent_id": "ghost"}), "c7")) == "unknown_agent"
    story.asked(c.DeleteAgent(principal=ADMIN, agent_id="b"), "c8")
    assert code(story.asked(put.model_copy(update={"agent_id": "b", "digest": "x"}), "c9")) == "unknown_agent"
    assert story.asked(put.model_copy(update={"agent_id": "b"}), "c10").type == "command.repeated", "as the file was"


def test_settings_from_the_same_file_change_nothing() -> None:
    story = workspace()
    change = c.ChangeWorkspace(principal=ADMIN, context="know this", digest="d")
    assert story.asked(change, "c1").context == "know this"
    assert story.asked(change, "c2").type == "command.repeated"


# ---- every command


BODIES: dict[str, dict[str, Any]] = {
    "skill.put": {"agent_id": "a", "slug": "s", "name": "S", "body": "x"},
    "thread.create": {"seed": {}},
    "thread.update": {"changes": []},
    "thread.fork": {"source_thread_id": THREAD},
    "message.post": {"text": "x"},
    "run.cancel": {"run_id": "x"},
    "approval.answer": {"approval_id": "x", "decision": "deny"},
    "tool.answer": {"tool_call_id": "x", "result": ""},
    "tool.settle": {"tool_call_id": "x", "happened": True},
    "thread.mark_read": {"up_to": 1},
    "timer.fire": {"due_key": "x", "due_at_ms": 1},
    "workspace.create": {"workspace_id": WORKSPACE, "name": "x"},
    "key.create": {"key_id": "x", "key_hash": "0" * 64, "user_id": "x", "scopes": []},
    "key.rotate": {"key_id": "x", "key_hash": "0" * 64},
    "key.revoke": {"key_id": "x"},
    "agent.put": {"spec": {"agent_id": "x", "name": "x"}},
    "agent.delete": {"agent_id": "x"},
    "team.put": {"spec": {"team_id": "x", "name": "x", "members": []}},
    "team.delete": {"team_id": "x"},
    "knowledge.add": {"knowledge_id": THREAD, "title": "x", "text": "x"},
    "knowledge.remove": {"knowledge_id": THREAD},
}


@pytest.mark.parametrize("kind", sorted(c.COMMANDS))
@pytest.mark.parametrize("given", ["nothing", "thread", "workspace"])
def test_every_command_has_one_outcome_in_every_stream(kind: str, given: str) -> None:
    story = {"nothing": Story, "thread": opened, "workspace": workspace}[given]()
    body = c.COMMANDS[kind].model_validate({"principal": {"user_id": "ann"}, **BODIES.get(kind, {})})
    outcome = story.asked(body, version=1)
    assert isinstance(outcome, f.FactBody)
    of_workspace = kind.split(".")[0] in ("workspace", "key", "agent", "team", "skill", "knowledge")
    if type(body) not in DECISIONS:
        assert code(outcome) == "unsupported"
    elif of_workspace != (given == "workspace"):
        assert code(outcome) == "invalid"


def test_deciding_changes_nothing() -> None:
    story = opened()
    before = repr(story.state)
    for body in COMMANDS:
        decide(story.state, Command("c9", THREAD, WORKSPACE, 0, body, body_hash="h"), 1)
    assert repr(story.state) == before
    assert not asyncio.iscoroutinefunction(decide_module.decide)

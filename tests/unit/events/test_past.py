"""What a fork takes over: complete, as records come; and whatever a source has on record makes a sound past."""

from __future__ import annotations

import pytest

from parley_events import facts as f
from parley_events import ids
from parley_events.body import PastFact, ThreadSeed
from parley_events.codec import Fact
from parley_events.past import KEPT, Past, Told, body_of, sound_past, told
from parley_events.retelling import retold
from tests.contract.events.samples import FACT_SAMPLES, THREAD

FORK = "00000000-0000-4000-8000-0000000000f0"
AGAIN = "00000000-0000-4000-8000-0000000000f1"


def test_all_that_is_on_record_of_runs_is_taken_over() -> None:
    """A new fact of a run belongs there, and into the folds of forks (`parley_history.projections.forks`)."""
    of_runs = {kind for kind, body in f.FACTS.items() if "run_id" in body.model_fields}
    assert of_runs | {f.ThreadCancelling.type} == KEPT


def test_every_number_in_it_is_known_for_what_it_is() -> None:
    """A seq moves with the past (`call`, `shown`), a time when something is due is left behind, the rest stays."""
    numbers = {
        name
        for kind in KEPT
        for name, field in f.FACTS[kind].model_fields.items()
        if field.annotation in (int, int | None)
    }
    stay = {"turn", "attempt", "index", "agent_version", "duration_ms", "retry_after_ms", "workspace_seq"}
    assert numbers <= {"call", "shown"} | {"due_at_ms"} | stay | {"member", "round"}


@pytest.mark.parametrize("name", sorted(name for name in FACT_SAMPLES if FACT_SAMPLES[name].type in KEPT))
def test_a_fact_moves_whole(name: str) -> None:
    """Nothing that people, models and tools wrote changes; every id is the fork's."""
    posted = FACT_SAMPLES[f"fact.{f.MessagePosted.type}.v1"]
    sample = FACT_SAMPLES[name]
    past = Past(THREAD, FORK, "ann")
    for seq, fact in enumerate((posted, sample), 100):
        body = fact.body.model_dump(mode="json")
        if body.get("run_id"):
            body["run_id"] = posted.body.model_dump()["run_id"]
        if fact.type == f.ChildStarted.type:
            body |= {"run_id": ids.child_run_id(THREAD, "k"), "parent_run_id": body["run_id"]}
        past.take(Told(seq, fact.type, fact.version, fact.time_ms, body))
    made = sound_past(past.made())
    assert made[-1].seq == 0
    moved = next(one for one in made if one.seq == made[0].seq + 1)
    assert (moved.type, moved.time_ms) == (sample.type, sample.time_ms)
    whole = body_of(moved)
    for field in {*type(whole).content} - {"opened"}:
        assert getattr(whole, field) == getattr(sample.body, field)
    text = str({key: value for key, value in moved.body.items() if key not in (*type(whole).content, "effect_key")})
    assert THREAD not in text


def test_a_fork_tells_what_it_took_over_before_itself() -> None:
    fork = FACT_SAMPLES[f"fact.{f.ThreadForked.type}.v1"]
    assert isinstance(fork.body, f.ThreadForked)
    one = Told(1, fork.type, fork.version, fork.time_ms, fork.body.model_dump(mode="json"))
    assert [(each.seq, each.type) for each in told(one)] == [
        *((past.seq, past.type) for past in fork.body.past),
        (1, "thread.forked"),
    ]


def test_what_a_newer_version_took_over_is_left_out_and_its_numbers_with_it() -> None:
    fork = FACT_SAMPLES[f"fact.{f.ThreadForked.type}.v1"].body
    assert isinstance(fork, f.ThreadForked)
    posted, ended = fork.past
    later = PastFact(**{**posted.model_dump(), "seq": -3, "version": 2})
    body = f.ThreadForked(
        source_thread_id=THREAD,
        at=1,
        seed=ThreadSeed(),
        past=(later, posted, ended),
        numbers=(1, 2, 3, 4, 5, 6),
    )
    assert body.wanted == 6
    found = list(retold(Fact(body.type, FORK, 1, 0, "", 0, body)))
    assert [one.type for one in found] == ["message.posted", "run.completed"]
    assert isinstance(found[0].body, f.MessagePosted)
    assert found[0].body.numbers == (4, 5, 6)

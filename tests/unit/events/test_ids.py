"""Ids: what follows from a command is the same at every try, and every id leads back to its thread."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_events import ids

THREAD = "7d3f0c52-93a4-4f6e-8f0a-2f6a3c1b9e77"
OTHER = "00000000-0000-4000-8000-00000000002a"


def test_derived_ids_are_fixed_for_ever() -> None:
    """They are in logs that are kept: another value would be another thing."""
    assert ids.derived_uuid("a", "b") == "cc15b18b-5ce6-5fab-9e98-3d4c76705915"
    assert ids.run_id(THREAD, "c1") == f"{THREAD}.rd0f631ca1ddba8db"
    assert ids.agent_uuid(OTHER, "assistant") == "0ba4530c-1451-545a-90c9-cf2abd6fba2e"


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_no_two_lists_of_parts_are_alike(one: list[str], two: list[str]) -> None:
    assert (ids.derived_uuid(*one) == ids.derived_uuid(*two)) == (one == two)
    assert uuid.UUID(ids.derived_uuid(*one)).version == 5


@given(st.text(min_size=1), st.integers(1, 2**53))
def test_every_id_begins_with_its_thread_and_leads_back_to_it(command_id: str, seq: int) -> None:
    run = ids.run_id(THREAD, command_id)
    made = [
        run,
        ids.child_run_id(THREAD, f"{run}/3/0"),
        ids.question_id(THREAD, command_id),
        ids.answer_id(run),
        ids.fact_message_id(THREAD, seq),
        ids.approval_id(THREAD, seq),
    ]
    assert len(set(made)) == len(made)
    for one in made:
        assert one.startswith(f"{THREAD}.")
        assert ids.thread_of(one) == THREAD
    assert ids.thread_of(THREAD) == THREAD
    assert run == ids.run_id(THREAD, command_id) != ids.run_id(OTHER, command_id)
    assert ids.child_run_id(THREAD, command_id) != run
    assert ids.answer_id(ids.run_id(THREAD, command_id + "x")) != ids.answer_id(run)


@given(st.text(min_size=1), st.integers(1, 2**53), st.integers(-(2**53), 2**53))
def test_an_id_that_moves_to_another_thread_meets_none_of_its_own(command_id: str, seq: int, down: int) -> None:
    run = ids.run_id(THREAD, command_id)
    moved = ids.moved_id(run, OTHER, down)
    assert ids.thread_of(moved) == OTHER
    assert len(moved) == len(run)
    assert moved != ids.run_id(OTHER, command_id), "a command of this very id may come there, too"
    assert ids.moved_id(ids.answer_id(run), OTHER, down) == ids.answer_id(moved)
    for made in (ids.fact_message_id, ids.approval_id):
        assert ids.moved_id(made(THREAD, seq), OTHER, down) == made(OTHER, seq - down)
        assert ids.moved_id(made(THREAD, -seq), OTHER, 0) == made(OTHER, -seq), "out of a fork's past"


@pytest.mark.parametrize(
    "text",
    ["", "abc", THREAD[:-1], THREAD + "x", THREAD.upper() + ".r1", f"ws:{THREAD}", f"{THREAD}-r1", "x" * 36 + ".r"],
)
def test_what_begins_with_no_thread_leads_to_none(text: str) -> None:
    assert ids.thread_of(text) is None


@pytest.mark.parametrize(
    "text", [THREAD.upper(), THREAD.replace("-", ""), "{" + THREAD + "}", f"urn:uuid:{THREAD}", "", "é" * 36]
)
def test_a_uuid_has_one_form(text: str) -> None:
    assert ids.is_uuid(THREAD)
    assert not ids.is_uuid(text)


def test_a_workspaces_stream_and_random_ids() -> None:
    assert ids.workspace_stream(OTHER) == f"ws:{OTHER}"
    made = {ids.random_uuid() for _ in range(100)}
    assert len(made) == 100
    assert all(ids.is_uuid(one) and uuid.UUID(one).version == 4 for one in made)

"""Problems: two shapes, one object, and a status for every code with which a command can be refused."""

from __future__ import annotations

import orjson

from parley_events.facts import REJECTION_CODES
from parley_gateway.errors import REFUSALS, Behind, Problem, Unavailable, forbidden, not_found, refusal, unsupported


def test_a_problem_has_two_shapes() -> None:
    problem = Problem("code", "words", 400, {"a": 1})
    assert orjson.loads(problem.body(True)) == {"error": "code", "message": "words", "details": {"a": 1}}
    assert orjson.loads(problem.body(False)) == {"error": {"code": "code", "message": "words", "details": {"a": 1}}}
    assert orjson.loads(Problem("code", "words").body(True)) == {"error": "code", "message": "words"}


def test_every_refusal_of_a_command_has_its_status() -> None:
    assert set(REFUSALS) == set(REJECTION_CODES)
    assert all(400 <= status < 600 and status != 503 for status in REFUSALS.values())
    assert refusal("of a newer version", "words").status == 400


def test_what_passes_by_itself_says_when_to_try_again() -> None:
    for problem in (Unavailable("words"), Behind()):
        assert problem.status == 503 and problem.headers["Retry-After"].isdigit()


def test_the_usual_ones_have_their_status() -> None:
    assert [p.status for p in (not_found("x"), forbidden("x"), unsupported("x"))] == [404, 403, 400]

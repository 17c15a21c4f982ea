"""docs/promises.md: each promise of the contracts has its tests, and each of these is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "promises.md").read_text()
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
CONTRACTS = ("threads", "org_chat", "team_chat", "tool_chat", "org_agents")


def rows() -> list[tuple[str, str]]:
    """Promise and tests of every line of every table."""
    found = re.findall(r"^\| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    return [(promise, tests) for promise, tests in found if promise != "promise"]


@cache
def named_in(file: str) -> frozenset[str]:
    """The tests that a file has."""
    found = ast.walk(ast.parse((TESTS / file).read_text()))
    return frozenset(one.name for one in found if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_promise_has_its_tests_and_they_are_there() -> None:
    for promise, named in rows():
        tests = TEST.findall(named)
        assert tests and TEST.sub("", named).strip(" ,") == "", f"{promise!r} names no test, or something else"
        for file, name in tests:
            assert (TESTS / file).exists(), f"{promise!r}: there is no {file}"
            assert name in named_in(file), f"{promise!r}: {file} has no {name}"


def test_the_page_has_every_contract_and_no_promise_twice() -> None:
    sections = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert {f"`{name}`" for name in CONTRACTS} <= set(sections)
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        promises = re.findall(r"^\| (?!promise|---)(.*?) \|", part, re.MULTILINE)
        assert len(promises) >= 10 and len(promises) == len(set(promises)), part.splitlines()[0]

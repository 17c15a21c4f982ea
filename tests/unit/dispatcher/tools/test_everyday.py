"""The tools that every agent may have: the clock, reckoning, what is put on record, and finding it again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from parley_dispatcher.errors import ToolError
from parley_dispatcher.tools import TOOLS, tools_of
from parley_dispatcher.tools.base import Call, Result
from parley_events.body import AgentSpec
from parley_events.ids import derived_uuid
from parley_events.objects import open_objects
from parley_events.reads import PassageView, SkillView
from tests.unit.dispatcher.story import T0


class Shelf:
    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    async def skills(self, workspace_id: str, agent_id: str, query: str | None) -> tuple[SkillView, ...]:
        self.asked.append((workspace_id, agent_id, query or ""))
        plain = SkillView(slug="tea", name="Making tea", agent_id="a", body=None, updated_at="")
        return plain, plain.model_copy(update={"slug": "chai", "description": "With milk."})

    async def skill(self, workspace_id: str, agent_id: str, slug: str) -> SkillView | None:
        self.asked.append((workspace_id, agent_id, slug))
        if slug != "tea":
            return None
        return SkillView(slug="tea", name="Making tea", agent_id="a", body="Boil.", updated_at="")

    async def passages(self, workspace_id: str, query: str, limit: int) -> tuple[PassageView, ...]:
        self.asked.append((workspace_id, query, str(limit)))
        return (PassageView(knowledge_id="d", title="Tea \u00e9", number=3, text="Boil water."),)


async def ask(agent_id: str, message: str) -> str:
    return f"{agent_id} says {message}"


def call_of(tmp_path: Path, shelf: Shelf | None = None) -> Call:
    return Call(
        "w",
        "t",
        "r",
        "a",
        "t1",
        "key",
        lambda: T0,
        shelf or Shelf(),
        shelf or Shelf(),
        open_objects("memory:"),
        tmp_path / "effects",
        ask,
    )


async def use(tool_name: str, tmp_path: Path, shelf: Shelf | None = None, /, **arguments: Any) -> Result:
    tool = TOOLS[tool_name]
    return await tool.run(call_of(tmp_path, shelf), tool.arguments.model_validate(arguments))


async def test_the_clock_says_the_time_as_rfc_3339(tmp_path: Path) -> None:
    assert json.loads((await use("clock", tmp_path)).text) == {"now": "2025-10-09T08:53:20.000Z"}


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("6 * 7", "42"),
        (" (2 + 3) * 4 ** 2 / 8 ", "10.0"),
        ("-7 // 2 % 5 - -1", "2"),
        ("2 ** -1", "0.5"),
        ("2 ** 0.5 * sqrt(2)", "2.0000000000000004"),
        ("round(2.6) + floor(pi) + ceil(e) + abs(-1)", "10"),
        ("10 ** 30", "1" + "0" * 30),
        ("1e3", "1000.0"),
    ],
)
async def test_the_calculator_reckons(tmp_path: Path, expression: str, result: str) -> None:
    assert (await use("calculator", tmp_path, expression=expression)).text == f'{{"result": {result}}}'


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1 +",
        "1 / 0",
        "x",
        "True",
        "'a' * 3",
        "[1]",
        "__import__('os')",
        "(1).real",
        "abs(1, 2)",
        "round(number=1)",
        "1 < 2",
        "1 if 1 else 2",
        "(lambda: 1)()",
        "9 ** 9 ** 9",
        "9999999 ** 9999999",
        "(-1) ** 0.5",
        "sqrt(-1)",
        "exp(1e9)",
        "1e308 * 10",
        "1e999 - 1e999",
        "10 ** 4000 * 10 ** 4000",
        "-" * 990 + "1",
        "(" * 900 + "1" + ")" * 90,
        "1\n2",
    ],
)
async def test_what_the_calculator_cannot_reckon_is_an_error_for_the_model(tmp_path: Path, expression: str) -> None:
    with pytest.raises(ToolError):
        await use("calculator", tmp_path, expression=expression)


@given(st.text("0123456789.+-*/%() ", max_size=40))
def test_the_calculator_answers_in_json_or_says_what_is_wrong(expression: str) -> None:
    try:
        result = asyncio.run(use("calculator", Path("unused"), expression=expression))
    except ToolError:
        return
    json.loads(result.text, parse_constant=pytest.fail)


async def test_what_goes_on_record_has_an_id_of_its_call(tmp_path: Path) -> None:
    key = derived_uuid("note", "key")
    decision = await use("record_decision", tmp_path, title="Shïp", body="Now.")
    assert decision.note is not None
    assert (decision.note.kind, decision.note.id, decision.note.title, decision.note.body) == (
        "decision",
        key,
        "Shïp",
        "Now.",
    )
    assert json.loads(decision.text) == {"id": key, "recorded": "Shïp"}
    milestone = await use("flag_milestone", tmp_path, title="Half way")
    assert milestone.note is not None
    assert (milestone.note.kind, milestone.note.id, milestone.note.title) == ("milestone", key, "Half way")


async def test_a_skill_is_kept_as_markdown_with_a_head(tmp_path: Path) -> None:
    learned = await use("learn_skill", tmp_path, slug="tea", name='Making "tea": hot', body="Boil.")
    assert learned.note is not None
    assert learned.note.body == '---\nname: "Making \\"tea\\": hot"\nslug: tea\n---\n\nBoil.'
    described = await use("learn_skill", tmp_path, slug="tea", name="Tea", description="For a cold day.", body="Boil.")
    assert described.note is not None
    assert described.note.description == "For a cold day."
    assert described.note.body == '---\nname: "Tea"\nslug: tea\ndescription: "For a cold day."\n---\n\nBoil.'
    headed = await use("learn_skill", tmp_path, slug="tea", name="Tea", body="---\ndescription: x y\n---\nBoil.")
    assert headed.note is not None
    assert (headed.note.body, headed.note.description) == ("---\ndescription: x y\n---\nBoil.", "x y")
    ruled = await use("learn_skill", tmp_path, slug="tea", name="Tea", body="---\nonly: [a rule")
    assert ruled.note is not None
    assert ruled.note.body == '---\nname: "Tea"\nslug: tea\n---\n\n---\nonly: [a rule'


async def test_skills_are_found_again(tmp_path: Path) -> None:
    shelf = Shelf()
    listed = await use("list_skills", tmp_path, shelf, query="hot")
    assert json.loads(listed.text) == {
        "skills": [
            {"slug": "tea", "name": "Making tea"},
            {"slug": "chai", "name": "Making tea", "description": "With milk."},
        ]
    }
    assert (await use("read_skill", tmp_path, shelf, slug="tea")).text == "Boil."
    with pytest.raises(ToolError, match="no skill 'coffee'"):
        await use("read_skill", tmp_path, shelf, slug="coffee")
    assert shelf.asked == [("w", "a", "hot"), ("w", "a", "tea"), ("w", "a", "coffee")]


async def test_another_agents_answer_is_the_result(tmp_path: Path) -> None:
    assert (await use("ask_agent", tmp_path, agent_id="b", message="hi")).text == "b says hi"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("clock", {"zone": "UTC"}),
        ("calculator", {}),
        ("calculator", {"expression": "1" * 1001}),
        ("record_decision", {"title": ""}),
        ("flag_milestone", {"title": "x", "body": "not asked for"}),
        ("learn_skill", {"slug": "Not A Slug", "name": "x", "body": "x"}),
        ("learn_skill", {"slug": "x", "name": "x", "body": ""}),
        ("ask_agent", {"agent_id": "", "message": "x"}),
    ],
)
def test_arguments_that_do_not_fit_are_refused(name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TOOLS[name].arguments.model_validate(arguments)


def test_an_agent_has_the_tools_that_its_patterns_name() -> None:
    def names(*patterns: str) -> set[str]:
        return set(tools_of(AgentSpec(agent_id="a", name="A", tools=patterns)))

    assert names() == set()
    assert names("clock", "nothing") == {"clock"}
    assert names("*_skill*", "CLOCK") == {"learn_skill", "list_skills", "read_skill"}
    assert names("*") == set(TOOLS)


def test_every_tool_shows_the_model_what_it_takes() -> None:
    for name, tool in TOOLS.items():
        schema = tool.schema()
        assert (schema["name"], schema["description"]) == (name, tool.description)
        assert schema["input_schema"]["type"] == "object"
        assert tool.description
    assert TOOLS["calculator"].schema()["input_schema"]["required"] == ["expression"]


def test_only_what_a_second_call_would_do_again_is_held_back() -> None:
    assert {name for name, tool in TOOLS.items() if tool.effect == "unsafe"} == {"append_line", "publish"}
    assert {name for name, tool in TOOLS.items() if tool.effect == "idempotent"} == {"ask_agent", "save_artifact"}

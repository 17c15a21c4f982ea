"""`parley agents schema` and the page of `agents.yaml`: the same as what is read, and every field explained."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from parley_dispatcher.tools import TOOLS
from parley_standalone.__main__ import app
from parley_standalone.agents_file import read_agents_file
from parley_standalone.agents_schema import EXPLAINED, SECTIONS, schema, tables
from parley_standalone.settings import SHIPPED_AGENTS
from tests.unit.standalone.test_agents_file import WHOLE

PAGE = Path(__file__).parents[3] / "docs" / "agents-file.md"


def test_every_field_of_the_file_is_explained_and_nothing_else() -> None:
    made = schema()
    places = {
        f"{section}.{name}" if section else name
        for section, model in SECTIONS.items()
        for name in (made["$defs"][model] if model else made)["properties"]
    }
    assert places == set(EXPLAINED)
    assert {model for model in SECTIONS.values() if model} == set(made["$defs"]), "a mapping without a section"


def test_the_page_has_the_tables_as_the_code_makes_them() -> None:
    [shown] = re.findall(r"<!-- fields -->\n(.*?)<!-- /fields -->", PAGE.read_text(), re.DOTALL)
    assert shown == tables(), "run: parley agents schema --markdown"


def test_the_schema_takes_what_is_read_and_refuses_what_is_not() -> None:
    checker = Draft202012Validator(schema())
    Draft202012Validator.check_schema(schema())
    for text in (WHOLE, SHIPPED_AGENTS.read_text()):
        assert list(checker.iter_errors(yaml.safe_load(text))) == []
    for text in ("{}", "agents: [{id: a, name: A, color: red}]", "agents: [{id: a, name: A, temperature: 3}]"):
        assert list(checker.iter_errors(yaml.safe_load(text))), text


def test_the_command_prints_the_schema_and_the_tables() -> None:
    printed = CliRunner().invoke(app, ["agents", "schema"])
    assert json.loads(printed.output) == schema()
    assert CliRunner().invoke(app, ["agents", "schema", "--markdown"]).output == tables()


def test_the_example_of_the_page_can_be_read(tmp_path: Path) -> None:
    example = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    (tmp_path / "agents.yaml").write_text(example)
    file = read_agents_file(tmp_path / "agents.yaml", TOOLS)
    assert [agent.agent_id for agent in file.agents] == ["assistant", "analyst"]
    assert [server.name for server in file.mcp_servers] == ["search", "ledger"]

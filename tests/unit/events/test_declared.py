"""The rules for agents and teams, in their one home; `tests/unit/standalone/test_agents_file.py` has them all by place,
and `tests/unit/gateway/administration/test_changes.py` over HTTP."""

from __future__ import annotations

import pytest
from pydantic import ConfigDict

from parley_dispatcher.tools import TOOLS
from parley_events.body import AgentSpec, TeamSpec
from parley_events.declared import (
    BUILT_IN_TOOLS,
    AgentFields,
    TeamFields,
    agent_mistakes,
    agent_spec,
    team_mistakes,
    team_spec,
)


class Strict(AgentFields):
    model_config = ConfigDict(strict=True)


def test_the_built_in_tools_are_those_that_there_are() -> None:
    assert set(TOOLS) == BUILT_IN_TOOLS


def test_what_can_be_declared_is_what_stands_on_record() -> None:
    assert set(AgentFields.model_fields) | {"agent_id"} == set(AgentSpec.model_fields)
    assert set(TeamFields.model_fields) | {"team_id"} == set(TeamSpec.model_fields)
    assert agent_spec("a", AgentFields(name="A")) == AgentSpec(agent_id="a", name="A"), "the same defaults"
    assert team_spec("t", TeamFields(name="T", members=("a",))) == TeamSpec(team_id="t", name="T", members=("a",))


def test_a_strict_form_takes_lists_and_no_other_type() -> None:
    given = {"name": "A", "tools": ["clock"], "approvals": ["pay", {"tool": "book"}], "limits": {"steps": 3}}
    spec = agent_spec("a", Strict.model_validate(given))
    assert (spec.agent_id, spec.tools, spec.limits.steps) == ("a", ("clock",), 3)
    assert [terms.tool for terms in spec.approval_terms] == ["pay", "book"]
    for wrong in ({"tools": [1]}, {"tools": "clock"}, {"temperature": "1"}, {"roles": [None]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Strict.model_validate({**given, **wrong})


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"tools": ("nothing",)}, ("tools", 0)),
        ({"tools": ("clock", "ledger/pay")}, ("tools", 1)),
        ({"base_url": "ftp://x", "model": "m"}, ("base_url",)),
        ({"base_url": "http://u:p@x", "model": "m"}, ("base_url",)),
        ({"base_url": "http://x/v1", "model": "m"}, ("base_url",)),
        ({"base_url": "http://x"}, ("model",)),
        ({"api_key": "sk-1"}, ("api_key",)),
        ({"api_key": "env:aws_secret_access_key"}, ("api_key",)),
        ({"thinking": 9000}, ("thinking",)),
    ],
)
def test_a_mistake_has_its_place(fields: dict[str, object], place: tuple[str | int, ...]) -> None:
    found = list(agent_mistakes(AgentFields.model_validate({"name": "A", **fields}), BUILT_IN_TOOLS, ["search"]))
    assert [where for where, _ in found] == [place]


def test_what_is_right_has_none() -> None:
    agent = AgentFields(name="A", tools=("clock", "*", "search/*", "se*/x"), base_url="http://x:1", model="m")
    assert not list(agent_mistakes(agent, BUILT_IN_TOOLS, ["search"]))
    team = TeamFields(name="T", members=("a", "b"), lead="c")
    assert [where for where, _ in team_mistakes(team, {"a"})] == [("members", 1), ("lead",)]
    assert team_spec("t", team).members == ("a", "b")

"""Which tools a person must approve: by patterns, as an agent's `tools` are named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from parley_dispatcher.tools import TOOLS, terms_of, tools_of
from parley_events.body import Approval, ClientTool
from tests.unit.dispatcher.world import agent

REMOTE = replace(TOOLS["echo"], name="ledger__pay_now", offered="ledger/pay.now")


@pytest.mark.parametrize(
    ("pattern", "asked"),
    [
        ("ledger/pay.now", True),
        ("ledger/*", True),
        ("*/pay.*", True),
        ("ledger/book", False),
        ("other/*", False),
        ("ledger__pay_now", True),
        ("*", True),
        ("echo", False),
    ],
)
def test_a_servers_tool_is_matched_by_its_servers_names_or_the_one_that_the_model_knows(
    pattern: str, asked: bool
) -> None:
    assert (terms_of(agent(approvals=(pattern,)), REMOTE) is not None) == asked


@pytest.mark.parametrize(
    ("pattern", "asked"), [("echo", True), ("e*", True), ("*", True), ("*/*", False), ("x", False)]
)
def test_a_built_in_tool_has_no_server(pattern: str, asked: bool) -> None:
    assert (terms_of(agent(approvals=(pattern,)), TOOLS["echo"]) is not None) == asked


def test_the_first_terms_that_fit_count() -> None:
    first, second = Approval(tool="e*", expires_s=1), Approval(tool="echo", expires_s=2)
    assert terms_of(agent(approvals=(first, second)), TOOLS["echo"]) == first
    assert terms_of(agent(), TOOLS["echo"]) is None


def test_a_tool_of_the_client_may_need_an_approval_too() -> None:
    spec = agent(client_tools=(ClientTool(name="locate"),), approvals=("locate",))
    assert terms_of(spec, tools_of(spec)["locate"]) == Approval(tool="locate")

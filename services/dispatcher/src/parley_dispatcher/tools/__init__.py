"""The built-in tools: `TOOLS`, by name. An agent has those that its `tools` patterns name, and `search_knowledge` where
its workspace has documents."""

from __future__ import annotations

from fnmatch import fnmatchcase

from parley_dispatcher.tools.ask import ASK_AGENT
from parley_dispatcher.tools.base import Tool
from parley_dispatcher.tools.client import client_tool
from parley_dispatcher.tools.everyday import CALCULATOR, CLOCK
from parley_dispatcher.tools.files import LIST_ATTACHMENTS, READ_ARTIFACT, READ_ATTACHMENT, SAVE_ARTIFACT
from parley_dispatcher.tools.knowledge import SEARCH_KNOWLEDGE
from parley_dispatcher.tools.records import FLAG_MILESTONE, LEARN_SKILL, LIST_SKILLS, READ_SKILL, RECORD_DECISION
from parley_dispatcher.tools.trial import APPEND_LINE, ECHO, FAIL, PUBLISH, REPEAT, SLEEP
from parley_events.body import AgentSpec, Approval

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        CLOCK,
        CALCULATOR,
        RECORD_DECISION,
        FLAG_MILESTONE,
        LEARN_SKILL,
        LIST_SKILLS,
        READ_SKILL,
        LIST_ATTACHMENTS,
        READ_ATTACHMENT,
        SAVE_ARTIFACT,
        READ_ARTIFACT,
        SEARCH_KNOWLEDGE,
        ASK_AGENT,
        ECHO,
        REPEAT,
        SLEEP,
        FAIL,
        APPEND_LINE,
        PUBLISH,
    )
}
"""Every built-in tool, by its name."""


def tools_of(agent: AgentSpec, *, documents: bool = False) -> dict[str, Tool]:
    """The built-in tools that an agent may call, and those that its clients run: what it declares itself goes before a
    built-in tool of the same name. `documents`: its workspace has some, so it may search them."""
    built_in = {name: tool for name, tool in TOOLS.items() if any(fnmatchcase(name, one) for one in agent.tools)}
    if documents:
        built_in[SEARCH_KNOWLEDGE.name] = SEARCH_KNOWLEDGE
    return built_in | {declared.name: client_tool(declared) for declared in agent.client_tools}


def terms_of(agent: AgentSpec, tool: Tool) -> Approval | None:
    """On which terms a person must approve a call of this tool; None: nobody is asked. A pattern `<server>/<tool>` is
    compared with the server's own names, one without a slash with the name that the model knows: `*` is every tool."""
    for terms in agent.approval_terms:
        name = tool.offered if "/" in terms.tool else tool.name
        if name is not None and fnmatchcase(name, terms.tool):
            return terms
    return None

"""The built-in tools: `TOOLS`, by name. An agent has those that its `tools` patterns name, and `search_knowledge` where
its workspace has documents."""

from __future__ import annotations

from fnmatch import fnmatchcase

from parley_dispatcher.tools.ask import ASK_AGENT
from parley_dispatcher.tools.base import Tool
from parley_dispatcher.tools.everyday import CALCULATOR, CLOCK
from parley_dispatcher.tools.files import LIST_ATTACHMENTS, READ_ARTIFACT, READ_ATTACHMENT, SAVE_ARTIFACT
from parley_dispatcher.tools.knowledge import SEARCH_KNOWLEDGE
from parley_dispatcher.tools.records import FLAG_MILESTONE, LEARN_SKILL, LIST_SKILLS, READ_SKILL, RECORD_DECISION
from parley_dispatcher.tools.trial import APPEND_LINE, ECHO, FAIL, REPEAT, SLEEP
from parley_events.body import AgentSpec

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
    )
}
"""Every built-in tool, by its name."""


def tools_of(agent: AgentSpec, *, documents: bool = False) -> dict[str, Tool]:
    """The built-in tools that an agent may call. `documents`: its workspace has some, so it may search them."""
    found = {name: tool for name, tool in TOOLS.items() if any(fnmatchcase(name, pattern) for pattern in agent.tools)}
    if documents:
        found[SEARCH_KNOWLEDGE.name] = SEARCH_KNOWLEDGE
    return found

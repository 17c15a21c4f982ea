"""Tools that put something on record (`record_decision`, `flag_milestone`, `learn_skill`) and find skills again.

What they record travels inside their own `tool.returned`, with an id derived from the call: there is no second write
that could be lost or doubled.
"""

from __future__ import annotations

import json

from pydantic import Field

from parley_dispatcher.errors import ToolError
from parley_dispatcher.tools.base import Arguments, Call, Result, Tool
from parley_events.body import Note
from parley_events.ids import derived_uuid
from parley_events.skills import MAX_BODY, MAX_DESCRIPTION, MAX_NAME, SLUG, BadHead, read_head, with_head

_BODY = 200_000


class Decision(Arguments):
    title: str = Field(min_length=1, max_length=500)
    body: str = Field(default="", max_length=_BODY)


class Milestone(Arguments):
    title: str = Field(min_length=1, max_length=500)


class Skill(Arguments):
    slug: str = Field(pattern=SLUG, description="lower-case words joined by hyphens")
    name: str = Field(min_length=1, max_length=MAX_NAME)
    description: str | None = Field(
        default=None, max_length=MAX_DESCRIPTION, description="when to use it, in a sentence; shown in lists"
    )
    body: str = Field(min_length=1, max_length=MAX_BODY, description="Markdown")


class SkillQuery(Arguments):
    query: str | None = Field(default=None, max_length=500, description="words; what has most of them comes first")


class SkillName(Arguments):
    slug: str = Field(min_length=1, max_length=80)


def _id(call: Call) -> str:
    return derived_uuid("note", call.effect_key)


async def _decision(call: Call, arguments: Decision) -> Result:
    note = Note(kind="decision", id=_id(call), title=arguments.title, body=arguments.body)
    return Result(json.dumps({"id": note.id, "recorded": arguments.title}, ensure_ascii=False), note)


async def _milestone(call: Call, arguments: Milestone) -> Result:
    note = Note(kind="milestone", id=_id(call), title=arguments.title)
    return Result(json.dumps({"id": note.id, "flagged": arguments.title}, ensure_ascii=False), note)


async def _learn(call: Call, arguments: Skill) -> Result:
    body, description = arguments.body, arguments.description
    try:
        head = read_head(body)
    except BadHead:
        # What only looks like a head (a rule, say) is text: it stands below the head that the skill gets.
        head = None
    if head is None:
        body = with_head(arguments.slug, arguments.name, description or "", body)
    else:
        description = description or head.description
    note = Note(
        kind="skill", id=_id(call), slug=arguments.slug, name=arguments.name, description=description, body=body
    )
    return Result(json.dumps({"slug": arguments.slug, "learned": arguments.name}, ensure_ascii=False), note)


async def _list(call: Call, arguments: SkillQuery) -> Result:
    found = await call.skills.skills(call.workspace_id, call.agent_id, arguments.query)
    skills = [
        {"slug": s.slug, "name": s.name} | ({"description": s.description} if s.description else {}) for s in found
    ]
    return Result(json.dumps({"skills": skills}, ensure_ascii=False))


async def _read(call: Call, arguments: SkillName) -> Result:
    skill = await call.skills.skill(call.workspace_id, call.agent_id, arguments.slug)
    if skill is None or skill.body is None:
        raise ToolError(f"there is no skill {arguments.slug!r}; list_skills shows which there are")
    return Result(skill.body)


RECORD_DECISION = Tool("record_decision", "Puts a decision on the workspace's log.", Decision, _decision, "read_only")
FLAG_MILESTONE = Tool("flag_milestone", "Puts a milestone on the workspace's log.", Milestone, _milestone, "read_only")
LEARN_SKILL = Tool("learn_skill", "Keeps a skill as Markdown, to be found again later.", Skill, _learn, "read_only")
LIST_SKILLS = Tool("list_skills", "Lists the skills at hand, best match first.", SkillQuery, _list, "read_only")
READ_SKILL = Tool("read_skill", "Reads a skill.", SkillName, _read, "read_only")

"""The skills of an agent as a folder holds them: `<slug>.md`, or `<slug>/SKILL.md` as Claude's skills are laid out.

`agents_file.py` names the folder, `seed.py` makes commands of what is read. Other files are left alone, and so is what
begins with a dot. Nothing outside the folder is read, however links and names are laid.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from parley_events.body import Shape
from parley_events.skills import MAX_BODY, MAX_NAME, SLUG, BadHead, read_head, with_head

MAX_SKILLS = 200
"""The most skills of one agent."""
_MAX_BYTES = 4 * MAX_BODY
_FORM = re.compile(SLUG)


class Skill(Shape):
    """A skill of an agent, whole: its body has a head."""

    agent_id: str
    slug: str
    name: str
    description: str
    body: str


class BadSkill(Exception):
    """A file, or the folder, cannot be taken; the text is one line that names it."""


def read_skills(root: Path, named: str, agent_id: str) -> tuple[Skill, ...]:
    """The skills in the folder `named`, which lies below `root`, by slug. Raises BadSkill."""
    home = _inside(root, root / named, named)
    if not home.is_dir():
        raise BadSkill(f"there is no folder {named}")
    found: dict[str, Skill] = {}
    try:
        entries = sorted(entry for entry in os.listdir(home) if not entry.startswith("."))
    except OSError as error:
        raise BadSkill(f"{named} cannot be read: {error.strerror}") from None
    for entry in entries:
        if entry.endswith(".md"):
            slug, path, shown = entry.removesuffix(".md"), home / entry, f"{named}/{entry}"
        elif (home / entry).is_dir():
            slug, path, shown = entry, home / entry / "SKILL.md", f"{named}/{entry}/SKILL.md"
        else:
            continue
        if not _FORM.fullmatch(slug):
            raise BadSkill(f"{shown}: {slug!r} is no name of a skill: lower-case words joined by hyphens are wanted")
        if slug in found:
            raise BadSkill(f"{shown}: there is another skill {slug!r}")
        if len(found) == MAX_SKILLS:
            raise BadSkill(f"{named} holds more than {MAX_SKILLS} skills")
        found[slug] = _skill(agent_id, slug, _text(home, path, shown), shown)
    return tuple(found.values())


def _inside(root: Path, path: Path, shown: str) -> Path:
    """The path with its links followed; refused when it leads out of the root."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise BadSkill(f"there is no {shown}") from None
    if not real.is_relative_to(root.resolve()):
        raise BadSkill(f"{shown} leads out of its folder")
    return real


def _text(home: Path, path: Path, shown: str) -> str:
    real = _inside(home, path, shown)
    if not real.is_file():
        raise BadSkill(f"{shown} is not a file")
    try:
        with real.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise BadSkill(f"{shown} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        if len(data) <= _MAX_BYTES:
            raise BadSkill(f"{shown} is not UTF-8") from None
        text = ""
    if len(data) > _MAX_BYTES or len(text) > MAX_BODY:
        raise BadSkill(f"{shown} has more than {MAX_BODY} characters")
    if "\0" in text:
        raise BadSkill(f"{shown} holds a NUL")
    return text.replace("\r\n", "\n")


def _skill(agent_id: str, slug: str, text: str, shown: str) -> Skill:
    try:
        head = read_head(text)
    except BadHead as error:
        raise BadSkill(f"{shown}: {error}") from None
    if not text.strip():
        raise BadSkill(f"{shown} is empty")
    name = (head.name if head else None) or slug
    description = (head.description if head else None) or ""
    body = text if head else with_head(slug, name, description, text)
    if len(body) > MAX_BODY:
        raise BadSkill(f"{shown} has more than {MAX_BODY} characters with its head")
    return Skill(agent_id=agent_id, slug=slug, name=name[:MAX_NAME], description=description, body=body)

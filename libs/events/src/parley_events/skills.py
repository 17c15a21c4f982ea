"""Skills: Markdown with a head, as agents learn them and as folders hold them. Pure; the head is read here alone.

    ---
    name: Folding a boat
    description: How to fold a boat from a sheet of paper.
    ---

    Fold the sheet in half ...

The head is YAML that strangers and models write, so little of it is believed: only its first characters are looked at,
every scalar is a text, no tag and no merge key means anything (`BaseLoader`), and only `name` and `description` are
taken.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import yaml

SLUG = "^[a-z0-9][a-z0-9-]{0,79}$"
"""The form of a skill's slug: lower-case words joined by hyphens."""
MAX_BODY = 200_000
"""The most characters of a skill, its head among them."""
MAX_DESCRIPTION = 1024
"""The most characters of a description: it is shown in lists."""
MAX_NAME = 200
"""The most characters of a name."""
_MAX_HEAD = 8192


class Head(NamedTuple):
    """What the head of a skill says; None where it says nothing."""

    name: str | None = None
    description: str | None = None


class BadHead(ValueError):
    """The head is none; the message says why, in one line."""


def read_head(text: str) -> Head | None:
    """The head of a skill; None when the text begins with none. Raises BadHead."""
    lines = text[:_MAX_HEAD].split("\n")
    if lines[0].rstrip() != "---":
        return None
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise BadHead(f"the head does not end with a line --- within {_MAX_HEAD} characters")
    try:
        # This loader makes texts, lists and mappings, and nothing else: it believes less than the one called safe.
        given = yaml.load("\n".join(lines[1:end]), yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 2})"
        raise BadHead(f"the head is not YAML{where}") from None
    if given in (None, ""):
        return Head()
    if not isinstance(given, dict):
        raise BadHead("the head is not a mapping (name: ..., description: ...)")
    return Head(_text(given, "name", MAX_NAME), _text(given, "description", MAX_DESCRIPTION))


def with_head(slug: str, name: str, description: str, body: str) -> str:
    """The body with a head on top."""
    # YAML has JSON as a part of it: a JSON string is safe whatever the name holds.
    lines = [f"name: {json.dumps(name, ensure_ascii=False)}", f"slug: {slug}"]
    if description:
        lines.append(f"description: {json.dumps(description, ensure_ascii=False)}")
    return "\n".join(["---", *lines, "---", "", body])


def _text(given: dict[object, object], name: str, limit: int) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadHead(f"{name} in the head is not a text")
    text = " ".join(value.split())
    if len(text) > limit:
        raise BadHead(f"{name} in the head has {len(text)} characters; {limit} are the most")
    return text or None

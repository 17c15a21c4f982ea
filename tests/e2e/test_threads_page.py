"""The lines of `docs/threads.md`, as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.support.pages import outputs
from tests.support.system import System


def values(text: str) -> list[Any]:
    """Every JSON value in a text, one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while (at := text.find("{", at)) >= 0:
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    _, threads, messages, resumed, live, new, then, gone = outputs(standalone, "threads.md", tmp_path)
    listed, thread, renamed, away, archived = values(threads)
    assert thread in listed["items"] and (thread["title"], thread["metadata"]) == ("Leads", {"board": 7})
    assert (renamed["title"], renamed["pinned"], renamed["agent_id"]) == ("Inbound leads", True, "scripted")
    assert (away["archived"], away["agent_id"]) == (True, None) and archived["items"] == [away]

    accepted, waited, *frames, newest = values(messages)
    assert accepted["status"] == "running" and waited["message"]["content"] == "It is 42."
    types = [frame["type"] for frame in frames]
    assert types[0] == "message.posted" and types[-1] == "run.completed" and "thought.delta" in types
    pieces = "".join(frame["delta"] for frame in frames if frame["type"] == "text.delta")
    assert pieces == "0000 0001 0002 0003 0004 " == newest["items"][0]["content"]
    assert {frame["message_id"] for frame in frames} == {newest["items"][0]["id"]}
    assert [item["role"] for item in newest["items"]][:2] == ["assistant", "user"]

    *whole, page = values(resumed)
    ends = [place for place, frame in enumerate(whole) if frame["type"] == "run.completed"]
    first, rest = whole[: ends[0] + 1], whole[ends[0] + 1 :]
    assert len(ends) == 2 and first[-len(rest) :] == rest, "what comes after the id"
    assert [item["type"] for item in page["items"]][-1] == "run.completed" and page["next_cursor"] is None

    [read] = values(new)
    assert (read["items"][0]["id"], read["items"][0]["pinned"]) == (thread["id"], False), (
        "what was just written is read"
    )

    first, early, run = values(then)
    assert (first["title"], first["message_count"]) == ("Leads", 0)
    assert run["status"] == "completed" and run["id"] == frames[0]["run_id"]
    assert [item["content"] for item in early["items"]] == ["/text Noted."]

    counted = {line.split()[1]: line.split()[0] for line in live.splitlines() if line.startswith(" ")}
    assert (counted['"type":"thread.created"'], counted['"type":"run.completed"']) == ("1", "3")
    assert "One more." in live and re.search(r'"type":"message.posted"\n(.|\n)*"type":"run.completed"', live)
    assert gone.split() == ["204", "404"]

"""A run that has ended, as a few rows: what one sees of the past when one comes back to a thread."""

from __future__ import annotations

from parley_standalone.terminal import story
from parley_standalone.terminal.native import Json
from parley_standalone.terminal.region import EMPTY, Row
from parley_standalone.terminal.screen import Screen
from parley_standalone.terminal.watch import asked, ending, tool, waiting

MOST_ROWS = 30


def rows(screen: Screen, facts: list[Json], messages: list[Json], columns: int) -> list[Row]:
    """The run's question, texts, tools and end. `messages` of the thread: what a cancelled turn had said stands there
    alone, after the texts of the turns before it."""
    found: list[Row] = []
    said = ""
    for fact in facts:
        part: list[Row] = []
        if fact["type"] == "model.returned":
            said += fact["content"] or ""
        if fact["type"] == "run.cancelled":
            whole = next((m["content"] or "" for m in messages if m["id"] == fact["message_id"]), "")
            rest = story.clean(whole.removeprefix(said))
            part += screen.text(rest, columns) if rest.strip() else []
        for event in story.events(fact):
            match event:
                case story.Asked():
                    part += asked(screen, event, columns)
                case story.Closed(text) if text.strip():
                    part += screen.text(text, columns)
                case story.ToolEnded():
                    part += tool(screen, event, columns)
                case story.ApprovalAsked():
                    part += waiting(screen, event, columns)
                case story.ApprovalOver():
                    part += screen.line((f"    {event.text}", "dim"), columns=columns, whole=True)
                case story.Ended():
                    part += ending(screen, event, columns)
                case _:
                    pass
        found += [EMPTY, *part] if found and part else part
    if len(found) > MOST_ROWS:
        left = len(found) - MOST_ROWS
        found = found[:MOST_ROWS] + screen.line((f"… {left} more rows", "dim"), columns=columns)
    return found

"""Documents of a workspace, cut into the passages that a search finds. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from parley_events.codec import Fact
from parley_events.facts import KnowledgeAdded, KnowledgeRemoved
from parley_history.projections.rows import KnowledgeRow, PassageRow, View
from parley_history.projections.text import clean

PASSAGE_CHARS = 1500
"""The most characters of a passage: a few paragraphs, so that a model can be shown several."""
_LEAST_CHARS = 500
_ENDS = ("\n\n", "\n", ". ", " ")
"""Where a passage had better end, the best first."""


def knowledge_added(view: View, fact: Fact, body: KnowledgeAdded) -> None:
    text = clean(body.text)
    view.knowledge[fact.workspace_id, body.knowledge_id] = KnowledgeRow(
        workspace_id=fact.workspace_id,
        id=body.knowledge_id,
        title=body.title,
        content_type=body.content_type,
        characters=len(text),
        created_ms=fact.time_ms,
    )
    view.passages[fact.workspace_id, body.knowledge_id] = [
        PassageRow(fact.workspace_id, body.knowledge_id, number, part, body.title)
        for number, part in enumerate(passages(text))
    ]


def knowledge_removed(view: View, fact: Fact, body: KnowledgeRemoved) -> None:
    view.knowledge[fact.workspace_id, body.knowledge_id] = None
    view.passages.pop((fact.workspace_id, body.knowledge_id), None)


def passages(text: str) -> Iterable[str]:
    """The text in pieces of at most `PASSAGE_CHARS`, cut after a paragraph, a line, a sentence or a word where one ends
    late enough. Put together they are the text, to the character."""
    start = 0
    while len(text) - start > PASSAGE_CHARS:
        end = start + PASSAGE_CHARS
        for mark in _ENDS:
            found = text.rfind(mark, start + _LEAST_CHARS, end)
            if found >= 0:
                end = found + len(mark)
                break
        yield text[start:end]
        start = end
    yield text[start:]

"""`search_knowledge`: what the documents of the workspace say. Every agent of a workspace that has any may call it."""

from __future__ import annotations

import json

from pydantic import Field

from parley_dispatcher.tools.base import Arguments, Call, Result, Tool


class KnowledgeQuery(Arguments):
    query: str = Field(min_length=1, max_length=500, description="words to look for; what has most of them comes first")
    limit: int = Field(default=5, ge=1, le=20, description="how many passages")


async def _search(call: Call, arguments: KnowledgeQuery) -> Result:
    found = await call.knowledge.passages(call.workspace_id, arguments.query, arguments.limit)
    passages = [{"knowledge_id": p.knowledge_id, "title": p.title, "part": p.number, "text": p.text} for p in found]
    return Result(json.dumps({"passages": passages}, ensure_ascii=False))


SEARCH_KNOWLEDGE = Tool(
    "search_knowledge",
    "Searches the documents of this workspace and gives the passages that fit best, each with its document.",
    KnowledgeQuery,
    _search,
    "read_only",
)

"""Documents end to end, on both kinds of system: added, searched by an agent at once, attached, large, and removed."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.pages import outputs
from tests.support.pdf import pdf
from tests.support.system import System, new_thread

THREADS = "/api/v1/chat/threads"
KNOWLEDGE = "/api/v1/knowledge"


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    documents, found, attached = outputs(standalone, "knowledge.md", tmp_path)
    assert documents.count('"title":"Refund policy"') == 3 and documents.count('"title":"Brand guide"') == 2
    assert '"content":"# Refunds\\n\\nRefunds are paid within 14 days.' in documents
    assert "Looked it up." in found and "14 days" in found and '\\"part\\": 0' in found
    assert '"lead_context":{"name":"Ada","order":4711,"paid":"2026-01-02"},"knowledge_ids":["' in attached
    assert attached.rstrip().endswith("204")


async def add(client: httpx2.AsyncClient, title: str, **content: str) -> str:
    answer = await client.post(KNOWLEDGE, json={"title": title, **content})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def said(client: httpx2.AsyncClient, thread: str, script: str, **more: Any) -> str:
    """What an agent says to a script."""
    answer = await client.post(f"{THREADS}/{thread}/messages", params={"wait": "60"}, json={"content": script, **more})
    assert answer.status_code == 200 and answer.json()["run"]["status"] == "completed", answer.text
    return str(answer.json()["message"]["content"])


async def searched(client: httpx2.AsyncClient, thread: str, query: str) -> list[dict[str, Any]]:
    """What `search_knowledge` gives to an agent."""
    await said(client, thread, f"/tool search_knowledge {json.dumps({'query': query})}")
    page = await client.get(f"{THREADS}/{thread}/messages", params={"order": "desc", "limit": "10"})
    result = next(item for item in page.json()["items"] if item["role"] == "tool" and item["content"])
    passages: list[dict[str, Any]] = json.loads(result["content"])["passages"]
    return passages


async def test_a_document_is_found_by_the_next_message_and_no_more_once_it_is_removed(system: System) -> None:
    word = f"w{uuid.uuid4().hex}"
    data = base64.b64encode(pdf(f"The code of the day is {word}")).decode()
    async with system.client() as client:
        thread = await new_thread(client)
        assert word not in str(await searched(client, thread, word))
        one = await add(client, "Codes", content_base64=data)
        [passage] = await searched(client, thread, word)
        assert (passage["knowledge_id"], passage["title"]) == (one, "Codes") and word in passage["text"]
        lead = {"lead": word[:5], "n": 1.5}
        shown = await said(client, thread, "/show messages", knowledge_ids=[one], lead_context=lead)
        assert f"The code of the day is {word}" in shown and '"document"' in shown
        [question] = [
            item
            for item in (await client.get(f"{THREADS}/{thread}/messages")).json()["items"]
            if item["content"] == "/show messages"
        ]
        assert (question["knowledge_ids"], question["lead_context"]) == ([one], lead)
        assert (await client.delete(f"{KNOWLEDGE}/{one}")).status_code == 204
        assert (await client.get(f"{KNOWLEDGE}/{one}")).status_code == 404
        assert await searched(client, thread, word) == []
        assert "removed since" in await said(client, thread, "/show messages")


async def test_the_other_gateway_and_another_dispatcher_know_it_at_once(cluster: System) -> None:
    """The tool is shown by the next message through any gateway, whichever dispatcher has the thread, and however long
    ago that looked at the workspace."""
    async with cluster.client(0) as first, cluster.client(1) as second:
        threads = [await new_thread(first, "assistant") for _ in range(6)]
        for thread in threads:
            await said(second, thread, "hi", agent_id="assistant")
        one = await add(first, "T", content="text")
        try:
            for thread in threads:
                assert "search_knowledge" in await said(second, thread, "/show tools")
        finally:
            await first.delete(f"{KNOWLEDGE}/{one}")


async def test_a_document_at_the_limit_is_whole_and_found(system: System) -> None:
    word = f"needle{uuid.uuid4().hex[:8]}"
    text = "\x01 straw\n" * 60_000 + word + "\x01 straw\n" * 60_000
    text = text[:1_000_000]
    async with system.client(timeout_s=120) as client:
        one = await add(client, "Large", content=text)
        assert (await client.get(f"{KNOWLEDGE}/{one}")).json()["content"] == text
        thread = await new_thread(client)
        [passage] = await searched(client, thread, word)
        assert passage["knowledge_id"] == one and len(passage["text"]) <= 1500
        await client.delete(f"{KNOWLEDGE}/{one}")


@pytest.mark.parametrize("path", ["", "/00000000-0000-4000-8000-000000000001"])
async def test_without_a_key_nothing_is_told(standalone: System, path: str) -> None:
    async with standalone.client(key="x") as client:
        assert (await client.get(KNOWLEDGE + path)).status_code == 401

"""Documents: found by their words, best passages first, whole again from their passages, gone when removed."""

from __future__ import annotations

import asyncpg
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_events import facts as f
from parley_events import ids, reads
from parley_events.documents import MAX_CHARS
from parley_history import migrate as migrate_module
from parley_history.migrate import migrate
from parley_history.projections.knowledge import PASSAGE_CHARS, passages
from parley_history.settings import Settings
from parley_history.sql import migrations
from tests.contract.history.conftest import Client, running, settings_for
from tests.contract.history.listlog import ListLog
from tests.contract.history.story import Writer, thread, workspace
from tests.support.postgres import Server

WS = workspace(1)
STREAM = ids.workspace_stream(WS)

DOCUMENTS = {
    "refunds": ("Refunds: our policy", "Refunds are paid within 14 days.\n\nShipping is not refunded."),
    "brand": ("Brand guide", "Our voice is warm. We never shout. Refunds are called money back."),
    "kueche": ("Küchenregeln", "Grüße aus der Küche: C:\\temp\\x ist 100% it's <b>50</b> e-mail"),
    "origami": ("折纸的方法", "先把纸对折"),
}


def added(name: str, title: str, text: str) -> f.KnowledgeAdded:
    return f.KnowledgeAdded(knowledge_id=name, title=title, text=text, content_type="text/markdown")


async def found(client: Client, query: str, **params: int) -> list[str]:
    items = (await client.get(f"/workspaces/{WS}/passages", query=query, **params))["items"]
    return [reads.PassageView.model_validate(item).knowledge_id for item in items]


async def test_the_best_match_comes_first_and_no_query_is_an_error(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    for name, (title, text) in DOCUMENTS.items():
        writer.write(STREAM, WS, added(name, title, text))
    async with running(settings, log) as client:
        await client.caught_up(log)
        for query, names in (
            ("refunds", ["refunds", "brand"]),
            ("REFUND days", ["refunds", "brand"]),
            ("when is the money back", ["brand", "refunds"]),
            ("policy", ["refunds"]),
            ("ref", ["refunds", "brand"]),
            ("küche", ["kueche"]),
            ("e-mail", ["kueche"]),
            ("100% it's", ["kueche"]),
            ("纸", ["origami"]),
            ("把纸对", ["origami"]),
            ("zebra", []),
            ("' | ! & ( ) : * <-> \\", []),
            ("\0", []),
            ("", []),
            (" ", []),
        ):
            assert await found(client, query) == names, query
        for query in ("a:*", "'a' <-> !b", "a\\':*", "\x01\u2028", "(((", "😀" * 300, "x" * 5000):
            await found(client, query)
        assert await found(client, "refunds", limit=1) == ["refunds"]
        await client.get(f"/workspaces/{WS}/passages", status=400, query="x", limit=0)


async def test_a_removed_document_is_found_no_more_and_may_come_again(settings: Settings) -> None:
    log = ListLog(4)
    writer = Writer(log)
    writer.write(STREAM, WS, f.WorkspaceCreated(workspace_id=WS, name="w"))
    writer.write(STREAM, WS, added("a", "One", "the first text"))
    async with running(settings, log) as client:
        await client.caught_up(log)
        assert await found(client, "first") == ["a"]
        assert (await client.get(f"/workspaces/{WS}"))["documents"] == 1
        writer.write(STREAM, WS, f.KnowledgeRemoved(knowledge_id="a"))
        await client.caught_up(log)
        assert await found(client, "first") == []
        await client.get(f"/workspaces/{WS}/knowledge/a", status=404)
        view = await client.get(f"/workspaces/{WS}")
        assert (view["documents"], view["seq"]) == (0, 3)
        writer.write(STREAM, WS, added("a", "Two", "another text"))
        writer.write(STREAM, WS, f.KnowledgeRemoved(knowledge_id="a"))
        writer.write(STREAM, WS, added("a", "Three", "the third text"))
        await client.caught_up(log)
        assert await found(client, "text") == ["a"]
        assert (await client.get(f"/workspaces/{WS}/knowledge/a"))["content"] == "the third text"


async def test_the_longest_document_of_the_worst_words_stops_nothing_and_is_whole(settings: Settings) -> None:
    """PostgreSQL holds at most 1 MiB of words in a row, and no word longer than 2 KiB."""
    log = ListLog(4)
    writer = Writer(log)
    letters = [chr(number) for number in range(0x20000, 0x20000 + 400)]
    many = " ".join(f"{a}{b}-{b}{a}" for a in letters for b in letters)[:MAX_CHARS]
    texts = {"many": many, "long": "x" * MAX_CHARS, "deep": "a-" * (MAX_CHARS // 2)}
    for name, text in texts.items():
        writer.write(STREAM, WS, added(name, "t", text))
    async with running(settings, log) as client:
        await client.caught_up(log, wait_ms=10_000)
        for name, text in texts.items():
            assert (await client.get(f"/workspaces/{WS}/knowledge/{name}"))["content"] == text, name
        assert await found(client, letters[7] + letters[9]) == ["many"] * 2


@given(st.text(alphabet="ab .\n", max_size=5000), st.integers(1, 8))
def test_passages_are_the_text_and_none_is_too_long(text: str, times: int) -> None:
    parts = list(passages(text * times))
    assert "".join(parts) == text * times
    assert all(len(part) <= PASSAGE_CHARS for part in parts)


def test_a_passage_ends_where_a_paragraph_does() -> None:
    paragraphs = [f"Paragraph {number}. " + "word " * 180 + "\n\n" for number in range(6)]
    assert list(passages("".join(paragraphs))) == paragraphs, "each is more than half a passage"


async def test_messages_that_were_there_before_say_what_was_given_with_them(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view of an old database, migrated, is what a rebuild would make of the log."""
    settings = await settings_for(postgres)
    known = migrations()
    own = next(n for n, migration in enumerate(known) if migration.name == "pre_knowledge")
    monkeypatch.setattr(migrate_module, "migrations", lambda: known[:own])
    await migrate(settings)
    monkeypatch.undo()
    log = ListLog(4)
    writer = Writer(log)
    leads = ({"a": "\x00 é", "deep": [1, {"b": None}]}, None)
    for number, lead in enumerate(leads):
        writer.post(thread(1), WS, command=f"c{number}", lead_context=lead, knowledge_ids=("k",) if lead else ())
    assert settings.postgres is not None
    owner = await asyncpg.connect(settings.postgres)
    try:
        await owner.execute(f"SET search_path TO {settings.schema}; SET ROLE parley_projector")
        for fact in writer.written:
            record = writer.record(fact)
            await owner.execute(
                "INSERT INTO facts VALUES ($1, $2, 0, 0, $3, NULL, $4, 0, '{}', $5)",
                *(fact.stream, fact.seq, fact.type, fact.workspace_id, record.value),
            )
            await owner.execute(
                "INSERT INTO messages VALUES ($1, $2, 1, 'm', $3, 0, NULL, 'user', 't', NULL, NULL, NULL, NULL, NULL, "
                "'[]', '{}', 0)",
                *(fact.stream, fact.seq, fact.workspace_id),
            )
        await owner.execute("RESET ROLE")
        await migrate(settings)
        await owner.execute("SET ROLE parley_projector")
        rows = await owner.fetch("SELECT lead_context, knowledge_ids FROM messages ORDER BY seq")
    finally:
        await owner.close()
    assert [row["lead_context"] and orjson.loads(row["lead_context"]) for row in rows] == list(leads)
    assert [orjson.loads(row["knowledge_ids"]) for row in rows] == [["k"], []]

"""What a model is shown of a file, and the line that stands for one that cannot be shown."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from parley_dispatcher.errors import ModelError
from parley_dispatcher.providers import files as module
from parley_dispatcher.providers.files import load_files
from parley_events.body import Json
from parley_events.errors import ObjectsUnavailable
from parley_events.objects import open_objects
from tests.unit.dispatcher.test_claude_runs import PNG, pdf

WORKSPACE = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
JPEG = b"\xff\xd8\xff\xe0" + bytes(60)


async def shown(*given: tuple[str, bytes], owner: str = WORKSPACE, refused: bool = False) -> list[Json]:
    """The blocks for files of these types, in one message each."""
    objects = open_objects("memory:")
    blocks: list[Json] = []
    for number, (content_type, data) in enumerate(given):
        sha256 = await objects.put(owner, data)
        source = {"type": "object", "sha256": sha256, "media_type": content_type, "name": f"f{number}"}
        kind = "image" if content_type.startswith("image/") else "document"
        blocks.append({"type": kind, "source": source} | ({"title": f"f{number}"} if kind == "document" else {}))
    messages = [{"role": "user", "content": [block]} for block in blocks]
    found = await load_files(messages, WORKSPACE, objects, refused=refused)
    return [found[id(block)] for block in blocks]


async def line(content_type: str, data: bytes, **more: Any) -> str:
    [block] = await shown((content_type, data), **more)
    assert block["type"] == "text", block
    said = str(block["text"]).removeprefix(f'[attached: "f0", {content_type}, ').removesuffix("]")
    return said.removesuffix("; read_attachment reads it")


async def test_an_image_is_what_its_bytes_are() -> None:
    found = await shown(("image/png", PNG), ("image/png", JPEG), ("image/webp", b"GIF89a" + bytes(9)))
    assert [block["source"]["media_type"] for block in found] == ["image/png", "image/jpeg", "image/gif"]
    assert base64.b64decode(found[1]["source"]["data"]) == JPEG
    assert await line("image/png", b"<svg/>") == "not an image of a kind that can be shown"


async def test_nothing_is_shown_of_what_is_empty_unreadable_or_another_workspaces() -> None:
    assert await line("image/png", b"") == "empty"
    assert await line("text/plain", b" \n") == "empty"
    assert await line("text/plain", b"\xe9t\xe9") == "not text in UTF-8"
    assert await line("application/pdf", b"%PDF-1.7 and nothing") == "which cannot be opened as a PDF"
    assert await line("image/png", PNG, owner=OTHER) == "which is gone"
    assert await line("image/png", PNG, refused=True) == "which the model's server refused"


async def test_text_is_read_in_the_encodings_that_say_what_they_are() -> None:
    found = await shown(("text/plain", "ü".encode("utf-16")), ("text/csv", b"\xef\xbb\xbfa,b"))
    assert [block["source"]["data"] for block in found] == ["ü", "a,b"]


async def test_what_is_too_large_for_the_api_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "too large an image" in await line("image/png", PNG + bytes(4 * 1024 * 1024))
    assert "too long" in await line("text/plain", b"x" * (module.MAX_TEXT_CHARS + 1))
    monkeypatch.setattr(module, "MAX_PAGES", 3)
    assert "4 pages" in await line("application/pdf", pdf(4))


async def test_the_newest_files_are_shown_where_not_all_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    room = module._Room

    def small() -> module._Room:
        return room(size=300, images=2, pages=3)

    monkeypatch.setattr(module, "_Room", small)
    images = await shown(*[("image/png", PNG + bytes([n])) for n in range(4)])
    assert [block["type"] for block in images] == ["text", "text", "image", "image"]
    assert "beside so many other files" in images[0]["text"]
    texts = await shown(*[("text/plain", bytes([65 + n]) * 150) for n in range(3)])
    assert [block["type"] for block in texts] == ["text", "document", "document"]


async def test_pages_are_counted_over_all_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGES", 100)
    found = await shown(("application/pdf", pdf(60)), ("application/pdf", pdf(61)))
    assert [block["type"] for block in found] == ["text", "document"]


async def test_a_store_that_is_away_is_worth_another_attempt() -> None:
    class Away:
        async def put(self, workspace_id: str, data: bytes) -> str:
            raise ObjectsUnavailable("away")

        async def get(self, workspace_id: str, sha256: str) -> bytes:
            raise ObjectsUnavailable("away")

    source = {"type": "object", "sha256": "0" * 64, "media_type": "image/png", "name": "x"}
    with pytest.raises(ModelError) as failed:
        messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
        await load_files(messages, WORKSPACE, Away())
    assert (failed.value.kind, failed.value.retry) == ("objects", True)

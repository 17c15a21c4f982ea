"""The lines of `docs/streams.md`, as they stand."""

from __future__ import annotations

from pathlib import Path

from tests.support.many import ManyClient
from tests.support.pages import outputs
from tests.support.system import System


def test_the_lines_of_the_page_give_what_it_says(standalone: System, tmp_path: Path) -> None:
    _, first, second = outputs(standalone, "streams.md", tmp_path)
    client = ManyClient()
    for event in first.encode().split(b"\n\n"):
        client.take(event)
    [(one, facts)] = client.facts.items()
    types = ["message.posted", "model.called", "model.returned", "run.completed"]
    assert [fact["type"] for fact in facts] == types and client.deltas > 1
    assert list(client.texts.values()) == ["0000 0001 0002 0003 0004 "]
    for event in second.encode().split(b"\n\n"):
        client.take(event)
    assert client.facts[one] == facts, "nothing comes twice"
    [other] = [thread for thread in client.facts if thread != one]
    assert [fact["type"] for fact in client.facts[other]] == types
    assert client.facts[other][2]["content"] == "While nobody looked."

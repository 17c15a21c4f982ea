"""The table of threads: what is there to be copied and to be read stays whole where it is narrow."""

from __future__ import annotations

import io
from typing import Any

import pytest

from parley_standalone.terminal.screen import Screen
from parley_standalone.terminal.threads import show

ID = "861d2e83-7a92-5e5e-9127-e0ac4e9638da"
LONG = {"title": "a long title of a thread that goes on and on", "agent_id": "0f0f0f0f-1111-4222-8333-444444444444"}


class OneThread:
    """A server with one thread, whose run has ended."""

    async def threads(self, limit: int, archived: bool) -> dict[str, Any]:
        thread = {"id": ID, **LONG, "last_message_at": None, "created_at": "2026-11-27T03:00:00Z"}
        return {"items": [thread], "total": 1}

    async def newest_messages(self, thread_id: str, limit: int) -> list[dict[str, Any]]:
        return [{"run_id": "r"}]

    async def run(self, run_id: str) -> dict[str, Any]:
        return {"status": "completed"}


async def test_an_id_and_a_status_are_whole_in_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    await show(OneThread(), Screen(out), limit=10, archived=False, clock=lambda: 1_795_750_000_000)  # type: ignore[arg-type]
    [_, row] = out.getvalue().splitlines()
    assert row.startswith(ID) and row.rstrip().endswith("completed")

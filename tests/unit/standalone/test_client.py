"""The `parley` command as a client: which Parley it talks to, and how its answers are told."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from parley_standalone import client
from parley_standalone.client import Admin, is_ready, running, wait_until_served
from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder
from parley_standalone.parts.process import free_port
from parley_standalone.settings import Settings

Answer = tuple[int, Any]


@contextmanager
def server(*answers: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that gives these answers in turn (the last one again and again), and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            asked.append(
                {"method": self.command, "path": self.path, "key": self.headers.get("Authorization"), "body": body}
            )
            status, content = answers[min(len(asked), len(answers)) - 1]
            raw = (
                b""
                if content is None
                else content.encode()
                if isinstance(content, str)
                else json.dumps(content).encode()
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}", asked
        finally:
            listening.shutdown()
            thread.join()


def settings_for(url: str) -> Settings:
    return Settings.from_env({"PARLEY_URL": url, "PARLEY_KEY": "pk_test"})


def test_a_call_carries_the_key_and_gives_the_answer() -> None:
    with server((201, {"id": "x"}), (204, None)) as (url, asked):
        assert Admin(settings_for(url)).call("POST", "/keys", {"user": "ann"}) == {"id": "x"}
        assert Admin(settings_for(url)).call("DELETE", "/keys/x", workspace="w") is None
    assert asked == [
        {"method": "POST", "path": "/api/v1/keys", "key": "Bearer pk_test", "body": {"user": "ann"}},
        {"method": "DELETE", "path": "/api/v1/keys/x?workspace=w", "key": "Bearer pk_test", "body": None},
    ]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ((403, {"error": {"code": "forbidden", "message": "Not yours."}}), "refused (403): Not yours."),
        ((400, {"error": "bad_scope", "message": "No scope."}), "refused (400): No scope."),
        ((502, "<html>\nbad gateway"), "refused (502): <html> bad gateway"),
        ((503, []), "refused (503): []"),
    ],
)
def test_a_refusal_is_told_in_the_servers_own_words_on_one_line(answer: Answer, line: str) -> None:
    with server(answer) as (url, _), pytest.raises(CommandError) as caught:
        Admin(settings_for(url)).call("GET", "/keys")
    assert str(caught.value) == line


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(CommandError, match=r"^http://127\.0\.0\.1:\d+ cannot be reached \(ConnectError\)$"):
        Admin(settings_for(f"http://127.0.0.1:{free_port()}")).call("GET", "/keys")


def test_an_address_that_is_none_is_one_line() -> None:
    with pytest.raises(CommandError, match=r"^nonsense cannot be reached"):
        Admin(settings_for("nonsense")).call("GET", "/keys")


def test_without_an_address_the_folder_says_where_and_lends_its_admin_key(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"no Parley runs on .*: start one, name its DATA="):
        running(tmp_path / "data")
    folder = Folder.open(tmp_path / "data")
    with pytest.raises(CommandError, match="is starting or stopping"):
        running(tmp_path / "data")
    with server((200, {"items": []})) as (url, asked):
        (tmp_path / "data" / "ready.json").write_text(json.dumps({"base_url": url, "admin_key": "pk_admin"}))
        Admin(Settings.from_env({"DATA": str(tmp_path / "data")})).call("GET", "/keys")
        assert asked[0]["key"] == "Bearer pk_admin"
    folder.close()
    # What a crash left behind is not believed.
    with pytest.raises(CommandError, match="no Parley runs on"):
        running(tmp_path / "data")


def test_somebody_elses_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder.open(tmp_path / "data")

    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    # As root nothing is refused, so the refusal is played.
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(CommandError, match=r"ready\.json cannot be read: Permission denied"):
        running(tmp_path / "data")
    folder.close()


async def test_ready_is_what_readyz_says() -> None:
    for status, ready in ((200, True), (503, False)):
        with server((status, "")) as (url, asked):
            assert await is_ready(url) is ready
            assert asked[0]["path"] == "/readyz"
    assert await is_ready(f"http://127.0.0.1:{free_port()}") is False


async def test_served_means_let_in_with_every_agent_shown() -> None:
    agents: list[Answer] = [
        (401, {}),
        (503, {}),
        (200, {"items": []}),
        (200, {"items": [{"id": "a"}]}),
        (200, {"items": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}),
    ]
    with server(*agents) as (url, asked):
        assert await wait_until_served(url, "pk_test", ["a", "b"]) is True
    assert len(asked) == len(agents)


async def test_agents_beyond_the_first_page_and_a_key_with_a_limit_are_served_too() -> None:
    """A workspace has as many agents as the API is asked for, and each look counts against the key's limit."""
    pages: list[Answer] = [
        (200, {"items": [{"id": "a"}], "next_cursor": "after-a"}),
        (200, {"items": [{"id": "b"}], "next_cursor": None}),
    ]
    with server(*pages) as (url, asked):
        assert await wait_until_served(url, "pk_test", ["b"]) is True
    assert len(asked) == 2 and "cursor=after-a" in asked[1]["path"]
    with server((200, {"items": [], "next_cursor": None}), (429, {})) as (url, _):
        assert await wait_until_served(url, "pk_test", ["b"]) is True


async def test_a_key_that_stays_refused_was_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_REFUSED_S", 0.2)
    with server((401, {})) as (url, _):
        assert await wait_until_served(url, "pk_test", ["a"]) is False


async def test_a_gateway_that_never_answers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LIMIT_S", 0.2)
    with pytest.raises(CommandError, match=r"did not answer within a minute \(last: ConnectError\)"):
        await wait_until_served(f"http://127.0.0.1:{free_port()}", "pk_test", ["a"])

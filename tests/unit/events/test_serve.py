"""Logs as JSON, a line each."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parley_events.serve import JsonLines, set_up_logs


def line(message: object, *arguments: object, error: bool = False) -> str:
    record = logging.LogRecord(
        "parley.test", logging.WARNING, "here.py", 1, message, arguments, sys.exc_info() if error else None
    )
    record.created = 1_776_695_400.123
    return JsonLines().format(record)


def test_a_line_is_one_object_with_time_level_logger_and_message() -> None:
    text = line("%s gave\nup: %d", "Zoë 👋🏽", 3)
    assert "\n" not in text
    assert "Zoë 👋🏽" in text, "readable as it is"
    assert json.loads(text) == {
        "time": "2026-04-20T14:30:00.123Z",
        "level": "WARNING",
        "logger": "parley.test",
        "message": "Zoë 👋🏽 gave\nup: 3",
    }


def test_an_error_is_in_the_same_line_with_its_traceback() -> None:
    try:
        raise ValueError("what\nhappened")
    except ValueError:
        text = line("it failed", error=True)
    assert "\n" not in text
    assert json.loads(text)["error"].endswith("ValueError: what\nhappened")
    assert "Traceback" in json.loads(text)["error"]


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    for handler in logger.handlers:
        if handler not in handlers:
            handler.close()
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_logs_go_to_a_file_whose_folder_is_made(root: logging.Logger, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "er" / "service.log"
    set_up_logs("info", file)
    logging.getLogger("parley.test").info("seen")
    logging.getLogger("parley.test").debug("below the level")
    logging.getLogger("httpx2").info("noisy")
    [only] = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(only)["message"] == "seen"


def test_without_a_file_they_go_to_stderr(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("warning", None)
    logging.getLogger("parley.test").warning("seen")
    logging.getLogger("parley.test").info("below the level")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert json.loads(shown.err)["message"] == "seen"

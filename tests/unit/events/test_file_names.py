"""Names of files: what is a plain name, and what only looks like one."""

from __future__ import annotations

import pytest

from parley_events.file_names import content_type, file_name


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "plan.pdf",
        "Größe 2.md",
        ".env",
        "..a",
        "報告.txt",
        "a" * 255,
        "x\u200dy",
        "100%.csv",
        "a..b",
        "-rf",
        "%2e%2e%2f",
    ],
)
def test_plain_names_stay_what_they_are(name: str) -> None:
    assert file_name(name) == name


def test_a_name_that_can_be_written_in_two_ways_is_one_name() -> None:
    assert file_name("e\u0301.txt") == file_name("é.txt") == "é.txt"


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "...", " a", "a ", "/etc/passwd", "../a", "a/../b", "a/", "\\\\host\\a", "..\\a"),
        *(
            "C:a",
            "c:\\a",
            "a\x00b",
            "a\nb",
            "a\x7f",
            "\x9b",
            "\u202efdp.exe",
            "a\u2066b",
            "a\u200bb",
            "\ufeffa",
            "a\u2028b",
        ),
        *("a" * 256, "é" * 128),
    ],
)
def test_what_looks_like_a_path_or_other_than_it_is_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a file's name") as refused:
        file_name(name)
    assert len(name) < 3 or name not in str(refused.value), "it is not quoted"


def test_a_type_is_the_one_given_or_what_the_name_suggests() -> None:
    assert content_type("Text/Markdown; charset=utf-8", "a.pdf") == "text/markdown; charset=utf-8"
    assert content_type(None, "a.pdf") == "application/pdf"
    assert content_type("", "a") == "application/octet-stream"


@pytest.mark.parametrize("given", ["text", "a/b/c", "text/plain\r\nX: y", "text/é", "/", "a/" + "b" * 200])
def test_what_is_no_type_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="media type"):
        content_type(given, "a")

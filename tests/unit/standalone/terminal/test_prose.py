"""Texts and thoughts as they stream: what is on the screen in the end is what a whole text would have given."""

from __future__ import annotations

import io
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley_standalone.terminal.prose import Prose
from parley_standalone.terminal.region import Row
from parley_standalone.terminal.screen import Screen

SCREEN = Screen(io.StringIO())
TEXT = """## A head

Some **bold** words, and 你好世界 in between, on a line that has to be wrapped more than once at forty columns.

- one
- two

```py
def f():

    return 1
```

""" + " ".join(f"{n:04d}" for n in range(120))


def plain(rows: list[Row]) -> list[str]:
    return [row.plain.rstrip() for row in rows]


def streamed(pieces: list[str], columns: int) -> list[str]:
    prose = Prose(SCREEN)
    final: list[Row] = []
    for piece in pieces:
        prose.feed("text", piece)
        rows, live = prose.rows(columns)
        final += rows
        assert all(row.cells <= columns for row in [*rows, *live])
    prose.close()
    rows, live = prose.rows(columns)
    assert live == []
    return plain(final + rows)


@given(st.lists(st.integers(1, len(TEXT) - 1), max_size=40), st.sampled_from([20, 40, 79]))
@settings(max_examples=20, deadline=None)
def test_however_it_is_cut_the_rows_are_the_same(places: list[int], columns: int) -> None:
    edges = [0, *sorted(set(places)), len(TEXT)]
    pieces = [TEXT[a:b] for a, b in itertools.pairwise(edges)]
    assert streamed(pieces, columns) == streamed([TEXT], columns)


def test_every_word_is_there() -> None:
    assert " ".join(" ".join(streamed(list(TEXT), 33)).split()) == (
        "A head Some bold words, and 你好世界 in between, on a line that has to be wrapped more than once at forty "
        "columns. • one • two def f(): return 1 " + " ".join(f"{n:04d}" for n in range(120))
    )


ODD = [
    *("word", " ", "\n", "\n\n", "```", "- ", "1. ", "    ", "> ", "# ", "|", "|--|", "*", "_", "`", "---", "==="),
    *("[a](b)", "![i](j)", "<b>", "&amp;", "\\\\", "世", "\t", "[", "](", "é", "👩\u200d👧"),
]


@given(st.lists(st.sampled_from(ODD), max_size=60), st.sampled_from([4, 12, 79]))
@settings(max_examples=60, deadline=None)
def test_no_text_whatever_stops_the_drawing(pieces: list[str], columns: int) -> None:
    found = "".join(streamed(pieces, columns))
    assert found.count("w") <= "".join(pieces).count("word")
    if "".join(pieces).isalpha():
        assert found == "".join(pieces)


def test_a_text_that_the_library_stumbles_over_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles(source: str) -> None:
        raise IndexError(source)

    monkeypatch.setattr("parley_standalone.terminal.markdown.drawn", stumbles)
    assert streamed(["a *b*"], 40) == ["a *b*"]


def test_a_long_paragraph_keeps_two_rows_alive_and_no_more() -> None:
    prose = Prose(SCREEN)
    most = 0
    for n in range(500):
        prose.feed("text", f"{n:04d} ")
        _, live = prose.rows(40)
        most = max(most, len(live))
    assert most <= 3


def test_a_number_at_the_beginning_of_a_row_does_not_become_a_list() -> None:
    text = " ".join(["It was in", *["word"] * 6, *["1998. word word word word word word"] * 8])
    found = streamed([text[n : n + 3] for n in range(0, len(text), 3)], 40)
    assert found[3].startswith("1998. ")
    assert " ".join(" ".join(found).split()) == text


def test_what_is_dropped_is_gone() -> None:
    prose = Prose(SCREEN)
    prose.feed("text", "void")
    prose.drop()
    prose.feed("text", "true")
    prose.close()
    assert plain(prose.rows(40)[0]) == ["true"]


def test_a_thought_has_a_line_at_its_side_and_is_no_markdown() -> None:
    prose = Prose(SCREEN)
    prose.feed("thought", "I *think*\nso")
    prose.feed("text", "Yes")
    prose.close()
    rows = prose.rows(40)[0]
    assert plain(rows) == ["I *think*", "so", "Yes"]
    assert [row.ansi.startswith("│ ") for row in rows] == [True, True, False]


@pytest.mark.parametrize("columns", [4, 10])
def test_a_very_narrow_terminal_loses_no_word(columns: int) -> None:
    assert "".join(streamed(["Hello wide 世界"], columns)).replace(" ", "") == "Hellowide世界"

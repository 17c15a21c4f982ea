"""A growing Markdown text, cut into blocks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_standalone.terminal.blocks import Block, Blocks, chars_of, is_plain, with_breaks

PAGE = """# Head

A paragraph
of two lines.

- one
- two
  more of two

  and more

- three

1. first
2. second

```py
a = 1

b = 2
```
After the fence.

| a | b |
|---|---|
| 1 | 2 |

The end"""

CUT = [
    "# Head\n\n",
    "A paragraph\nof two lines.\n\n",
    "- one\n",
    "- two\n  more of two\n\n  and more\n\n",
    "- three\n\n",
    "1. first\n",
    "2. second\n\n",
    "```py\na = 1\n\nb = 2\n```\n",
    "After the fence.\n\n",
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n",
    "The end",
]


def cut(*pieces: str) -> list[Block]:
    blocks = Blocks()
    found = [block for piece in pieces for block in blocks.feed(piece)]
    return found + blocks.end()


def test_a_page_is_cut_where_nothing_later_can_change_it() -> None:
    found = cut(PAGE)
    assert [block.source for block in found] == CUT
    assert [block.apart for block in found] == [
        False, True, True, False, True, True, False, True, True, True, True,
    ]  # fmt: skip


@given(st.lists(st.integers(1, len(PAGE) - 1)))
def test_how_it_comes_in_pieces_changes_nothing(places: list[int]) -> None:
    edges = [0, *sorted(set(places)), len(PAGE)]
    assert cut(*(PAGE[a:b] for a, b in itertools.pairwise(edges))) == cut(PAGE)


@given(st.lists(st.sampled_from(["a", " ", "\n", "\n\n", "```", "- ", "1. ", "    ", "~~~~", "# "])))
def test_nothing_is_lost(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert "".join(block.source for block in cut(*pieces)) == text or not text.strip() or text.endswith((" ", "\n"))
    assert "".join("".join(block.source.split()) for block in cut(*pieces)) == "".join(text.split())


def test_a_fence_is_closed_by_its_like_alone() -> None:
    source = "````\n```\n\nx\n````\ny"
    assert [block.source for block in cut(source)] == ["````\n```\n\nx\n````\n", "y"]


@pytest.mark.parametrize("text", ["*a*", "`a`", "# a", "- a", "1. a", "    a", "<b>", "a_b", "[a](b)", "x\n=="])
def test_what_markdown_would_mark_up_is_not_plain(text: str) -> None:
    assert not is_plain(text)


def test_how_much_of_a_plain_text_its_rows_show() -> None:
    source = "one two\nthree  four five"
    assert source[chars_of(source, ["one two", "three four"]) :] == "five"
    assert chars_of(source, [source]) == len(source)


def test_line_ends_are_line_ends_but_in_fences() -> None:
    assert with_breaks("a\nb\n\n```\nc\nd\n```\ne") == "a  \nb  \n\n```\nc\nd\n```\ne  "

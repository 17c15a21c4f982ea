"""The head of a skill: what is read of it, and how little of it is believed."""

from __future__ import annotations

import pytest

from parley_events.skills import MAX_DESCRIPTION, BadHead, Head, read_head, with_head


def headed(*lines: str) -> str:
    return "\n".join(["---", *lines, "---", "", "Fold."])


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("Fold.", None),
        ("", None),
        ("--- no head", None),
        (headed("name: Folding", "description: A boat.", "license: MIT"), Head("Folding", "A boat.")),
        (headed("name: Folding").replace("\n", "\r\n"), Head("Folding")),
        (headed("description: >", "  In two", "  lines."), Head(None, "In two lines.")),
        (headed(), Head()),
        (headed("# nothing"), Head()),
        (headed("name: 2026-02-31", "description: yes"), Head("2026-02-31", "yes")),
        (headed("name: ''"), Head()),
    ],
)
def test_a_head_says_the_name_and_what_the_skill_is_for(text: str, head: Head | None) -> None:
    assert read_head(text) == head


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("---\nname: x\nFold.", "does not end"),
        (headed("name: x" + " " * 9000), "does not end"),
        (headed("name: [x"), "not YAML (line 2)"),
        (headed("- x"), "not a mapping"),
        (headed("just words"), "not a mapping"),
        (headed("name: [x]"), "name in the head is not a text"),
        (headed("description: {a: b}"), "description in the head is not a text"),
        (headed("description: " + "x" * (MAX_DESCRIPTION + 1)), f"has {MAX_DESCRIPTION + 1} characters"),
        (headed("{" * 4000), "not YAML"),
        (headed("name: *nobody"), "not YAML"),
        (headed("? [a]", ": b"), "not YAML"),
        (headed("name: \x07"), "not YAML"),
    ],
)
def test_a_head_that_is_none_is_said_in_one_line(text: str, why: str) -> None:
    with pytest.raises(BadHead) as caught:
        read_head(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_tag_makes_anything_and_no_merge_grows() -> None:
    with pytest.raises(BadHead, match="name in the head is not a text"):
        read_head(headed("name: !!python/object/apply:os.getcwd []"))
    assert read_head(headed("name: !!python/name:os.getcwd x")) == Head("x")
    bomb = ["a: &a {x: y}"]
    for number in range(12):
        before = "a" if number == 0 else f"m{number - 1}"
        bomb.append(f"m{number}: &m{number} {{<<: [{', '.join(['*' + before] * 9)}]}}")
    assert read_head(headed(*bomb, "name: small")) == Head("small")


def test_a_head_that_is_made_reads_back_whatever_the_name_holds() -> None:
    for name in ('Making "tea": hot', "- x", "{a}", "# no", "---", "Grüße 日本語 👋", "a\\b"):
        text = with_head("tea", name, "For: 'all'", "Boil.")
        assert read_head(text) == Head(name, "For: 'all'")
        assert text.endswith("\n---\n\nBoil.")

"""A folder of skills: both layouts are read, and a mistake is one line that names the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parley_events.skills import MAX_BODY
from parley_standalone.skills_folder import MAX_SKILLS, BadSkill, Skill, read_skills

HEADED = "---\nname: Folding\ndescription: How to fold a boat.\n---\n\nFirst a crease."


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "skills"
    folder.mkdir(parents=True)
    return folder


def put(home: Path, name: str, text: str | bytes = "First a crease.") -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(home: Path, named: str = "skills") -> tuple[Skill, ...]:
    return read_skills(home.parent, named, "a")


def mistake(home: Path, named: str = "skills") -> str:
    with pytest.raises(BadSkill) as caught:
        read(home, named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_both_layouts_are_read_and_other_files_left_alone(home: Path) -> None:
    put(home, "fold-paper.md", HEADED)
    put(home, "boil-eggs/SKILL.md", "Seven minutes.")
    put(home, "boil-eggs/scripts/timer.py", "print()")
    put(home, "notes.txt")
    put(home, ".hidden.md", b"\xff")
    eggs, paper = read(home)
    assert (eggs.slug, eggs.name, eggs.description) == ("boil-eggs", "boil-eggs", "")
    assert eggs.body == '---\nname: "boil-eggs"\nslug: boil-eggs\n---\n\nSeven minutes.'
    assert paper == Skill(
        agent_id="a", slug="fold-paper", name="Folding", description="How to fold a boat.", body=HEADED
    )


def test_an_empty_folder_has_none_and_line_ends_and_a_mark_of_order_say_nothing(home: Path) -> None:
    assert read(home) == ()
    put(home, "x.md", HEADED)
    plain = read(home)
    put(home, "x.md", b"\xef\xbb\xbf" + HEADED.replace("\n", "\r\n").encode())
    assert read(home) == plain


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("Fold Paper.md", "x", "skills/Fold Paper.md: 'Fold Paper' is no name of a skill"),
        ("README.md", "x", "skills/README.md: 'README' is no name of a skill"),
        ("x.md", "", "skills/x.md is empty"),
        ("x.md", " \n", "skills/x.md is empty"),
        ("x.md", b"\xff\xfe", "skills/x.md is not UTF-8"),
        ("x.md", "a\0b", "skills/x.md holds a NUL"),
        ("x.md", "x" * (MAX_BODY + 1), f"skills/x.md has more than {MAX_BODY} characters"),
        ("x.md", "x" * MAX_BODY, f"skills/x.md has more than {MAX_BODY} characters with its head"),
        ("x.md", b"\xff" * (4 * MAX_BODY + 1), f"skills/x.md has more than {MAX_BODY} characters"),
        ("x.md", "---\nname: [\n---\n", "skills/x.md: the head is not YAML (line 2)"),
        ("x/SKILL.md", "---\n- a\n---\n", "skills/x/SKILL.md: the head is not a mapping"),
        ("x/skill.md", "x", "there is no skills/x/SKILL.md"),
        ("x.md/SKILL.md", "x", "skills/x.md is not a file"),
    ],
)
def test_a_mistake_names_the_file(home: Path, name: str, text: str | bytes, line: str) -> None:
    put(home, name, text)
    assert mistake(home).startswith(line)


def test_one_name_stands_for_one_skill_and_there_is_a_most(home: Path) -> None:
    put(home, "x.md")
    put(home, "x/SKILL.md")
    assert mistake(home) == "skills/x.md: there is another skill 'x'"
    (home / "x/SKILL.md").unlink()
    (home / "x").rmdir()
    for number in range(MAX_SKILLS):
        put(home, f"s{number}.md")
    assert mistake(home) == f"skills holds more than {MAX_SKILLS} skills"


def test_nothing_outside_the_folder_is_read(home: Path) -> None:
    outside = put(home.parent.parent, "secret.md", "secret")
    (home / "x.md").symlink_to(outside)
    assert mistake(home) == "skills/x.md leads out of its folder"
    (home / "x.md").unlink()
    (home / "y").symlink_to(outside.parent)
    outside.rename(outside.with_name("SKILL.md"))
    assert mistake(home) == "skills/y/SKILL.md leads out of its folder"
    (home / "y").unlink()
    assert mistake(home, "skills/../..") == "skills/../.. leads out of its folder"
    assert mistake(home, "/") == "/ leads out of its folder"
    (home.parent / "link").symlink_to(home.parent.parent)
    assert mistake(home, "link") == "link leads out of its folder"
    assert mistake(home, "a\0b").startswith("there is no ")


def test_links_within_the_folder_are_followed(home: Path) -> None:
    """As mounted configurations are laid out: `x.md` → `..data/x.md`."""
    put(home, "..data/x.md", HEADED)
    (home / "x.md").symlink_to("..data/x.md")
    assert [skill.slug for skill in read(home)] == ["x"]


def test_what_is_no_file_does_not_make_the_start_wait(home: Path) -> None:
    os.mkfifo(home / "x.md")
    assert mistake(home) == "skills/x.md is not a file"
    (home / "x.md").unlink()
    (home / "x.md").symlink_to("x.md")
    assert mistake(home) == "there is no skills/x.md"

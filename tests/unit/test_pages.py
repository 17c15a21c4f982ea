"""The pages for people: every link leads somewhere; every `make` target and `parley` command that is named is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from parley_standalone.__main__ import app

TOP = Path(__file__).parents[2]
PAGES = [*sorted(TOP.glob("*.md")), *sorted((TOP / "docs").glob("*.md")), TOP / "tests/bench/RESULTS.md"]
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_LINE = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*((?:make|parley|\.venv/bin/parley)(?: .*)?)$", re.MULTILINE)
_PIPED = re.compile(r"\| *(parley(?: .*)?)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What may stand behind `#`, as GitHub makes it of the headings."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[str]:
    """Everything on the page that begins with `make` or `parley`: in code within a line, and in what one is to type."""
    text = page.read_text()
    found = [line for fence in _FENCE.findall(text) for line in (*_LINE.findall(fence), *_PIPED.findall(fence))]
    for code in _CODE.findall(_FENCE.sub("", text)):
        found += [*_LINE.findall(code), *_PIPED.findall(code)]
    yield from (line.removeprefix(".venv/bin/") for line in found)


def words_of(line: str) -> list[str]:
    """The words of a command, up to what a shell would take for itself."""
    return shlex.split(re.split(r"\s+#|\s*[|>;]|\s2>", line)[0])


def targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))


def wrong(line: str) -> str | None:
    """What is wrong with a command that a page names; None: it can be typed."""
    program, *words = words_of(line)
    if program == "make":
        named = [word for word in words if "=" not in word]
        missing = [word for word in named if word not in targets()]
        return f"there is no target {missing[0]}" if missing else None
    command: object = typer.main.get_command(app)
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        name = words.pop(0)
        if name not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}  # type: ignore[attr-defined]
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
    return f"it has no option {unknown[0]}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), f"{target}: there is no such file"
        assert found.resolve().is_relative_to(TOP), f"{target}: leads out of the repository"
        assert not anchor or anchor in anchors(found), f"{target}: there is no such heading"


@pytest.mark.parametrize(
    "page",
    # A changelog may name what was taken away.
    [page for page in PAGES if page.name != "CHANGELOG.md"],
    ids=lambda page: str(page.relative_to(TOP)),
)
def test_every_command_that_is_named_is_there(page: Path) -> None:
    for line in commands(page):
        assert (why := wrong(line)) is None, f"{line!r}: {why}"


def test_the_commands_of_the_pages_are_found_and_a_wrong_one_is_noticed() -> None:
    named = {tuple(words_of(line)[:2]) for page in PAGES for line in commands(page)}
    assert named >= {("make", "up"), ("make", "compose-up"), ("parley", "chat"), ("parley", "seed"), ("parley", "keys")}
    assert wrong("make coffee PORT=1") and wrong("parley brew") and wrong("parley keys brew")
    assert wrong("parley chat --brew x") and wrong("parley keys create --user ann --scopes chat,read") is None


def test_every_page_is_named_where_one_looks_first() -> None:
    for page in (TOP / "docs").glob("*.md"):
        assert f"docs/{page.name}" in (TOP / "README.md").read_text(), f"the README does not lead to {page.name}"

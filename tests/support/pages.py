"""The lines of a page in docs/, run as they stand, one after the other in one shell; and what they asked for.

Each `curl` of a page is the real one, told to say on stderr what it sent and what came back: which endpoints a page
shows, and with what success, is read there, and nowhere from the page's text.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.support.endpoints import SHOWN, Endpoint
from tests.support.system import System

DOCS = Path(__file__).parents[2] / "docs"
LIMIT_S = 100
_BETWEEN = "---- the next block ----"
_ASKED = re.compile(r"^> ([A-Z]+) ([^ ?]+)\S* HTTP/", re.MULTILINE)
_ANSWERED = re.compile(r"^< HTTP/1\.1 ([0-9]{3})", re.MULTILINE)


class Asked(NamedTuple):
    """A request of a page, and the status of its answer."""

    method: str
    path: str
    status: int

    def shows(self, endpoint: Endpoint) -> bool:
        """Whether it is a request to the endpoint with the status that a reader is to see."""
        place = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(endpoint.path))
        wanted = endpoint.refused or range(200, 300)
        return self.method == endpoint.method and bool(re.fullmatch(place, self.path)) and self.status in wanted


def outputs(system: System, page: str, folder: Path, key: str = "api_key") -> list[str]:
    """What each block of lines prints, but for the first, which says what is given: KEY and URL. Fails unless the page
    shows every endpoint that it is the page of."""
    text = (DOCS / page).read_text()
    [known, *blocks] = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^(\w+)=", known, re.MULTILINE)) == {"KEY", "URL"}
    ready = system.ready()
    given = {"KEY": ready[key], "URL": ready["base_url"], "WORKSPACE_ID": ready["workspace_id"]}
    lines = folder / "lines"
    lines.mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"\necho; echo {_BETWEEN}\n".join(blocks)],
        cwd=lines,
        env={"PATH": f"{_telling_curl(folder)}:{os.environ['PATH']}", "NO_PROXY": "127.0.0.1", **given},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    requests = asked(folder)
    missing = [one for one in SHOWN.get(page, ()) if not any(request.shows(one) for request in requests)]
    assert not missing, f"{page} has no request that shows {missing}: {requests}"
    return [part.strip("\n") for part in done.stdout.split(_BETWEEN)]


def asked(folder: Path) -> list[Asked]:
    """The requests of a page that was run, in no order; but for those that were left before an answer came."""
    found = []
    for told in (folder / "told").iterdir():
        text = told.read_text(errors="replace")
        sent, answered = _ASKED.search(text), _ANSWERED.search(text)
        if sent is not None and answered is not None:
            found.append(Asked(sent[1], sent[2], int(answered[1])))
    return found


def _telling_curl(folder: Path) -> Path:
    """A folder with a `curl` that says what it does, for the front of the PATH."""
    real = shutil.which("curl")
    assert real is not None
    (folder / "told").mkdir()
    program = folder / "bin" / "curl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/bash\nexec {real} -v "$@" 2> {folder}/told/$$\n')
    program.chmod(0o755)
    return program.parent

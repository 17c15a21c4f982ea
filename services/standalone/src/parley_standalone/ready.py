"""READY: one JSON object that says where a running Parley is and how to get in; and the banner for people."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from parley_standalone.errors import CommandError
from parley_standalone.folder import Folder, write_private


class Ready:
    """The READY file, and a copy in the folder for the `parley` command: whole, mode 600, removed at the end."""

    def __init__(self, folder: Folder, file: Path | None) -> None:
        self._files = [folder.path / "ready.json", *([file] if file is not None else [])]
        self._secrets = folder.secrets
        # What a crash left behind would look like a Parley that answers.
        self.remove()

    def write(self, gateways: list[str], kafka: str | None, postgres: str, pids: dict[str, list[int]]) -> None:
        """Say that everything answers; called again when a pid changes."""
        kept = self._secrets
        content: dict[str, Any] = {
            "base_url": gateways[0],
            "gateways": gateways,
            "api_key": kept.api_key,
            "admin_key": kept.admin_key,
            "workspace": kept.workspace,
            "workspace_id": kept.workspace_id,
            "user": kept.user,
            "kafka": kafka,
            "postgres": postgres,
            "pids": pids,
        }
        for file in self._files:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_private(file, json.dumps(content, indent=1) + "\n")
            except OSError as error:
                raise CommandError(f"READY={file} cannot be written: {error.strerror}") from None

    def remove(self) -> None:
        for file in self._files:
            with suppress(OSError):
                file.unlink()


def announce(gateways: list[str], folder: Folder, notices: Iterable[str], let_in: bool) -> None:
    """Tell the person at the screen, once everything answers."""
    for notice in notices:
        print(f"  note: {notice}", flush=True)
    if not let_in:
        print("  note: the ready-made key was revoked; `parley keys create` makes another", flush=True)
    print(banner(gateways, folder), flush=True)


def banner(gateways: list[str], folder: Folder) -> str:
    """What the screen shows once everything answers: where, the key, a line to paste, how to stop."""
    kept, base_url = folder.secrets, gateways[0]
    others = "".join(f", {url}" for url in gateways[1:])
    body = json.dumps({"structure_id": kept.workspace_id, "role_id": "assistant", "message": "Hello, who is there?"})
    return (
        f"\n  Parley is at {base_url}{others}\n"
        f"  key    {kept.api_key}\n"
        f"  docs   {base_url}/docs\n"
        f"  logs   {folder.logs}\n\n"
        f"  Try it:\n\n"
        f"  curl -N {base_url}/api/org/chat/message -H 'Authorization: Bearer {kept.api_key}' "
        f"-H 'Content-Type: application/json' -d '{body}'\n\n"
        f"  Ctrl-C stops it.\n"
    )

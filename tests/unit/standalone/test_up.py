"""The port of `up`: ours from the first moment, or one line that says why not."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from parley_standalone.errors import CommandError
from parley_standalone.up import listen


def test_a_port_that_is_taken_is_one_line_that_names_the_setting() -> None:
    with listen(0) as first:
        port = first.getsockname()[1]
        with pytest.raises(CommandError, match=rf"^127\.0\.0\.1:{port} is in use: name another port with PORT=,"):
            listen(port)
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
    with listen(port):
        pass


def test_a_port_that_is_forbidden_is_not_called_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Root may take any port, so the refusal is played.
    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(CommandError, match=r"^127\.0\.0\.1:80 cannot be listened on \(Permission denied\): .*PORT="):
        listen(80)

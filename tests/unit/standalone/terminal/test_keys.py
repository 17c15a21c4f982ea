"""What is typed while an answer streams."""

from __future__ import annotations

import pytest

from parley_standalone.terminal.keys import Typed


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (b"hello", ("hello", False)),
        (b"hello\r", ("hello", True)),
        (b"helk\x7flo\n", ("hello", True)),
        (b"\x1b[A\x1bOPa\x1b[1;5Cb", ("ab", False)),
        (b"one\x1b\rtwo\r", ("one\ntwo", True)),
        ("ü世".encode() + b"\xe4", ("ü世", False)),
        (b"\r", ("", False)),
        (b"\x01\x02", ("", False)),
    ],
)
def test_a_line_without_its_control_keys(keys: bytes, line: tuple[str, bool]) -> None:
    assert Typed(bytearray(keys)).take() == line


def test_lines_are_taken_one_by_one() -> None:
    typed = Typed(bytearray(b"one\rtwo\rthr"))
    assert [typed.take() for _ in range(4)] == [("one", True), ("two", True), ("thr", False), ("", False)]

"""What a typed line means."""

from __future__ import annotations

import pytest

from parley_standalone.terminal.orders import ORDERS, Message, Order, Unclear, help_lines, read


@pytest.mark.parametrize(
    "line",
    ["hello", "/text hi", "/stream 50 20\n/text x", "//", ":)", ":-)", ": quit", ":1", "a :quit", ":quit.", " :quit"],
)
def test_everything_else_is_a_message_as_it_stands(line: str) -> None:
    assert read(line) == Message(line)


def test_a_second_colon_sends_what_would_be_an_order() -> None:
    assert read("::quit") == Message(":quit")


@pytest.mark.parametrize("line", ["", " ", "\n"])
def test_nothing_typed_is_nothing(line: str) -> None:
    assert read(line) is None


def test_orders_take_what_follows() -> None:
    assert read(":attach  my file.txt ") == Order(":attach", "my file.txt")
    assert read(":agent") == Order(":agent", "")
    assert read(":quit ") == Order(":quit", "")


def test_an_order_that_is_none_is_not_sent_and_says_what_was_meant() -> None:
    found = read(":atach x")
    assert isinstance(found, Unclear) and "did you mean :attach?" in found.why
    assert isinstance(read(":attach"), Unclear)


def test_the_help_has_every_order() -> None:
    assert {text.split()[0] for text, _ in help_lines()} >= set(ORDERS)

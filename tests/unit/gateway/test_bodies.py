"""Large bodies: whatever was cut out of them, they say what the parser says."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import orjson
import pytest

from parley_gateway.bodies import LONG, MARK, Long, parse_large

CONTENT = "QUJD" * (LONG // 4 + 1)
ESCAPED = '"' + "\\n" + CONTENT


def plain(value: Any) -> Any:
    """The value with its long strings as text."""
    if isinstance(value, Long):
        return bytes(value.view).decode()
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "value",
    [
        {
            "attachments": [{"content_base64": CONTENT, "name": "a"}, {"content_base64": CONTENT + "Q"}],
            "m": f"{MARK}-0",
        },
        {"message": CONTENT, "attachments": [{"content_base64": ESCAPED}, {"content_base64": CONTENT}]},
        {"message": ESCAPED + '"' + CONTENT, "attachments": None},
        {"deep": {"down": [CONTENT]}, "attachments": [{"content_base64": CONTENT}]},
        {CONTENT: 1, "attachments": CONTENT},
        {"attachments": [CONTENT, {"content_base64": [CONTENT]}, {"content_base64": f"{MARK}-1"}]},
        [CONTENT],
        CONTENT,
    ],
    ids=range(8),
)
def test_what_is_cut_out_is_put_back_where_it_was(value: Any) -> None:
    for raw in (orjson.dumps(value), json.dumps(value, indent=1).encode(), b" " * LONG + orjson.dumps(value)):
        assert plain(parse_large(bytearray(raw)).value) == value


def test_the_contents_of_attachments_are_not_parsed() -> None:
    raw = bytearray(orjson.dumps({"attachments": [{"content_base64": CONTENT}], "message": "hi"}))
    value, seen = parse_large(raw)
    assert isinstance(value["attachments"][0]["content_base64"], Long) and len(seen) < 100


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": "' + CONTENT.encode(),
        b'{"a": ' + CONTENT.encode() + b"}",
        b'{"a": "' + CONTENT.encode() + b'"',
        b'{"message": "' + CONTENT.encode() + b'\n"}',
        b'{"message": "' + CONTENT.encode() + b'\xff"}',
        b'"' * LONG * 2,
        b"\\" * LONG * 2,
        b" " * LONG * 2,
    ],
    ids=range(8),
)
def test_what_is_no_json_is_no_json(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        orjson.loads(raw)
    with pytest.raises(ValueError, match=r"."):
        parse_large(bytearray(raw))


def test_a_body_made_to_be_searched_again_and_again_is_parsed_like_others() -> None:
    guesses = ["".join(f"cut-{n}-" for n in range(start, start + 1000)) for start in range(0, 200_000, 1000)]
    value = {"attachments": [{"content_base64": CONTENT}], "more": guesses}
    raw = bytearray(orjson.dumps(value))
    began = process_time()
    assert plain(parse_large(raw).value) == value
    assert process_time() - began < 5, "a search for each of them takes minutes"

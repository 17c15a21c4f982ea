"""Commands as anyone who may write the topic could write them."""

from __future__ import annotations

from typing import Any

import pytest

from parley_events.body import Attachment, Principal
from parley_events.codec import Command, decode_command, encode_command
from parley_events.commands import MAX_ATTACHMENTS, PostMessage
from parley_events.errors import Undecodable
from parley_events.log import Incoming

THREAD = "0f0f0f0f-1111-4222-8333-444444444444"
WORKSPACE = "11111111-2222-4333-8444-555555555555"
GOOD = {"name": "plan.txt", "content_type": "text/plain", "size": 7, "sha256": "ab" * 32}


def decoded(*files: dict[str, Any]) -> PostMessage:
    """The command with these attachments, as the dispatcher reads it from the log."""
    raw = PostMessage.model_construct(
        principal=Principal(user_id="ann"), text="hi", attachments=tuple(Attachment(**file) for file in files)
    )
    out = encode_command(Command("c", THREAD, WORKSPACE, 0, raw), 1)
    body = decode_command(Incoming(out.topic, 0, 0, 0, out.key, out.value, out.headers)).body
    assert isinstance(body, PostMessage)
    return body


@pytest.mark.parametrize(
    "wrong",
    [
        {"sha256": "../../other/ab"},
        {"sha256": "AB" * 32},
        {"sha256": ""},
        {"size": -1},
        {"size": 2**63},
        {"name": "../plan.txt"},
        {"name": "a\x00b"},
        {"name": "x" * 256},
        {"name": ""},
        {"content_type": "text/plain\r\nSet-Cookie: a=b"},
        {"content_type": "text/plain\x00"},
    ],
)
def test_an_attachment_that_no_view_could_hold_is_no_command(wrong: dict[str, Any]) -> None:
    with pytest.raises(Undecodable, match="attachments"):
        decoded(GOOD | wrong)


def test_a_message_has_as_many_attachments_as_a_gateway_lets_it_have() -> None:
    assert len(decoded(*[GOOD] * MAX_ATTACHMENTS).attachments) == MAX_ATTACHMENTS
    with pytest.raises(Undecodable, match="attachments"):
        decoded(*[GOOD] * (MAX_ATTACHMENTS + 1))


def test_an_attachments_name_is_in_the_form_in_which_tools_look_for_it() -> None:
    (file,) = decoded(GOOD | {"name": "re\u0301sume\u0301.txt", "content_type": "Text/Plain"}).attachments
    assert (file.name, file.content_type) == ("r\u00e9sum\u00e9.txt", "text/plain")

"""API keys: one form, that names its workspace, and of which only a hash is kept."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_events.keys import key_hash, key_workspace, make_key

WORKSPACE = "0b54a1de-0d5c-4b8a-9d1f-4b1f4a3c2e10"


@given(st.binary(min_size=32, max_size=32))
def test_a_key_names_its_workspace_and_holds_its_secret(secret: bytes) -> None:
    key = make_key(WORKSPACE, secret)
    assert key.isascii() and len(key) == len("pk_") + 32 + 1 + 43
    assert key_workspace(key) == WORKSPACE
    assert key_hash(key) == hashlib.sha256(key.encode()).hexdigest()


def test_other_secrets_are_other_keys() -> None:
    assert make_key(WORKSPACE, bytes(32)) != make_key(WORKSPACE, bytes(31) + b"\x01")
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="32 bytes"):
            make_key(WORKSPACE, wrong)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: "",
        lambda key: key[1:],
        lambda key: key + "x",
        lambda key: key[:-1],
        lambda key: key.upper(),
        lambda key: key + "\n",
        lambda key: key.replace("_", "-", 1),
        lambda key: key[:-1] + "é",
    ],
)
def test_what_has_not_a_keys_form_names_no_workspace(change: object) -> None:
    assert callable(change)
    assert key_workspace(change(make_key(WORKSPACE, bytes(range(32))))) is None

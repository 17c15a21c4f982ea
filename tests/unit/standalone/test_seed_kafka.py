"""`parley seed`: the keys that the environment gives, taken or refused in one line that never shows a key."""

from __future__ import annotations

import uuid

import pytest

from parley_events.keys import make_key
from parley_standalone.errors import CommandError
from parley_standalone.seed_kafka import given_keys, seed_kafka
from parley_standalone.settings import Settings

WORKSPACE = str(uuid.uuid4())
CHAT, ADMIN = make_key(WORKSPACE, b"c" * 32), make_key(WORKSPACE, b"a" * 32)


def settings(**env: str) -> Settings:
    return Settings.from_env({"PARLEY_API_KEY": CHAT, "PARLEY_KEY": ADMIN, "PARLEY_WORKSPACE_ID": WORKSPACE, **env})


def test_a_keys_id_follows_from_the_key() -> None:
    kept, again = given_keys(settings(), WORKSPACE), given_keys(settings(), WORKSPACE)
    assert (kept.api_key_id, kept.admin_key_id) == (again.api_key_id, again.admin_key_id)
    other = given_keys(settings(PARLEY_API_KEY=make_key(WORKSPACE, b"o" * 32)), WORKSPACE)
    assert other.admin_key_id == kept.admin_key_id
    assert len({kept.api_key_id, kept.admin_key_id, other.api_key_id}) == 3
    assert CHAT not in repr(kept) and ADMIN not in repr(kept)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"PARLEY_WORKSPACE_ID": ""}, "PARLEY_WORKSPACE_ID is not a UUID"),
        ({"PARLEY_WORKSPACE_ID": WORKSPACE.upper()}, "PARLEY_WORKSPACE_ID is not a UUID"),
        ({"PARLEY_API_KEY": ""}, "PARLEY_API_KEY is no key of the workspace"),
        ({"PARLEY_KEY": "pk_secret"}, "PARLEY_KEY is no key of the workspace"),
        ({"PARLEY_KEY": make_key(str(uuid.uuid4()), b"x" * 32)}, "PARLEY_KEY is no key of the workspace"),
        ({"PARLEY_KEY": CHAT}, "are the same"),
    ],
)
async def test_what_is_missing_or_wrong_is_named_and_no_key_is_shown(env: dict[str, str], words: str) -> None:
    with pytest.raises(CommandError, match=words) as raised:
        await seed_kafka(settings(**env))
    assert all(value not in str(raised.value) for value in (CHAT, ADMIN, env.get("PARLEY_KEY") or CHAT))


async def test_without_a_kafka_one_line_says_where_it_was_looked_for() -> None:
    with pytest.raises(CommandError, match=r"^Kafka at 127\.0\.0\.1:9: "):
        await seed_kafka(settings(PARLEY_KAFKA="127.0.0.1:9"))

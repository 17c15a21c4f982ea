"""API keys: their form, and the only thing of them that is ever stored (a hash).

`pk_<workspace id, 32 hex digits>_<43 characters of secret>`: whoever reads a key knows which workspace to look in,
so the look-up itself is already scoped to one tenant. The secret has 256 bits, so a plain SHA-256 is enough.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid

_FORM = re.compile(r"pk_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")


def make_key(workspace_id: str, secret: bytes) -> str:
    """The key for a workspace around 32 random bytes."""
    if len(secret) != 32:
        raise ValueError("a key's secret has 32 bytes")
    text = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    return f"pk_{uuid.UUID(workspace_id).hex}_{text}"


def key_workspace(key: str) -> str | None:
    """The id of the workspace that a key claims to open; None when it has not a key's form."""
    match = _FORM.fullmatch(key)
    return str(uuid.UUID(match[1])) if match else None


def key_hash(key: str) -> str:
    """What is stored of a key: SHA-256, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()

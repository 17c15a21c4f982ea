"""Documents of a workspace: what its agents search, and what may be attached to a message. How large, how many."""

from __future__ import annotations

from typing import Literal, get_args

DocumentType = Literal["text/plain", "text/markdown", "application/pdf"]
"""What a document came as; what is kept of a PDF is its text."""
TYPES: tuple[DocumentType, ...] = get_args(DocumentType)

MAX_TITLE = 300
"""The most characters of a title."""
MAX_CHARS = 1_000_000
"""The most characters of a document."""
MOST_DOCUMENTS = 1000
"""How many documents a workspace may have."""
MOST_CHARS = 20_000_000
"""The most characters of all its documents together: a search looks at every one of their passages."""
MOST_ATTACHED = 10
"""How many documents a message may name."""

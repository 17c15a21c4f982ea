"""Large bodies together have a limit; each by itself has one of its own."""

from __future__ import annotations

import pytest

from parley_gateway.errors import Unavailable
from parley_gateway.uploads import FREE, Uploads

SIZE = 1000


def test_what_does_not_fit_beside_others_is_refused_and_fits_once_they_are_done() -> None:
    uploads = Uploads(SIZE)
    first, second = uploads.begin(), uploads.begin()
    first.grow(FREE + 600)
    second.grow(FREE + 400)
    with pytest.raises(Unavailable) as refused:
        second.grow(FREE + 401)
    assert refused.value.status == 503
    assert refused.value.headers["Connection"] == "close", "what is left of it is not read"
    assert int(refused.value.headers["Retry-After"]) > 0
    first.close()
    second.grow(FREE + SIZE)
    second.close()
    assert uploads.taken == 0


def test_small_bodies_are_not_counted_and_one_alone_always_fits() -> None:
    uploads = Uploads(SIZE)
    for _ in range(100):
        uploads.begin().grow(FREE)
    alone = uploads.begin()
    alone.grow(FREE + 10 * SIZE)
    with pytest.raises(Unavailable):
        uploads.begin().grow(FREE + 1)
    alone.close()
    alone.close()
    uploads.begin().grow(FREE + 1)

"""Every endpoint that is served has a page that shows it. That the page does, its own test sees."""

from __future__ import annotations

from tests.contract.dialects.test_rights import DEEDS
from tests.support.endpoints import shown


def test_every_endpoint_has_its_page() -> None:
    served = {deed.template() for deed in DEEDS}
    assert shown() == served

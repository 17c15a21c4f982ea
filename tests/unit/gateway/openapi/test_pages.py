"""What is served of the documents: to whoever comes, whole, and with nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from parley_gateway.openapi import page
from parley_gateway.openapi.contracts import CONTRACTS, documents
from tests.support.asgi import ask
from tests.unit.gateway.world import World


async def test_the_documents_are_served_without_a_key(here: World) -> None:
    app = here.gateways[0][0]
    listed = await ask(app, "GET", "/openapi")
    assert [found["name"] for found in listed.json()["contracts"]] == list(CONTRACTS)
    for found in listed.json()["contracts"]:
        served = await ask(app, "GET", found["document"])
        assert (served.status, served.headers["content-type"]) == (200, "application/json")
        assert served.json() == documents()[found["name"]]
        shown = await ask(app, "GET", found["docs"])
        assert (shown.status, shown.headers["content-type"]) == (200, "text/html; charset=utf-8")
        for said in (said for methods in served.json()["paths"].values() for said in methods.values()):
            assert f'id="{said["operationId"]}"' in shown.body.decode()
    here.core.hub.drain()
    assert (await ask(app, "GET", "/docs")).status == 200, "also while it stops"


async def test_what_is_shown_loads_nothing_from_elsewhere_and_runs_nothing(here: World) -> None:
    app = here.gateways[0][0]
    for path in ("/docs", *(f"/docs/{name}" for name in CONTRACTS)):
        shown = await ask(app, "GET", path)
        policy = shown.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';")
        assert shown.headers["x-content-type-options"] == "nosniff"
        assert shown.headers["x-frame-options"] == "DENY"
        text = shown.body.decode()
        assert not re.search(r"<script|\son\w+=|\sstyle=|(src|href)=\"(https?:)?//", text)
        for link in re.findall(r'href="([^"#]+)"', text):
            assert (await ask(app, "GET", link)).status == 200, link
    style = await ask(app, "GET", page.STYLE)
    assert style.headers["content-type"].startswith("text/css") and "url(" not in style.body.decode()


async def test_what_is_not_there_is_refused_as_everything_else(here: World) -> None:
    app = here.gateways[0][0]
    for path in ("/openapi/", "/openapi/nothing.json", "/openapi/threads", "/docs/nothing", "/docs/", "/docs/../x"):
        refused = await ask(app, "GET", path)
        assert (refused.status, refused.json()["error"]["code"]) == (404, "not_found"), path
    for path in ("/openapi", "/docs/threads"):
        refused = await ask(app, "POST", path)
        assert (refused.status, refused.json()["error"]["code"]) == (405, "method_not_allowed")


class Links(HTMLParser):
    """The places of a page, and the links to them; fails where an element is closed that was not opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.named: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(found["id"] or "")
        if (found.get("href") or "").startswith("#"):
            self.named.append((found["href"] or "")[1:])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_a_page_is_whole_and_its_links_lead_somewhere(name: str) -> None:
    read = Links()
    read.feed(page.page(name, documents()[name]))
    assert read.open == []
    assert len(set(read.ids)) == len(read.ids)
    assert set(read.named) <= set(read.ids)


def test_what_stands_in_a_document_cannot_become_a_part_of_its_page() -> None:
    found = documents()["org_chat"]
    odd = {**found, "info": {**found["info"], "title": "<script>alert(1)</script>", "description": '`"><b>` & <i>'}}
    text = page.page("org_chat", odd)
    assert "<script>" not in text and "<i>" not in text and "<b>` " not in text
    assert "<code>&quot;&gt;&lt;b&gt;</code> &amp; &lt;i&gt;" in text

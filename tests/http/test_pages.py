"""The pages: whole, escaped, and in need of nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from ledgerd.http.openapi import document
from ledgerd.http.pages import HTML_HEADERS, docs_page, problem_page, problems_page
from ledgerd.http.problems import PROBLEMS
from ledgerd.http.routes import ROUTES

VOID = {"meta", "br", "hr", "img", "link", "input"}
DOCUMENT = document(ROUTES)
PAGES = {
    "docs": docs_page(DOCUMENT),
    "problems": problems_page(),
    **{slug: problem_page(slug) for slug in PROBLEMS},
}


class Outline(HTMLParser):
    """Ids, links, tags and text of a page; fails on tags that don't match."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.append(name)
            if name == "id":
                self.ids.append(value)
            if name in {"href", "src"}:
                self.links.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


OUTLINES = {name: Outline(page) for name, page in PAGES.items()}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_needs_nothing_from_outside(name):
    page, outline = PAGES[name].decode(), OUTLINES[name]
    assert page.startswith("<!doctype html>")
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(outline.tags)
    assert not [name for name in outline.attributes if name.startswith("on") or name in {"style", "src"}]
    assert not re.search(r"https?://|url\(|@import", page)
    assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in outline.links)


@pytest.mark.parametrize("name", PAGES)
def test_the_style_is_the_one_that_the_headers_allow(name):
    (style,) = re.findall(r"<style>(.*?)</style>", PAGES[name].decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = HTML_HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert f"style-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    outline = OUTLINES[name]
    assert len(set(outline.ids)) == len(outline.ids)
    served = {"/docs", "/openapi.json", "/problems/", *(route.path for route in ROUTES)}
    served |= {f"/problems/{slug}" for slug in PROBLEMS}
    for link in outline.links:
        assert (link[1:] in outline.ids) if link.startswith("#") else (link in served), link


def test_the_api_page_has_every_operation_parameter_and_schema():
    outline = OUTLINES["docs"]
    for route in ROUTES:
        assert route.name in outline.ids
        assert route.path in outline.text
        assert route.summary in outline.text
        for parameter in route.parameters:
            assert parameter.name in outline.text
        for slug in route.problems:
            assert f"/problems/{slug}" in outline.links
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert f"schema-{name}" in outline.ids
        for field in schema["properties"]:
            assert field in outline.text


def test_the_api_page_has_its_guide():
    assert {"start", "authentication", "money", "time", "retries", "errors", "schemas"} <= set(
        OUTLINES["docs"].ids
    )


@pytest.mark.parametrize("slug", PROBLEMS)
def test_a_problem_page_says_what_it_means_and_whether_to_retry(slug):
    text = OUTLINES[slug].text
    kind = PROBLEMS[slug]
    assert kind.title in text
    assert str(kind.status) in text
    assert kind.advice.replace("`", "") in text
    assert f'"type": "/problems/{slug}"' in text
    nothing_done = "Nothing was done" in text.partition("Send it again?")[2]
    assert nothing_done == (kind.status != 500)


def test_the_index_has_every_problem():
    assert {f"/problems/{slug}" for slug in PROBLEMS} <= set(OUTLINES["problems"].links)


def test_what_comes_from_the_document_is_escaped():
    hostile = "<script>alert(1)</script>`<b>`"
    described = document([])
    described["info"] = {"title": hostile, "version": hostile, "description": hostile}
    outline = Outline(docs_page(described))
    assert "script" not in outline.tags
    assert "b" not in outline.tags
    assert "<script>alert(1)</script><b>" in outline.text

from __future__ import annotations

import hashlib
import re
import tomllib
from importlib.resources import files

import pytest

from ledgerd.http.console.assets import ASSETS, address_of
from tests.http.console.visitor import Visitor

STATIC = files("ledgerd.http") / "static"
VENDORED = tomllib.loads((STATIC / "ASSETS.toml").read_text("utf-8"))
OURS = {"console.css", "console.js", "icon.svg"}


@pytest.mark.parametrize("name", VENDORED)
def test_what_is_vendored_is_as_it_was_published(name):
    listed = VENDORED[name]
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == listed["sha256"]
    assert listed["version"]
    assert listed["licence"] in {"0BSD", "MIT"}
    assert len((STATIC / listed["licence_file"]).read_text("utf-8")) > 500
    assert listed["source"].startswith("npm ")


def test_every_file_is_ours_or_listed():
    licences = {listed["licence_file"] for listed in VENDORED.values()}
    assert {file.name for file in STATIC.iterdir()} == OURS | VENDORED.keys() | licences | {"ASSETS.toml"}
    assert ASSETS.keys() == OURS | VENDORED.keys()


@pytest.mark.parametrize("name", ASSETS)
def test_no_file_asks_for_another_site(name):
    """Names of standards and of where a library is told of are no requests."""
    text = (STATIC / name).read_text("utf-8")
    found = set(re.findall(r"https?://[\w./-]+", text))
    assert found <= {"http://www.w3.org/2000/svg", "https://htmx.org", "https://github.com/leeoniya/uPlot"}, (
        found
    )
    assert "@import" not in text
    assert "url(" not in text


async def test_each_is_served_for_ever_under_its_digest(world):
    for name, asset in ASSETS.items():
        assert hashlib.sha256(asset.body).hexdigest()[:16] in address_of(name)
        answer = await Visitor(world).get(asset.address)
        assert (answer.status, answer.body) == (200, asset.body)
        assert answer.headers["Content-Type"] == asset.content_type
        assert answer.headers.getall("Cache-Control") == ["public, max-age=31536000, immutable"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_an_older_digest_is_not_found(world):
    assert (await world.get("/console/static/console.0123456789abcdef.css")).status == 404
    assert (await world.get("/console/static/ASSETS.toml")).status == 404

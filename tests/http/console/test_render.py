from __future__ import annotations

import re
from importlib.resources import files

import pytest
from jinja2 import UndefinedError

from ledgerd.http.console.render import grouped, readable_day, render

TEMPLATES = sorted(
    file
    for file in (files("ledgerd.http") / "templates" / "console").iterdir()
    if file.name.endswith(".html")
)


@pytest.mark.parametrize(
    ("rupees", "shown"),
    [
        ("0.00", "0.00"),
        ("207.00", "207.00"),
        ("1000.00", "1,000.00"),
        ("99999.99", "99,999.99"),
        ("100000.00", "1,00,000.00"),
        ("1234567.00", "12,34,567.00"),
        ("123456789012.34", "1,23,45,67,89,012.34"),
        ("12345", "12,345"),
        ("0.0011500", "0.0011500"),
    ],
)
def test_rupees_are_grouped_as_india_does(rupees, shown):
    assert grouped(rupees) == shown


def test_days_are_written_for_people():
    assert readable_day("2026-01-05") == "5 Jan 2026"
    assert readable_day("0999-12-31") == "31 Dec 999"


def test_what_a_template_is_given_is_escaped():
    page = render("login.html", who='"><script>x</script>', error="<b>", next="/console/", **FRAME).decode()
    assert "<script>x" not in page
    assert "<b>" not in page.replace('<b class="tag">', "")
    assert "&lt;script&gt;x" in page


FRAME = {"session": None, "business_date": "2026-01-01", "is_sandbox": False, "here": ""}


def test_a_template_lacks_no_value():
    with pytest.raises(UndefinedError):
        render("login.html", **FRAME)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_pages_hold_nothing_that_their_policy_forbids(template):
    """No inline script or style, no handler in an attribute, nothing of another site."""
    text = template.read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|hx-on|javascript:", text)
    assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text)
    assert "|safe" not in text.replace(" ", "")
    assert "autoescape" not in text


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_every_form_that_posts_bears_the_token_of_its_session(template):
    text = template.read_text("utf-8")
    for form in re.findall(r"<form[^>]*>.*?</form>", text, re.DOTALL):
        if 'method="post"' in form and 'action="/console/login"' not in form:
            assert '<input type="hidden" name="csrf" value="{{ session.csrf }}">' in form, form


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_every_field_has_a_label(template):
    text = template.read_text("utf-8")
    labelled = set(re.findall(r'<label[^>]* for="([^"]+)"', text))
    for field in re.findall(r"<(?:input|select)\b[^>]*>", text):
        if 'type="hidden"' not in field:
            [name] = re.findall(r'\bid="([^"]+)"', field)
            assert name in labelled or "aria-label" in field, field

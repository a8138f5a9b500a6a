"""Makes HTML of the console's templates. What they are given is escaped; they name no file but our own."""

from __future__ import annotations

import re
from datetime import date
from typing import Any, Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from ledgerd import __version__
from ledgerd.http.console.assets import address_of

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # The form's own origin is told, to nobody but us: see `is_ours` in endpoint.py.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Type": "text/html; charset=utf-8",
}
_GROUPS: Final = re.compile(r"(?<=\d)(?=(?:\d\d)+\d$)")

_templates: Final = Environment(
    loader=PackageLoader("ledgerd.http", "templates/console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def grouped(rupees: str) -> str:
    """Write rupees as India does, in lakhs and crores: 1234567.00 -> 12,34,567.00."""
    whole, point, fraction = rupees.partition(".")
    return _GROUPS.sub(",", whole) + point + fraction


def readable_day(day: str) -> str:
    """Write a date for people: 2026-01-31 -> 31 Jan 2026."""
    shown = date.fromisoformat(day)
    return f"{shown.day} {shown:%b %Y}"


def readable_moment(instant: str) -> str:
    """Write an instant for people, to the second: 2026-01-31T09:30:00.123Z -> 31 Jan 2026 09:30:00 UTC."""
    day, _, rest = instant.partition("T")
    return f"{readable_day(day)} {rest[:8]} UTC"


def sentence(text: str) -> str:
    """Write the first letter large."""
    return text[:1].upper() + text[1:]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_templates.filters.update(
    rupees=grouped, day=readable_day, moment=readable_moment, sentence=sentence, json=_json
)
_templates.globals.update(asset=address_of, version=__version__)


def render(template: str, **values: Any) -> bytes:
    """Return a page, or a part of one, as HTML."""
    return _templates.get_template(template).render(values).encode()

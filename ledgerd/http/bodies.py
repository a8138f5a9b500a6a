"""From the bytes of a body to a Struct, with every refusal that the contract knows: media type, syntax,
repeated and bad fields.

Money is taken from the raw JSON literal, by the ASCII rule of the domain, before any parser could round it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from multidict import MultiMapping

from ledgerd.domain.calendar import parse_day
from ledgerd.domain.money import parse_hundredths
from ledgerd.http.problems import Problem

T = TypeVar("T", bound=msgspec.Struct)
V = TypeVar("V")

COMMAS_PER_ITEM_MAX = 16
REPEATED_NAMED_MAX = 20
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])

JSON_TYPES = frozenset(
    {"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"}
)
JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
NDJSON_TYPE = "application/x-ndjson"

_AT = re.compile(r"(?P<message>.*) - at `\$\.?(?P<path>[^`]*)`", re.DOTALL)
_NAMED = re.compile(r"Object (?:contains unknown|missing required) field `(?P<name>.*?)`", re.DOTALL)
_LONG_NUMBER = re.compile(r"[0-9]{9,}")
_TRANSACTION_ID = re.compile(r"[A-Za-z0-9._:\-]{1,64}", re.ASCII)


class FieldErrors:
    """Gathers bad fields, so that one answer names them all."""

    def __init__(self) -> None:
        self._errors: list[dict[str, str]] = []

    def add(self, path: str, message: str) -> None:
        """Note one bad field."""
        self._errors.append({"path": path, "message": message})

    def rupees(self, path: str, raw: msgspec.Raw, *, zero_allowed: bool = False) -> int:
        """Read money as paise; 0 with an error noted when it is bad."""
        value = decimal_literal(raw)
        if value is None:
            self.add(path, "must be rupees: digits with at most two decimals, such as 207.00")
        elif value == 0 and not zero_allowed:
            self.add(path, "must be more than zero")
        return value or 0

    def check(self) -> None:
        """Raise the problem when anything was noted."""
        if self._errors:
            raise self.problem()

    def problem(self) -> Problem:
        """Return the problem that names what was noted."""
        return Problem("invalid-fields", "Some fields are not valid.", {"errors": self._errors})


def decimal_literal(raw: msgspec.Raw) -> int | None:
    """Read a JSON string or number literal as hundredths, by the money rule, else None."""
    text = str(raw, "utf-8", "replace")
    if text[0] == '"':
        text = json.loads(text) if "\\" in text else text[1:-1]
    return parse_hundredths(text)


def is_transaction_id(text: str) -> bool:
    """Return whether it is 1 to 64 of A-Za-z0-9._:-"""
    return _TRANSACTION_ID.fullmatch(text) is not None


def check_media_type(content_type: str | None, other: str | None = None) -> bool:
    """Raise unless the body is JSON in UTF-8 (False) or `other`, where that is served too (True)."""
    if content_type in JSON_TYPES:
        return False
    media_type, _, parameters = (content_type or "").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if charset in {"", "charset=utf-8", "charset=utf8"}:
        if media_type.strip() == JSON_TYPE:
            return False
        if other is not None and media_type.strip() == other:
            return True
    kinds = JSON_TYPE if other is None else f"{JSON_TYPE} or {other}"
    raise Problem("unsupported-media-type", f"Send {kinds} in UTF-8.")


def check_encoding(encoding: str | None) -> None:
    """Raise when the body is compressed, or otherwise encoded."""
    if encoding is not None and encoding.lower() != "identity":
        raise Problem("unsupported-media-type", "Send the body without a Content-Encoding.")


def quoted_names(kind: type[msgspec.Struct]) -> tuple[bytes, ...]:
    """Return the field names of a body as they stand in its JSON, for `decode_json`."""
    return tuple(f'"{name}"'.encode() for name in kind.__struct_fields__)


def decode_json(decoder: msgspec.json.Decoder[T], body: bytes, names: tuple[bytes, ...]) -> T:
    """Decode a JSON object. `names` are its `quoted_names`, for the search of repeated ones."""
    value = _decoded(decoder, body)
    if b"\\" in body:
        _check_repeated(body)
        return value
    for name in names:
        if body.count(name) > 1:
            _check_repeated(body)
            break
    return value


def split_array(body: bytes, items_max: int) -> list[msgspec.Raw]:
    """Return the items of a JSON array as they came: each is JSON, whatever else."""
    # What is to be counted costs memory; no array of payments has as many commas as this.
    if body.count(b",") <= COMMAS_PER_ITEM_MAX * items_max:
        items = _decoded(_ARRAY, body)
        if len(items) <= items_max:
            return items
    raise Problem("body-too-large", f"An array may hold {items_max} payments.")


def _decoded(decoder: msgspec.json.Decoder[V], body: bytes) -> V:
    if not body.isascii():
        _check_utf8(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _check_syntax(body)  # a wrong field may stand before what is no JSON at all
        raise invalid_fields(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise _not_json() from None


def decode_form(kind: type[T], body: bytes) -> T:
    """Decode application/x-www-form-urlencoded; each field at most once."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=16,
        )
    except ValueError:
        raise Problem("malformed", "The body is not a form.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        _refuse_repeated([name for name, _ in pairs])
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise invalid_fields(error) from None


def invalid_fields(error: msgspec.ValidationError) -> Problem:
    """Turn msgspec's message into the problem that names the field."""
    text = str(error)
    located = _AT.fullmatch(text)
    message, path = (located["message"], located["path"]) if located else (text, "")
    named = _NAMED.match(message)
    if named is not None:
        path = f"{path}.{named['name']}" if path else named["name"]
        message = "is not known" if "unknown" in message else "is missing"
    if message.startswith("Invalid enum value"):
        message = "is none of the values that it may have"  # what was sent is not for us to repeat
    # A number that was sent as a field's name is not for us to repeat either.
    errors = [{"path": _LONG_NUMBER.sub("#", path)[:100], "message": message[:200]}]
    return Problem("invalid-fields", "Some fields are not valid.", {"errors": errors})


def _check_syntax(body: bytes) -> None:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        raise _not_json() from None


def _not_json() -> Problem:
    return Problem("malformed", "The body is not JSON.")


def _check_utf8(body: bytes) -> None:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem("malformed", "The body is not UTF-8.") from None


def _check_repeated(body: bytes) -> None:
    """Look for repeated names exactly; the quick search before may have met a name in a value."""

    def names(pairs: list[tuple[str, Any]]) -> None:
        seen = [name for name, _ in pairs]
        if len(set(seen)) != len(seen):
            _refuse_repeated(seen)

    try:
        json.loads(body, object_pairs_hook=names, parse_float=str, parse_int=str)
    except RecursionError:  # it gives up at a lesser depth than msgspec
        raise Problem("malformed", "The body is nested too deeply.") from None


def _refuse_repeated(names: list[str]) -> None:
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    errors = [
        {"path": _LONG_NUMBER.sub("#", name)[:100], "message": "is repeated"}
        for name in repeated[:REPEATED_NAMED_MAX]
    ]
    raise Problem("invalid-fields", "Some fields are repeated.", {"errors": errors})


# Queries -----------------------------------------------------------------------------------------


def check_query(query: MultiMapping[str]) -> None:
    """Raise when a parameter is repeated: which one was meant?"""
    names = [name for name, _ in query.items()]  # to go through it gives each name once
    if len(set(names)) != len(names):
        _refuse_repeated(names)


def page_limit(query: Mapping[str, str]) -> int:
    """Read `limit`: 1 to 500, 100 when left out."""
    text = query.get("limit", "100")
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 500):
        errors = [{"path": "limit", "message": "must be a whole number from 1 to 500"}]
        raise Problem("invalid-fields", "Some parameters are not valid.", {"errors": errors})
    return int(text)


def bad_cursor() -> Problem:
    """The problem of a cursor that we didn't give, or gave for something else."""
    errors = [{"path": "cursor", "message": "must be the next_cursor of the page before"}]
    return Problem("invalid-fields", "Some parameters are not valid.", {"errors": errors})


def business_date(path: str, text: str) -> int:
    """Read a date as a day number."""
    day = parse_day(text)
    if day is None:
        errors = [{"path": path, "message": "must be a date, YYYY-MM-DD"}]
        raise Problem("invalid-fields", "Some fields are not valid.", {"errors": errors})
    return day

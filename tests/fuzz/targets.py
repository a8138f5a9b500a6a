"""Whatever reads what strangers send, with inputs by chance, the worst of full size, and what must hold of
any: the typed refusal and no other error, agreement with a slow reference of our own, and a time.

The time is a generous bound on the CPU of one input: once a number of sixty bytes held an interpreter for
minutes. It is measured again before it is believed, since a collection of garbage may fall into it.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
import string
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from hypothesis import strategies as st
from multidict import MultiDict

from ledgerd.domain.calendar import parse_day
from ledgerd.domain.money import parse_hundredths
from ledgerd.domain.transactions import RowParser, resolve_columns
from ledgerd.http.addresses import TrustedProxies
from ledgerd.http.bodies import (
    FORM_TYPE,
    check_media_type,
    check_query,
    decimal_literal,
    decode_form,
    decode_json,
    is_transaction_id,
    page_limit,
    quoted_names,
    split_array,
)
from ledgerd.http.keyring import load_or_create_keyring
from ledgerd.http.lines import Lines
from ledgerd.http.people_payloads import TokenRequest
from ledgerd.http.person import valid_email, valid_name
from ledgerd.http.problems import Problem
from ledgerd.http.routes import ROUTES
from ledgerd.http.tokens import BadToken, Revocations, Tokens
from ledgerd.ids import format_id, parse_id
from ledgerd.observe import mask_aadhaar
from ledgerd.scheduler.csv_reader import CsvReader, NotTextError
from ledgerd.storage.vault import Vault

SECONDS_MAX = 0.05
BODY_BYTES = 16_384  # the largest body, and the largest line of a stream
HEADER_BYTES = 8_190


@dataclass(frozen=True)
class Target:
    """Something that reads, what it is fed with, and what must hold; `worst`: inputs of full size."""

    name: str
    inputs: st.SearchStrategy[Any]
    holds: Callable[[Any], None]
    worst: Sequence[Any] = field(default=(), repr=False)


class TooSlow(AssertionError):
    """An input that took longer than any may."""


def quickly(call: Callable[..., Any], *arguments: Any, seconds_max: float = SECONDS_MAX) -> Any:
    """Call, and raise TooSlow when it took too long three times."""
    spent_s = []
    for _ in range(3):
        began_s = time.process_time()
        try:
            return call(*arguments)
        finally:
            spent_s.append(time.process_time() - began_s)
            if spent_s[-1] > seconds_max and len(spent_s) == 3:
                raise TooSlow(f"{min(spent_s):.3f} s for {arguments!r:.200}")
            if spent_s[-1] > seconds_max:
                continue  # noqa: B012 - what it returned or raised comes again
    raise AssertionError


def refusal_of(call: Callable[..., Any], *arguments: Any) -> Any:
    """What it returns, or the slug of the Problem that it raises; any other error is a fault."""
    try:
        return quickly(call, *arguments)
    except Problem as problem:
        refused = problem
    assert len(json.dumps(refused.extras)) < 10_000, "an answer may not outgrow what was sent"
    return refused.slug


# Texts --------------------------------------------------------------------------------------------

DIGITS = "0123456789.,-+eE_ \n٠५²１\x00"
NUMBERS = st.one_of(
    st.text(DIGITS, max_size=20), st.from_regex(r"[0-9]{0,15}\.?[0-9]{0,3}", fullmatch=True), st.text()
)


def money(text: str) -> None:
    """By the rule's letter, with no regular expression: digits, a point, and at most two more."""
    whole, point, fraction = text.partition(".")
    digits = set(string.digits)
    good = (
        1 <= len(whole) <= 13
        and set(whole + fraction) <= digits
        and (1 <= len(fraction) <= 2 if point else True)
    )
    expected = int(whole) * 100 + int(fraction.ljust(2, "0") or "0") if good else None
    assert quickly(parse_hundredths, text) == expected
    literal = msgspec.Raw(json.dumps(text).encode())
    assert quickly(decimal_literal, literal) == expected


def day(text: str) -> None:
    number = quickly(parse_day, text)
    if number is not None:
        assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII)
        assert 1 <= number <= 3_652_059


def an_id(text: str) -> None:
    number = quickly(parse_id, text)
    assert (number is not None) == (
        len(text) == 16 and set(text) <= set("0123456789abcdef") and text[0] in "01234567"
    )
    assert number is None or (0 <= number < 2**63 and format_id(number) == text)


def transaction_id(text: str) -> None:
    alphabet = set(string.ascii_letters + string.digits + "._:-")
    assert quickly(is_transaction_id, text) == (1 <= len(text) <= 64 and set(text) <= alphabet)


def limit(text: str) -> None:
    found = refusal_of(page_limit, {"limit": text})
    assert found == "invalid-fields" or 1 <= found <= 500


def person(text: str) -> None:
    if quickly(valid_email, text):
        local, at, domain = text.partition("@")
        assert at
        assert "@" not in domain
        assert text.isascii()
        assert text.isprintable()
        assert " " not in text
        assert not {local[:1], local[-1:], domain[:1], domain[-1:]} & {".", ""}
    if quickly(valid_name, text):
        assert text.strip()
        assert not any(ord(character) < 32 for character in text)


def verhoeff(digits: str) -> bool:
    """The check of an Aadhaar number, by the dihedral group of ten elements and one permutation."""
    permutation = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        for _ in range(place % 8):
            digit = permutation[digit]  # noqa: PLW2901 - by as many steps as its place
        turns, flipped = check % 5, check >= 5
        other = digit % 5
        check = ((turns - other) if flipped else (turns + other)) % 5 + 5 * (flipped != (digit >= 5))
    return check == 0


VAULT = Vault({1: b"e" * 32}, 1, b"i" * 32, "aadhaar", random.Random(1).randbytes)


def identity(text: str) -> None:
    good = len(text) == 12 and set(text) <= set(string.digits) and text[0] not in "01" and verhoeff(text)
    assert quickly(VAULT.parse, text) == (text if good else None)


PROXIES = TrustedProxies(["10.0.0.0/8", "::1"])


def forwarded(text: str) -> None:
    assert quickly(PROXIES.caller, "203.0.113.7", [text]) == "203.0.113.7"  # nobody's proxy
    quickly(PROXIES.caller, "10.0.0.1", text.split("\n"))


def media_type(text: str) -> None:
    assert refusal_of(check_media_type, text, FORM_TYPE) in {True, False, "unsupported-media-type"}


def logged(text: str) -> None:
    masked = quickly(mask_aadhaar, None, "", {"event": text})["event"]
    assert not re.search(r"(?<![0-9a-f])[2-9][0-9]{11}(?![0-9a-f])", masked)


# Bodies -------------------------------------------------------------------------------------------

BODIES = {route.name: route.body for route in ROUTES if route.body is not None}
DECODERS = {name: (msgspec.json.Decoder(kind), quoted_names(kind)) for name, kind in BODIES.items()}
NAMES = sorted({name for kind in BODIES.values() for name in kind.__struct_fields__})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    NUMBERS,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6).map(
    lambda value: json.dumps(value).encode()
)
SPLICES = st.sampled_from(
    [
        b'"',
        b"\\",
        b"\\u0061",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"NaN",
        b"1e999",
    ]
    + [f'"{name}":'.encode() for name in NAMES]
)


@st.composite
def spliced(draw: st.DrawFn) -> bytes:
    """A nearly good body, with pieces put in or cut out."""
    body = bytearray(draw(OBJECTS))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(body)))
        body[place : place + draw(st.integers(0, 6))] = draw(SPLICES)
    return bytes(body)


def names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), "a name that comes twice was let through"
    return dict(pairs)


def body(content: bytes) -> None:
    for name, (decoder, quoted) in DECODERS.items():
        found = refusal_of(decode_json, decoder, content, quoted)
        if isinstance(found, str):
            assert found in {"malformed", "invalid-fields"}, name
            continue
        # What was taken is JSON for others too, with each name once and none that is not known.
        seen = json.loads(content.decode("utf-8"), object_pairs_hook=names_once)
        assert set(seen) <= set(BODIES[name].__struct_fields__), name
        for one in BODIES[name].__struct_fields__:
            value = getattr(found, one)
            if isinstance(value, msgspec.Raw):
                quickly(decimal_literal, value)
            elif isinstance(value, str):
                assert value == seen[one]
    items = refusal_of(split_array, content, 100)
    if isinstance(items, list):
        assert len(items) == len(json.loads(content, parse_int=str, parse_float=str))


def form(content: bytes) -> None:
    found = refusal_of(decode_form, TokenRequest, content)
    if not isinstance(found, str):
        for pair in content.split(b"&"):
            name, _, value = pair.partition(b"=")
            text = unquote_to_bytes(value.replace(b"+", b" ")).decode()
            assert getattr(found, unquote_to_bytes(name.replace(b"+", b" ")).decode()) == text


def query(names: list[str]) -> None:
    found = refusal_of(check_query, MultiDict((name, "") for name in names))
    assert found == ("invalid-fields" if len(set(names)) < len(names) else None)


def many_names(size: int) -> bytes:
    """An object of as many short names as fit, the last of them twice."""
    names = [f"{number:x}" for number in range(size // 6)]
    return b",".join(b'"%s":1' % name.encode() for name in [*names, names[-1]])


def padded(before: bytes, piece: bytes, after: bytes = b"") -> bytes:
    return (before + piece * (BODY_BYTES // len(piece)))[: BODY_BYTES - len(after)] + after


WORST_BODIES = [
    *(padded(b'{"amount":', piece) for piece in (b"[", b'{"a":', b"9", b"1e9", b'"\\u0061', b"\\", b"-")),
    *(padded(b"", piece) for piece in (b"[", b"{", b'"', b" ", b"\xff", b"`", b"0,")),
    padded(b'{"', b" - at `$.", b'":1}'),
    padded(b'{"', b"`Object contains unknown field `", b'":1}'),
    padded(b'{"', b"234567890124", b'":1}'),
    padded(b'{"loan_id":"', b"\\u00e9", b'"}'),
    padded(b'{"amount":"', b"\\ud83d\\ude00", b'","loan_id":"a","transaction_id":"a"}'),
    b'{"loan_id":"\\u0061","transaction_id":"x","amount":{%s}}' % many_names(15_000),
    b'{"loan_id":"a","loan_id":"a","transaction_id":"x","amount":{%s}}' % many_names(15_000),
    b'{"loan_id":"\\u0061","transaction_id":"x","amount":%s}' % (b"[" * 8_000 + b"]" * 8_000),
]


# Tokens -------------------------------------------------------------------------------------------

NOW_S = 1_800_000_000


def _tokens() -> tuple[Tokens, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        keyring = load_or_create_keyring(Path(folder) / "keys", NOW_S - 1_000, random.Random(1).randbytes)
    now_s: Callable[[], float] = lambda: float(NOW_S)  # noqa: E731
    made = Tokens(keyring, "ledgerd", "ledgerd", 900, 10, now_s, Revocations(now_s))
    return made, [
        made.issue(format_id(7), "borrower", ("borrower",), 9, format_id(11)),
        made.issue(format_id(8), "client", ("payments:write", "ops"), 10, format_id(12)),
    ]


TOKENS, REAL = _tokens()
CALLERS = [TOKENS.verify(token) for token in REAL]
PARTS = st.sampled_from(
    [part for token in REAL for part in token.split(".")] + ["", "e30", "bnVsbA", "eyJhbGciOiJub25lIn0"]
)


@st.composite
def mutated_tokens(draw: st.DrawFn) -> str:
    """A real token with some of it changed, parts of both put together, or any text."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.text())
    if kind == 1:
        return ".".join(draw(st.lists(PARTS, max_size=5)))
    token = list(draw(st.sampled_from(REAL)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(token)))
        token[place : place + draw(st.integers(0, 2))] = draw(st.text("AZaz09-_.=+/ \n\x00é", max_size=2))
    return "".join(token)


def token(text: str) -> None:
    """Whatever is taken is one of ours, to the letter of its claims."""
    verdict = quickly(TOKENS.verify, text)
    assert isinstance(verdict, BadToken) or (verdict in CALLERS and text.split(".")[1] in "".join(REAL)), text


# Streams ------------------------------------------------------------------------------------------


def pieces_of(content: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    return [content[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(st.integers(0, 200), max_size=10)
LINE_PIECES = st.sampled_from(
    [b"a", b"bc", b" ", b"\r", b"\t", b"\n", b"\n\n", b"x" * 9, b" " * 9, b"\x0b", b"\x85"]
)


def lines(given: tuple[list[bytes], list[int]]) -> None:
    """Cut anywhere, the same lines as those of the whole; of one too long its beginning."""
    content, longest = b"".join(given[0]), 8
    expected = [line for line in content.split(b"\n") if line.strip() or len(line) > longest]
    found, splitter = [], Lines(longest)
    for piece in pieces_of(content, given[1]):
        found += quickly(splitter.split, piece)
    found += splitter.end()
    assert [line[:longest] for line in found] == [line[:longest] for line in expected]
    assert [len(line) > longest for line in found] == [len(line) > longest for line in expected]


CSV_PIECES = st.sampled_from(
    [
        *(b"a", b",", b'"', b'""', b"\n", b"\r\n", b"\r", "₹".encode(), b"\xe2", b"\x00", b"12.50", b'","'),
        *(b"\xef\xbb\xbf", b"=1+1", "\u202e".encode(), b"x" * 200, b"\n" * 99),
        b"234567890124,2026-01-01,CREDIT,1.00\n",
    ]
)
ROWS = RowParser(resolve_columns(["user", "date", "transaction_type", "amount"]), VAULT.parse)


def table(given: tuple[list[bytes], list[int]]) -> None:
    """Cut anywhere, the same rows; each that was read is what the csv module reads in the same text."""
    content = b"h\n" + b"".join(given[0])

    def read(cuts: Sequence[int]) -> list[Any]:
        reader, rows = CsvReader(record_bytes_max=200), []
        for piece in pieces_of(content, cuts):
            rows += quickly(reader.feed, piece)
        rows += quickly(reader.close)
        assert reader.offset == len(content)
        return rows

    try:
        rows = read([])
    except NotTextError:
        return
    assert read(given[1]) == rows
    for _line, _offset, fields, raw in rows:
        if isinstance(fields, list):
            assert [fields] == list(csv.reader(io.StringIO(raw, newline=""))), raw
            assert isinstance(quickly(ROWS.row, fields), str | tuple)


def large_table(content: bytes) -> None:
    """However its quotes stand, no line is read again and again."""
    reader = CsvReader()
    rows = quickly(lambda: [*reader.feed(content), *reader.close()], seconds_max=3.0)
    assert rows


LARGE_BYTES = 200_000

TARGETS = [
    Target(
        "money", NUMBERS, money, ["9" * BODY_BYTES, "0" * 5_000 + ".00", "1" + "0" * 60, "." * BODY_BYTES]
    ),
    Target("day", st.one_of(st.dates().map(str), st.text("0123456789-", max_size=11), st.text()), day),
    Target(
        "id",
        st.one_of(
            st.integers(0, 2**64).map("{:016x}".format), st.text("0123456789abcdefF", max_size=17), st.text()
        ),
        an_id,
        ["0" * BODY_BYTES],
    ),
    Target(
        "transaction_id",
        st.one_of(st.text("aZ9._:-\né", max_size=66), st.text()),
        transaction_id,
        ["a" * BODY_BYTES],
    ),
    Target("limit", NUMBERS, limit, ["9" * HEADER_BYTES]),
    Target(
        "person",
        st.one_of(st.text("a1@.-+ é\u202e", max_size=30), st.emails(), st.text()),
        person,
        ["a." * 8_000, "a@" + "a." * 8_000, "a@" + "a-" * 8_000, "\u0301" * 200],
    ),
    Target(
        "identity",
        st.one_of(st.from_regex(r"[0-9]{11,13}", fullmatch=True), st.text("0123456789 １", max_size=13)),
        identity,
        ["2" * 256],
    ),
    Target(
        "X-Forwarded-For",
        st.text("0123456789abcdef.:,[]% \n", max_size=60),
        forwarded,
        ["10.0.0.1," * 900, "[" * 8_000, ":" * 8_000, "," * 8_000, "1%" * 4_000],
    ),
    Target(
        "Content-Type",
        st.one_of(st.text('aplicton/jsx-w;=" utf8', max_size=40), st.text()),
        media_type,
        [";" * HEADER_BYTES, " " * HEADER_BYTES, "application/json;" + '" ' * 4_000],
    ),
    Target(
        "log",
        st.text("0123456789abcdef -._\n", max_size=60),
        logged,
        [
            "2345 6789 " * 1_600,
            "2" * BODY_BYTES,
            "2345" + " " * BODY_BYTES,
            "2345 " * 3_000,
            "f" * BODY_BYTES,
        ],
    ),
    Target("body", st.one_of(spliced(), st.binary(max_size=40)), body, WORST_BODIES),
    Target(
        "form",
        st.one_of(
            st.lists(
                st.sampled_from(
                    [
                        b"grant_type=client_credentials",
                        b"client_id=a",
                        b"client_secret=%00",
                        b"&",
                        b"=",
                        b"%FF",
                    ]
                ),
                max_size=6,
            ).map(b"&".join),
            st.binary(max_size=40),
        ),
        form,
        [padded(b"", piece) for piece in (b"&", b"a=1&", b"%00", b"=", b"%", b"+")],
    ),
    Target(
        "query",
        st.lists(st.text("ab", max_size=2), max_size=6),
        query,
        [[f"{n:x}" for n in range(2_700)] * 2],
    ),
    Target(
        "token", mutated_tokens(), token, [REAL[0] + "A" * 3_000, "." * 8_000, "e30." * 2_000, "A" * 4_096]
    ),
    Target("lines", st.tuples(st.lists(LINE_PIECES, max_size=40), CUTS), lines),
    Target("csv", st.tuples(st.lists(CSV_PIECES, max_size=40), CUTS), table),
    Target(
        "large csv",
        st.lists(CSV_PIECES, min_size=1, max_size=6).map(lambda parts: b"h\n" + b"".join(parts) * 200),
        lambda content: None if b"\x00" in content[:600] else _text_only(large_table, content),
        [
            b"h\n" + (piece * (LARGE_BYTES // len(piece)))[:LARGE_BYTES]
            for piece in (
                b'"',
                b'x,a","b\n',
                b'"\n',
                b'"a\n' + b"b\n" * 99,
                b",",
                b"\n",
                b"\r",
                b"x" * 65_000 + b'"\n',
            )
        ],
    ),
]


def _text_only(holds: Callable[[bytes], None], content: bytes) -> None:
    try:
        holds(content)
    except NotTextError:
        return

"""Bodies before any handler sees them: media types, literals of money, repeated names, forms, queries."""

from __future__ import annotations

import string
import time
import tracemalloc

import msgspec
import pytest
from multidict import MultiDict

from ledgerd.http.bodies import (
    FORM_TYPE,
    NDJSON_TYPE,
    REPEATED_NAMED_MAX,
    FieldErrors,
    bad_cursor,
    business_date,
    check_encoding,
    check_media_type,
    check_query,
    decimal_literal,
    decode_form,
    decode_json,
    is_transaction_id,
    page_limit,
    split_array,
)
from ledgerd.http.payloads import MakePayment
from ledgerd.http.people_payloads import Login, TokenRequest
from ledgerd.http.problems import Problem

FIELDS = tuple(f'"{name}"'.encode() for name in MakePayment.__struct_fields__)
DECODER = msgspec.json.Decoder(MakePayment)
GOOD = b'{"loan_id": "a", "transaction_id": "t", "amount": %s}'


def refusal(call, *arguments, **named) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*arguments, **named)
    return caught.value


def paths(problem: Problem) -> list[str]:
    assert problem.slug == "invalid-fields"
    return [error["path"] for error in problem.extras["errors"]]


def literal(text: str) -> int | None:
    return decimal_literal(msgspec.Raw(text.encode("utf-8", "surrogatepass")))


@pytest.mark.parametrize(
    ("text", "hundredths"),
    {
        "207": 20700, "207.0": 20700, "207.00": 20700, "207.5": 20750, '"207"': 20700, '"207.05"': 20705,
        "0": 0, '"0.00"': 0, '"\\u0031"': 100, "9999999999999.99": 999999999999999, '"0000000000001"': 100,
    }.items(),
)  # fmt: skip
def test_a_literal_of_money(text, hundredths):
    assert literal(text) == hundredths


@pytest.mark.parametrize(
    "text",
    [
        "2.07e2", "-1", "-0", "1.001", "1e1", "99999999999999", "true", "null", "[]", "{}", '""', '" 1"',
        '"1 "', '"+1"', '"１"', '"1\\n"', '"\\u0661"', '"\\ud800"', '"NaN"', '"1_0"', '"0x1"', "[1]",
        '"\\"1\\""', '"1\\u0000"',
    ],
)  # fmt: skip
def test_what_is_none(text):
    assert literal(text) is None


def test_of_a_great_exponent_no_number_is_made():
    """Such a number takes as many bytes as it has digits, and minutes to make."""
    for amount in (b"1e300000", b'"1e300000"', b"-1e300000", b"1e-300000", b'"9e999999999"', b"9" * 15_000):
        for loan_id in (b'"a"', b'"\\u0061"'):  # one parser, and two
            body = (GOOD % amount).replace(b'"a"', loan_id)
            tracemalloc.start()
            assert decimal_literal(decode_json(DECODER, body, FIELDS).amount) is None
            peak_bytes = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak_bytes < 60_000 + 4 * len(body), amount[:20]


def test_a_name_that_comes_twice_is_found_however_it_is_written():
    for more in (b'"amount": 1', b'"\\u0061mount": 1', b'"am\\u006fun\\u0074": 1'):
        body = (GOOD % b"1")[:-1] + b", " + more + b"}"
        assert paths(refusal(decode_json, DECODER, body, FIELDS)) == ["amount"]
    for value in (b'"amount"', b'"loan_id"', b'{"x": 1, "x": 2}'):  # names in values are no names of ours
        decoded = decode_json(DECODER, GOOD % value, ()) if b"x" in value else None
        assert decoded is None or decimal_literal(decoded.amount) is None
    body = b'{"loan_id": "amount", "transaction_id": "loan_id", "amount": "1"}'
    assert decode_json(DECODER, body, FIELDS).loan_id == "amount"


def test_unknown_and_missing_names_are_named():
    assert paths(refusal(decode_json, DECODER, b'{"x": 1}', FIELDS)) == ["x"]
    assert paths(refusal(decode_json, DECODER, b"{}", FIELDS)) == ["loan_id"]
    assert paths(refusal(decode_json, DECODER, b"[]", FIELDS)) == [""]
    long = refusal(decode_json, DECODER, b'{"%s": 1}' % (b"y" * 5_000), FIELDS)
    assert len(paths(long)[0]) == 100


def test_a_refusal_repeats_no_value():
    body = b'{"grant_type": "234567890124", "client_id": "x"}'
    problem = refusal(decode_json, msgspec.json.Decoder(TokenRequest), body, ())
    assert paths(problem) == ["grant_type"]
    assert "234567890124" not in str(problem.extras)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b"nul", GOOD % b"1" + b"x", GOOD % b'"\\x"', GOOD % b'"\xff"'],
)
def test_what_is_no_json_is_malformed(body):
    assert refusal(decode_json, DECODER, body, FIELDS).slug == "malformed"


def test_nesting_is_refused_at_every_depth():
    slugs = set()
    for depth in [*range(1, 2_000, 7), *range(950, 1_000), 100_000]:
        for escape in (b'"a"', b'"\\u0061"'):
            nested = b"[" * depth + b"]" * depth
            body = b'{"loan_id": %s, "transaction_id": "t", "amount": %s}' % (escape, nested)
            try:
                decoded = decode_json(DECODER, body, FIELDS)
            except Problem as problem:
                slugs.add(problem.slug)
            else:
                assert decimal_literal(decoded.amount) is None
    assert slugs == {"malformed"}


def test_media_types():
    assert not check_media_type("application/json")
    assert not check_media_type('APPLICATION/JSON; charset="UTF-8"', FORM_TYPE)
    assert check_media_type("application/x-www-form-urlencoded", FORM_TYPE)
    for bad in (None, "", "text/json", "application/json; charset=utf-16", "application/json; q=1"):
        assert refusal(check_media_type, bad, FORM_TYPE).slug == "unsupported-media-type"
    assert refusal(check_media_type, "application/x-www-form-urlencoded").status == 415


def test_another_media_type_is_taken_where_it_is_served():
    assert check_media_type("application/x-ndjson; charset=utf-8", NDJSON_TYPE)
    assert not check_media_type("application/json", NDJSON_TYPE)
    refused = refusal(check_media_type, FORM_TYPE, NDJSON_TYPE)
    assert refused.detail == "Send application/json or application/x-ndjson in UTF-8."


def test_a_content_encoding_is_refused():
    check_encoding(None)
    check_encoding("Identity")
    assert refusal(check_encoding, "gzip").slug == "unsupported-media-type"


def test_an_array_is_split_into_what_was_sent():
    assert [bytes(item) for item in split_array(b' [ {"a":  1}, 2 ,"x" ] ', 3)] == [
        b'{"a":  1}',
        b"2",
        b'"x"',
    ]
    assert split_array(b"[]", 1) == []
    assert refusal(split_array, b"[1,2]", 1).slug == "body-too-large"
    assert refusal(split_array, b"{}", 1).slug == "invalid-fields"
    assert refusal(split_array, b"[1", 1).slug == "malformed"
    assert refusal(split_array, b'["\xff"]', 1).slug == "malformed"


def test_an_endless_array_is_refused_without_a_look_at_its_items():
    body = b"[" + b"1," * 2_000_000 + b"1]"
    tracemalloc.start()
    try:
        assert refusal(split_array, body, 10_000).slug == "body-too-large"
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_forms():
    assert decode_form(Login, b"email=a%40b.cc&password=p+q%C3%A9") == Login(password="p qé", email="a@b.cc")
    assert paths(refusal(decode_form, Login, b"password=a&password=b&email=c")) == ["password"]
    assert paths(refusal(decode_form, Login, b"password=a&role=admin")) == ["role"]
    assert paths(refusal(decode_form, Login, b"")) == ["password"]
    for bad in (b"password", b"password=%FF", "password=é".encode(), b"&".join([b"a=1"] * 17), b"a=1&&"):
        assert refusal(decode_form, Login, bad).slug == "malformed", bad


def test_errors_are_gathered():
    errors = FieldErrors()
    errors.check()
    assert errors.rupees("fine", msgspec.Raw(b"1.5")) == 150
    assert errors.rupees("none", msgspec.Raw(b"0"), zero_allowed=True) == 0
    errors.check()
    assert errors.rupees("zero", msgspec.Raw(b"0")) == 0
    assert errors.rupees("bad", msgspec.Raw(b'"x"')) == 0
    errors.add("own", "is not good")
    assert paths(refusal(errors.check)) == ["zero", "bad", "own"]


def test_queries():
    assert [page_limit({}), page_limit({"limit": "1"}), page_limit({"limit": "500"})] == [100, 1, 500]
    for bad in ("", "0", "501", "-1", "1.0", "x", " 1", "１", "²", "1" * 5_000):
        assert paths(refusal(page_limit, {"limit": bad})) == ["limit"]
    assert paths(bad_cursor()) == ["cursor"]
    assert business_date("to", "0001-01-02") == 2
    assert paths(refusal(business_date, "to", "2026-02-29")) == ["to"]


def test_thousands_of_repeated_names_cost_little_and_few_are_named():
    """The time does not grow with the square of what was sent, nor does the answer outgrow it."""
    names = [f"{number}{letter}" for number in range(50) for letter in string.ascii_letters]
    started_s = time.process_time()
    refused = refusal(check_query, MultiDict((name, "") for name in names * 2))
    assert time.process_time() - started_s < 0.1
    assert paths(refused) == sorted(names)[:REPEATED_NAMED_MAX]


def test_transaction_ids():
    assert all(map(is_transaction_id, ("a", "A.b_c:d-9", "z" * 64)))
    assert not any(map(is_transaction_id, ("", "z" * 65, "a b", "a\n", "é", "١", "a/b", "a\x00")))

"""Headers and rows of the bank history: what is understood, and the reason for all else."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledgerd.domain.money import parse_rupees
from ledgerd.domain.transactions import IDENTITIES_KNOWN, Columns, RowParser, resolve_columns

DAY = date(2024, 2, 29).toordinal()


def even_length(text: str) -> bytes | None:
    return text.encode() if text and len(text) % 2 == 0 else None


PARSER = RowParser(Columns(identity=0, date=1, kind=2, amount=3, count=4), even_length)
PARSE = PARSER.row


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("aadhar_id,date,transaction_type,amount", Columns(0, 1, 2, 3, 4)),
        ("AADHAAR ID,Date,Transaction Type,AMOUNT", Columns(0, 1, 2, 3, 4)),
        ("Amount,user,TRANSACTION_TYPE,date", Columns(1, 3, 2, 0, 4)),
        (" aadharid ,remarks,date,TransactionType,amount,remarks", Columns(0, 2, 3, 4, 6)),
        ("aadhaar_id,date,transaction_type,amount,,", Columns(0, 1, 2, 3, 6)),
        (
            "date,transaction_type,amount",
            "the header has no id column: name it aadhar_id, aadhaar_id, aadharid or user",
        ),
        (
            "user,aadhar_id,date,transaction_type,amount",
            "the header has more than one id column (aadhar_id, aadhaar_id, aadharid or user)",
        ),
        ("user,transaction_type,amount", "the header has no column date"),
        ("user,date,amount", "the header has no column transaction_type"),
        ("user,date,transaction_type", "the header has no column amount"),
        ("user,date,transaction_type,amount,Amount", "the header has more than one column amount"),
        (
            "user,date,transaction type,transaction_type,amount",
            "the header has more than one column transaction_type",
        ),
    ],
)
def test_headers(header: str, expected: Columns | str) -> None:
    assert resolve_columns(header.split(",")) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("ab,2024-02-29,CREDIT,12.50", (b"ab", "CREDIT", 1250, DAY)),
        (" ab , 2024-02-29 , debit ,12.5", (b"ab", "DEBIT", 1250, DAY)),
        ("ab,2024-02-29,Credit,9999999999999.99", (b"ab", "CREDIT", 999_999_999_999_999, DAY)),
        ("ab,2024-02-29,DeBiT,0.00", (b"ab", "DEBIT", 0, DAY)),
        ("ab,2024-02-29,DEBIT,007", (b"ab", "DEBIT", 700, DAY)),
        ("ab,2024-02-29,DEBIT", "expected 4 fields, found 3"),
        ("ab,2024-02-29,DEBIT,1,2", "expected 4 fields, found 5"),
        ("abc,2024-02-29,DEBIT,1", "the id is not a valid identity number"),
        (",2024-02-29,DEBIT,1", "the id is not a valid identity number"),
    ],
)
def test_rows(row: str, expected: tuple[bytes, str, int, int] | str) -> None:
    assert PARSE(row.split(",")) == expected


@pytest.mark.parametrize(
    "text",
    ["", "2023-02-29", "2024-13-01", "0000-01-01", "20240229", "2024-W09-4", "2024-2-29", "29-02-2024",
     "2024-02-29T00", "２０２４-02-29", "31-02"],
)  # fmt: skip
def test_what_is_no_date(text: str) -> None:
    assert PARSE(["ab", text, "CREDIT", "1"]) == "the date is not a day written YYYY-MM-DD"


@pytest.mark.parametrize("text", ["", "CR", "CREDITS", "CREDİT", "credıt", "CREDIT DEBIT", "0"])
def test_what_is_no_type(text: str) -> None:
    assert PARSE(["ab", "2024-02-29", text, "1"]) == "the transaction_type is neither CREDIT nor DEBIT"


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "1e5", "-1.00", "+1.00", "1_000.00", "1,000", "１２.５０", "12.345", ".50", "12.", "1 2.00",
     "12345678901234.00", "²2.00", "Infinity", "0x10", "1.00.00", "12.50\x00"],
)  # fmt: skip
def test_what_is_no_amount(text: str) -> None:
    assert PARSE(["ab", "2024-02-29", "DEBIT", text]) == "the amount is not rupees with at most two decimals"


@example(" 1")
@example("1\n")
@given(st.one_of(st.from_regex(r"[0-9]{0,15}\.?[0-9]{0,3}", fullmatch=True), st.text(max_size=6)))
def test_amounts_are_read_by_the_money_rule(text: str) -> None:
    parsed = PARSE(["ab", "2024-02-29", "DEBIT", text])
    expected = parse_rupees(text)
    assert (None if isinstance(parsed, str) else parsed[2]) == expected


def test_no_reason_repeats_what_the_row_holds() -> None:
    secret = "234123412346"
    for position in range(4):
        row = ["ab", "2024-02-29", "CREDIT", "1"]
        row[position] = secret + "x"
        reason = PARSE(row)
        assert isinstance(reason, str)
        assert secret not in reason


def test_what_is_remembered_is_bounded() -> None:
    seen: list[str] = []

    def identify(text: str) -> str:
        seen.append(text)
        return text

    parse = RowParser(Columns(0, 1, 2, 3, 4), identify).row
    known = IDENTITIES_KNOWN
    for number in [*range(known), 1, 1, *range(known, known + 10), 1, 1]:
        assert parse([str(number), "2024-02-29", "CREDIT", "1"]) == (str(number), "CREDIT", 100, DAY)
    assert seen.count("1") == 2


FIELDS = st.tuples(
    st.sampled_from(["abcd", "abc", " abcd ", "", "ab"]),
    st.sampled_from(["2024-02-29", "2023-02-29", " 2024-01-01 ", "x"]),
    st.sampled_from(["CREDIT", "debit", " Credit ", "other"]),
    st.sampled_from(
        ["1.00", "0.01", "9999999999999.99", "1", "1.5", "1.00,2.00", "", ",", "x", "1.00\n", "１.00"]
    ),
)
GOOD = st.tuples(
    st.sampled_from(["abcd", "ab"]),
    st.just("2024-02-29"),
    st.sampled_from(["CREDIT", "debit"]),
    st.integers(0, 10**15 - 1).map(lambda paise: f"{paise // 100}.{paise % 100:02d}"),
)


def together(rows: list[list[str]]) -> list[tuple[bytes, str, int, int]] | None:
    columns = PARSER.columns(list(zip(*rows, strict=True)))
    return None if columns is None else list(zip(*columns, strict=True))


@given(st.lists(st.one_of(GOOD.map(list), FIELDS.map(list)), min_size=1, max_size=8))
def test_rows_at_once_are_what_each_is_or_none_at_all(rows: list[list[str]]) -> None:
    assert together(rows) in (None, [PARSE(row) for row in rows])


@given(st.lists(GOOD.map(list), min_size=1))
def test_good_rows_are_read_at_once(rows: list[list[str]]) -> None:
    assert together(rows) == [PARSE(row) for row in rows]


def test_an_amount_with_a_comma_is_not_two() -> None:
    good, bad = ["abcd", "2024-02-29", "CREDIT", "1.00"], ["abcd", "2024-02-29", "CREDIT", "1.00,2.00"]
    assert together([good, bad]) is None

"""One row of the bank history: what its columns are called, and what makes it a transaction.

Pure and strict: a header or row that is not understood comes back as a reason, one line that repeats nothing
of the row itself, since rows hold identity numbers. Used by scheduler/import_process.py.
"""

import re
from collections.abc import Callable, Sequence
from datetime import date
from operator import itemgetter
from typing import Final, Generic, Literal, TypeVar, cast

import msgspec

from ledgerd.domain.money import parse_rupees

Kind = Literal["CREDIT", "DEBIT"]
Identity = TypeVar("Identity")
Value = TypeVar("Value")

IDENTITIES_KNOWN: Final = 300_000  # some 60 MB; a file of more people is read at a fifth of the speed

_ID_NAMES: Final = frozenset({"aadharid", "aadhaarid", "user"})
_OTHER_NAMES: Final = ("date", "transactiontype", "amount")
_SHOWN: Final = {"date": "date", "transactiontype": "transaction_type", "amount": "amount"}
_KINDS: Final[dict[str, Kind]] = {"credit": "CREDIT", "debit": "DEBIT"}
_SEPARATORS: Final = re.compile(r"[\s_]+")
_AMOUNT: Final = r"[0-9]{1,13}\.[0-9]{2}"
_TWO_DECIMALS: Final = re.compile(_AMOUNT, re.ASCII)
_ALL_TWO_DECIMALS: Final = re.compile(rf"(?:{_AMOUNT},)*+{_AMOUNT}", re.ASCII)
_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


class Columns(msgspec.Struct, frozen=True):
    """Where a file keeps what we read, counted from 0, and how many fields each of its rows has."""

    identity: int
    date: int
    kind: int
    amount: int
    count: int


def resolve_columns(header: list[str]) -> Columns | str:
    """Find our columns in a header by their names, in any case and order, or say what is wrong with it."""
    positions: dict[str, list[int]] = {}
    for position, name in enumerate(header):
        plain = _SEPARATORS.sub("", name).lower()
        positions.setdefault("id" if plain in _ID_NAMES else plain, []).append(position)
    if "id" not in positions:
        return "the header has no id column: name it aadhar_id, aadhaar_id, aadharid or user"
    if len(positions["id"]) > 1:
        return "the header has more than one id column (aadhar_id, aadhaar_id, aadharid or user)"
    for name in _OTHER_NAMES:
        if name not in positions:
            return f"the header has no column {_SHOWN[name]}"
        if len(positions[name]) > 1:
            return f"the header has more than one column {_SHOWN[name]}"
    found = {name: where[0] for name, where in positions.items()}
    return Columns(found["id"], found["date"], found["transactiontype"], found["amount"], len(header))


class _Memo(dict[str, Value]):
    """Remembers what a field read as, so that `memo[field]` seldom leaves C. Forgets all when it is full."""

    def __init__(self, read: Callable[[str], Value], entries_max: int) -> None:
        super().__init__()
        self._read = read
        self._entries_max = entries_max

    def __missing__(self, field: str) -> Value:
        if len(self) >= self._entries_max:
            self.clear()
        value = self[field] = self._read(field.strip())
        return value


class RowParser(Generic[Identity]):
    """Reads rows of a file with these columns.

    `identify` turns the id's text, stripped, into the identity, or None when it is not one. Amounts of 0.00
    are fine.
    """

    def __init__(self, columns: Columns, identify: Callable[[str], Identity | None]) -> None:
        self._pick = itemgetter(columns.identity, columns.date, columns.kind, columns.amount)
        self.count = columns.count
        self._identities = _Memo(identify, IDENTITIES_KNOWN)
        self._days = _Memo(_day_number, 5_000)
        self._kinds = _Memo(_kind, 50)

    def row(self, fields: list[str]) -> tuple[Identity, Kind, int, int] | str:
        """Return (identity, kind, amount in paise, day number), or why the row is none."""
        if len(fields) != self.count:
            return f"expected {self.count} fields, found {len(fields)}"
        identity_text, day_text, kind_text, amount_text = self._pick(fields)
        identity = self._identities[identity_text]
        if identity is None:
            return "the id is not a valid identity number"
        day = self._days[day_text]
        if day is None:
            return "the date is not a day written YYYY-MM-DD"
        kind = self._kinds[kind_text]
        if kind is None:
            return "the transaction_type is neither CREDIT nor DEBIT"
        if _TWO_DECIMALS.fullmatch(amount_text) is not None:  # as nearly all are: half the cost of the rule
            return identity, kind, int(amount_text.replace(".", "")), day
        amount_paise = parse_rupees(amount_text)
        if amount_paise is None:
            return "the amount is not rupees with at most two decimals"
        return identity, kind, amount_paise, day

    def columns(
        self, columns: Sequence[Sequence[str]]
    ) -> tuple[list[Identity], list[Kind], list[int], list[int]] | None:
        """Return what `row` gives, for columns, as columns; None when a row needs a look of its own."""
        identity_texts, day_texts, kind_texts, amount_texts = self._pick(columns)
        amounts = ",".join(amount_texts)
        if amounts.count(",") >= len(amount_texts) or _ALL_TWO_DECIMALS.fullmatch(amounts) is None:
            return None
        identities = list(map(self._identities.__getitem__, identity_texts))
        days = list(map(self._days.__getitem__, day_texts))
        kinds = list(map(self._kinds.__getitem__, kind_texts))
        if None in kinds or None in days or None in identities:
            return None
        paise = list(map(int, amounts.replace(".", "").split(",")))
        return cast(list[Identity], identities), cast(list[Kind], kinds), paise, cast(list[int], days)


def _day_number(text: str) -> int | None:
    if _ISO_DATE.fullmatch(text) is None:
        return None
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError:
        return None


def _kind(text: str) -> Kind | None:
    return _KINDS.get(text.lower())

"""The reference pinned to figures worked out by hand: what agrees with it is right, not merely equal.

Nothing here touches ledgerd. Each figure's working stands beside it in a comment.
"""

from __future__ import annotations

import ast
import datetime as dt
import random
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests import reference
from tests.reference import ReferenceLoan, ceiling, daily_rate, floor, half_even

START = dt.date(2025, 1, 1)


def day(number: int) -> dt.date:
    return START + dt.timedelta(days=number)


def lend(amount: str, apr: str, tenure: int, plan: str = "min_due", **rules: Any) -> ReferenceLoan:
    return ReferenceLoan(amount, apr, tenure, plan, START, **rules)


def asks(bill: dict[str, Any]) -> tuple[str, str, str, str, str]:
    return bill["interest"], bill["principal_due"], bill["min_due"], bill["past_due"], bill["total_due"]


def pay_each_bill(loan: ReferenceLoan) -> list[tuple[str, str, str]]:
    """Pay every bill on its date; (interest, principal_due, min_due) of each."""
    seen = []
    while loan.status() == "active":
        loan.advance_to(day(30 * (len(loan.bills()) + 1)))
        bill = loan.bills()[-1]
        seen.append((bill["interest"], bill["principal_due"], bill["min_due"]))
        if bill["status"] != "paid":
            assert "refused" not in loan.pay(bill["min_due"])
    return seen


def test_it_imports_the_standard_library_alone() -> None:
    tree = ast.parse(Path(reference.__file__).read_text())
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("apr", "rate"),
    [
        ("14", "0.038"),  # 14 / 365 = 0.03836
        ("12", "0.033"),  # 0.03288
        ("24", "0.066"),  # 0.06575
        ("100", "0.274"),  # 0.27397
        ("0", "0"),
        ("0.18", "0"),  # 0.000493
        ("0.19", "0.001"),  # 0.000521
    ],
)
def test_daily_rate(apr: str, rate: str) -> None:
    assert daily_rate(apr) == Fraction(rate)


@pytest.mark.parametrize(
    ("value", "down", "up", "nearest"),
    [("0.5", 0, 1, 0), ("1.5", 1, 2, 2), ("2.5", 2, 3, 2), ("2.51", 2, 3, 3), ("3", 3, 3, 3)],
)
def test_roundings(value: str, down: int, up: int, nearest: int) -> None:
    exact = Fraction(value)
    expected = [Fraction(down), Fraction(up), Fraction(nearest)]
    assert [floor(exact), ceiling(exact), half_even(exact)] == expected


def test_money_paid_before_a_bill_is_interest_then_principal() -> None:
    loan = lend("5000", "14", 12)
    loan.advance_to(day(29))
    receipt = loan.pay("207.00")  # 5,000 x 0.038 % = 1.90 a day, x 29 = 55.10
    assert (receipt["interest"], receipt["principal"]) == ("55.10", "151.90")
    assert receipt["allocations"] == [
        {"bill": None, "due_date": None, "interest": "55.10", "principal": "151.90"}
    ]
    assert receipt["outstanding"] == {"principal": "4848.10", "interest": "0.00", "total": "4848.10"}
    # one day on 4,848.10 is 1.842278; 3 % of 4,848.10 is 145.443
    expected = {"date": "2025-01-31", "due_date": "2025-02-15", "amount_due": "147.28"}
    assert receipt["next_due"] == expected
    loan.advance_to(day(30))
    assert asks(loan.bills()[0]) == ("1.84", "145.44", "147.28", "0.00", "147.28")
    assert loan.accrued == Fraction("0.2278")
    assert loan.next_due() == expected


# 1,000 at 0.038 %: 0.38 a day, 11.40 a cycle; 3 % is 30.00. Then 970.00: 11.058 -> 11.05, 0.8 paisa stays;
# 29.10. Then 940.90: 10.72626 + 0.008 -> 10.73, 0.426 paisa stays; the last cycle asks for all principal.
MIN_DUE_LIFE = [("11.40", "30.00", "41.40"), ("11.05", "29.10", "40.15"), ("10.73", "940.90", "951.63")]

# 1,000 at 0.033 %, r = 0.0099. 9.9 / (1 - 1.0099^-3) = 339.9550 -> 339.96, less 9.90 interest is 330.06.
# Then 669.94: interest 6.632406; 6.632406 / (1 - 1.0099^-2) = 339.9525 -> 339.96, less 6.63 is 333.33.
# Then 336.61, all of it: interest 3.332439 + 0.002406 -> 3.33, and 0.4845 paisa stays.
EQUAL_EMI_LIFE = [("9.90", "330.06", "339.96"), ("6.63", "333.33", "339.96"), ("3.33", "336.61", "339.94")]


@pytest.mark.parametrize(
    ("amount", "apr", "tenure", "plan", "life", "waived"),
    [
        ("1000", "14", 3, "min_due", MIN_DUE_LIFE, "0.426"),
        ("1000", "12", 3, "equal_emi", EQUAL_EMI_LIFE, "0.4845"),
        ("100", "0", 3, "min_due", [("0.00", due, due) for due in ("3.00", "2.91", "94.09")], "0"),
        ("100", "0", 3, "equal_emi", [("0.00", due, due) for due in ("33.34", "33.33", "33.33")], "0"),
        # one paisa: its interest is 0.00038 paise a day, 0.0342 in 90 days; 3 % of it rounds to nothing
        ("0.01", "14", 3, "min_due", [("0.00", "0.00", "0.00")] * 2 + [("0.00", "0.01", "0.01")], "0.0342"),
        # a level is rounded up to the paisa, so the first bill takes it all
        ("0.01", "14", 3, "equal_emi", [("0.00", "0.01", "0.01")], "0.0114"),
        # 500 at 0.066 %: 0.33 a day
        ("500", "24", 1, "min_due", [("9.90", "500.00", "509.90")], "0"),
        ("500", "24", 1, "equal_emi", [("9.90", "500.00", "509.90")], "0"),
    ],
)
def test_whole_lives(
    amount: str, apr: str, tenure: int, plan: str, life: list[tuple[str, str, str]], waived: str
) -> None:
    loan = lend(amount, apr, tenure, plan)
    projected = loan.schedule()
    assert [(row["interest"], row["principal"], row["amount_due"]) for row in projected] == life
    cycles = range(1, len(life) + 1)
    assert [row["number"] for row in projected] == list(cycles)
    assert [row["date"] for row in projected] == [day(30 * k).isoformat() for k in cycles]
    assert [row["due_date"] for row in projected] == [day(30 * k + 15).isoformat() for k in cycles]
    assert loan.bills() == [], "the projection must leave the loan alone"

    assert pay_each_bill(loan) == life
    assert loan.waived == Fraction(waived)
    assert (loan.status(), loan.payoff(), loan.schedule(), loan.next_due()) == ("closed", "0.00", [], None)
    assert {bill["status"] for bill in loan.bills()} == {"paid"}


@pytest.mark.parametrize(
    ("amount", "percent", "principal_due"),
    [("0.10", "5", "0.00"), ("0.30", "5", "0.02"), ("0.50", "3", "0.02"), ("1.50", "3", "0.04")],
)
def test_share_of_the_principal_goes_half_even(amount: str, percent: str, principal_due: str) -> None:
    loan = lend(amount, "0", 3, min_due_percent=percent)  # 0.5, 1.5, 1.5 and 4.5 paise
    loan.advance_to(day(30))
    assert loan.bills()[0]["principal_due"] == principal_due


def test_other_cycles_and_due_days() -> None:
    loan = lend("1000", "14", 2, cycle_days=7, due_days=3)
    loan.advance_to(day(14))
    assert [(bill["billing_date"], bill["due_date"]) for bill in loan.bills()] == [
        (day(7).isoformat(), day(10).isoformat()),
        (day(14).isoformat(), day(17).isoformat()),
    ]
    assert [bill["interest"] for bill in loan.bills()] == ["2.66", "2.66"]  # 7 x 0.38


def test_bills_ignored_for_months() -> None:
    loan = lend("5000", "14", 12)
    loan.advance_to(day(100))
    # interest goes on on the billed, unpaid principal: 57.00 each time, and 3 % of 5,000 each time
    assert [asks(bill) for bill in loan.bills()] == [
        ("57.00", "150.00", "207.00", "0.00", "207.00"),
        ("57.00", "150.00", "207.00", "207.00", "414.00"),
        ("57.00", "150.00", "207.00", "414.00", "621.00"),
    ]
    # 171.00 billed and 10 x 1.90
    assert loan.outstanding() == {"principal": "5000.00", "interest": "190.00", "total": "5190.00"}
    due = {d: loan.past_due(day(d)) for d in (45, 46, 75, 76, 100, 105, 106)}
    assert list(due.values()) == ["0.00", "207.00", "207.00", "414.00", "414.00", "414.00", "621.00"]

    receipt = loan.pay("300.00")
    assert receipt["allocations"] == [
        {"bill": 1, "due_date": day(45).isoformat(), "interest": "57.00", "principal": "150.00"},
        {"bill": 2, "due_date": day(75).isoformat(), "interest": "57.00", "principal": "36.00"},
    ]
    assert (receipt["interest"], receipt["principal"]) == ("114.00", "186.00")
    assert receipt["outstanding"] == {"principal": "4814.00", "interest": "76.00", "total": "4890.00"}
    assert receipt["next_due"] == {
        "date": day(60).isoformat(),
        "due_date": day(75).isoformat(),
        "amount_due": "114.00",
    }
    assert [bill["status"] for bill in loan.bills()] == ["paid", "part_paid", "unpaid"]
    assert loan.bills()[1]["paid"] == "93.00"
    assert loan.past_due() == "114.00"

    loan.advance_to(day(120))
    # 10 x 1.90 and 20 x 1.82932 are 55.5864; 3 % of 4,814.00 is 144.42; carried forward are 114.00 and 207.00
    assert asks(loan.bills()[3]) == ("55.58", "144.42", "200.00", "321.00", "521.00")
    assert loan.accrued == Fraction("0.64")
    assert [(row["number"], row["amount_due"]) for row in loan.upcoming()[:3]] == [
        (2, "114.00"),
        (3, "207.00"),
        (4, "200.00"),
    ]
    # the projection takes all three as paid today:
    # 4,814 - 114.00 - 150.00 - 144.42 = 4,405.58; 30 days are 50.223612 and 0.0064 more; 3 % is 132.1674
    fifth = loan.schedule()[0]
    assert fifth == {
        "number": 5,
        "date": day(150).isoformat(),
        "due_date": day(165).isoformat(),
        "principal": "132.17",
        "interest": "50.23",
        "amount_due": "182.40",
    }
    assert loan.upcoming()[3]["amount_due"] == "182.40"


def test_equal_emi_ignored_asks_for_what_no_bill_asks_yet() -> None:
    loan = lend("100", "0", 3, "equal_emi")
    loan.advance_to(day(120))
    assert [asks(bill) for bill in loan.bills()] == [
        ("0.00", "33.34", "33.34", "0.00", "33.34"),
        ("0.00", "33.33", "33.33", "33.34", "66.67"),
        ("0.00", "33.33", "33.33", "66.67", "100.00"),
        ("0.00", "0.00", "0.00", "100.00", "100.00"),  # cycle 4 asks for nothing of its own
    ]
    assert [bill["status"] for bill in loan.bills()] == ["unpaid", "unpaid", "unpaid", "paid"]


def test_a_bill_asks_for_no_principal_twice() -> None:
    loan = lend("100", "0", 12, min_due_percent="60")
    loan.advance_to(day(90))
    assert [bill["principal_due"] for bill in loan.bills()] == ["60.00", "40.00", "0.00"]


def test_equal_emi_principal_due_is_never_below_nothing() -> None:
    loan = lend("1000", "100", 120, "equal_emi")  # 2.74 a day, r = 0.0822
    loan.advance_to(day(29))
    loan.pay("79.46")  # the interest of 29 days, so that bill 1 is nearly all principal
    loan.advance_to(day(60))
    # 82.2 / (1 - 1.0822^-120) = 82.2063 -> 82.21, less 2.74
    # then the level on 920.53 is 75.67 or a little more, less than the interest
    assert [asks(bill) for bill in loan.bills()] == [
        ("2.74", "79.47", "82.21", "0.00", "82.21"),
        ("82.20", "0.00", "82.20", "82.21", "164.41"),
    ]


def test_equal_emi_principal_due_is_never_above_what_no_bill_asks_yet() -> None:
    loan = lend("1000", "100", 2, "equal_emi", cycle_days=365)
    loan.advance_to(day(364))
    loan.pay("997.36")  # 364 x 2.74
    loan.advance_to(day(365))
    # r = 1.0001: 1,000.1 / (1 - 2.0001^-2) = 1,333.4, less 2.74, is more than there is
    assert asks(loan.bills()[0]) == ("2.74", "1000.00", "1002.74", "0.00", "1002.74")


def test_equal_emi_interest_on_billed_principal_lowers_the_principal_due() -> None:
    loan = lend("1000", "12", 3, "equal_emi")
    loan.advance_to(day(60))
    # bill 2, bill 1 unpaid: level on 669.94 is 339.96 as ever, but the interest is on all 1,000: 9.90
    assert asks(loan.bills()[1]) == ("9.90", "330.06", "339.96", "339.96", "679.92")


def test_equal_emi_money_ahead_of_time_lowers_what_follows() -> None:
    loan = lend("1000", "12", 3, "equal_emi")
    loan.pay("500.00")
    # 4.95 / (1 - 1.0099^-3) = 169.9775 -> 169.98; less 4.95
    first = loan.schedule()[0]
    assert (first["interest"], first["principal"], first["amount_due"]) == ("4.95", "165.03", "169.98")


def test_bills_after_tenure() -> None:
    loan = lend("100", "14", 2)
    loan.advance_to(day(125))
    # 3.8 paise a day, 1.14 a cycle; bill 2 asks for all that bill 1 doesn't; none is left for bills 3 and 4
    assert [asks(bill) for bill in loan.bills()] == [
        ("1.14", "3.00", "4.14", "0.00", "4.14"),
        ("1.14", "97.00", "98.14", "4.14", "102.28"),
        ("1.14", "0.00", "1.14", "102.28", "103.42"),
        ("1.14", "0.00", "1.14", "103.42", "104.56"),
    ]
    assert loan.payoff() == "104.75"  # 5 x 3.8 paise more
    assert [(row["number"], row["amount_due"]) for row in loan.schedule()] == [(5, "0.19")]

    receipt = loan.pay("104.56")  # every bill, but not the interest since
    assert receipt["outstanding"] == {"principal": "0.00", "interest": "0.19", "total": "0.19"}
    assert receipt["loan_status"] == "active"
    loan.advance_to(day(155))
    assert asks(loan.bills()[4]) == ("0.19", "0.00", "0.19", "0.00", "0.19")
    assert loan.payoff() == "0.19"
    assert loan.schedule() == []
    receipt = loan.pay("0.19")
    assert (receipt["loan_status"], receipt["next_due"]) == ("closed", None)
    loan.advance_to(day(400))
    assert len(loan.bills()) == 5
    assert loan.totals() == {
        "disbursed": "100.00",
        "paid_in": "104.75",
        "interest_received": "4.75",
        "principal_received": "100.00",
        "principal_outstanding": "0.00",
    }


def test_one_paisa_ignored_for_years() -> None:
    loan = lend("0.01", "14", 3)
    loan.advance_to(day(2640))
    # 1 / 0.00038 = 2,631.6 days to a whole paisa of interest: bill 88, on day 2,640, asks for it first
    bills = loan.bills()
    assert asks(bills[2]) == ("0.00", "0.01", "0.01", "0.00", "0.01")
    assert {asks(bill) for bill in bills[3:87]} == {("0.00", "0.00", "0.00", "0.01", "0.01")}
    assert asks(bills[87]) == ("0.01", "0.00", "0.01", "0.01", "0.02")
    assert [bill["number"] for bill in bills if bill["status"] != "paid"] == [3, 88]


def test_payoff_waives_the_fraction() -> None:
    loan = lend("100.01", "14", 3)
    loan.advance_to(day(1))  # 3.80038 paise
    assert loan.payoff() == "100.04"
    assert loan.pay("100.05") == {"refused": "amount-exceeds-payoff", "payoff": "100.04"}
    assert loan.totals()["paid_in"] == "0.00"
    receipt = loan.pay("100.04")
    assert (receipt["interest"], receipt["principal"], receipt["loan_status"]) == ("0.03", "100.01", "closed")
    assert loan.waived == Fraction("0.80038")
    loan.advance_to(day(90))
    assert (loan.payoff(), loan.bills(), loan.upcoming()) == ("0.00", [], [])
    assert loan.pay("0.01") == {"refused": "loan-closed"}


def test_paid_back_on_the_day_of_disbursal() -> None:
    loan = lend("100", "14", 3)
    assert loan.pay("100")["loan_status"] == "closed"
    assert loan.totals()["interest_received"] == "0.00"


def test_bill_is_issued_before_the_payments_of_its_date() -> None:
    loan = lend("1000", "14", 3)
    loan.advance_to(day(30))
    first, second = loan.pay("41.40"), loan.pay("100.00")
    assert [row["bill"] for row in first["allocations"] + second["allocations"]] == [1, None]
    loan.advance_to(day(31))
    # the day after accrues on 1,000 - 30 - 100
    assert loan.accrued == 87000 * Fraction("0.00038")


def test_one_payment_goes_through_bill_interest_and_principal() -> None:
    loan = lend("1000", "14", 3)
    loan.advance_to(day(40))
    receipt = loan.pay("50.00")  # bill 1 is 41.40; ten days since are 3.80; 4.80 are principal
    assert receipt["allocations"] == [
        {"bill": 1, "due_date": day(45).isoformat(), "interest": "11.40", "principal": "30.00"},
        {"bill": None, "due_date": None, "interest": "3.80", "principal": "4.80"},
    ]


def test_refusals_in_their_order_and_the_guard_moves_no_money() -> None:
    loan = lend("1000", "14", 3)
    assert loan.pay("5000", for_bill=1) == {"refused": "no-such-bill"}
    assert loan.pay("10", for_bill=0) == {"refused": "no-such-bill"}
    loan.advance_to(day(60))
    assert loan.pay("5000", for_bill=3) == {"refused": "no-such-bill"}
    refused = {
        "refused": "past-due-unpaid",
        "unpaid_bills": [{"number": 1, "due_date": day(45).isoformat(), "amount_due": "41.40"}],
    }
    assert loan.pay("5000", for_bill=2) == refused
    assert loan.pay("41.40", for_bill=2) == refused
    assert loan.pay("5000", for_bill=1) == {"refused": "amount-exceeds-payoff", "payoff": "1022.80"}
    assert loan.totals()["paid_in"] == "0.00"
    unguarded = lend("1000", "14", 3)
    unguarded.advance_to(day(60))
    assert loan.pay("50", for_bill=1) == unguarded.pay("50")
    assert loan.pay("10", for_bill=1)["allocations"][0]["bill"] == 2  # bill 1 is paid; that is no refusal
    assert loan.pay(loan.payoff(), for_bill=2)["loan_status"] == "closed"
    assert loan.pay("5000", for_bill=9) == {"refused": "loan-closed"}


@pytest.mark.parametrize("amount", ["0.00", "-1", "1.234", "1e3", " 1", "1.", ".5", "", "\u0661", "9" * 14])
def test_amounts_of_the_wrong_shape(amount: str) -> None:
    with pytest.raises(ValueError, match=r"amount|nothing"):
        lend("100", "14", 3).pay(amount)


def test_days_never_go_back() -> None:
    loan = lend("100", "14", 3)
    loan.advance_to(day(5))
    with pytest.raises(ValueError, match="is before"):
        loan.advance_to(day(4))


def paise_of(rupees: str) -> int:
    return int(rupees.replace(".", ""))


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_ever_lost(seed: int) -> None:
    chance = random.Random(seed)
    principal = chance.choice([chance.randrange(1, 500), chance.randrange(1, 10_000_000)])
    apr = f"{chance.randrange(101)}.{chance.randrange(100):02d}"
    plan = chance.choice(["min_due", "equal_emi"])
    loan = ReferenceLoan(Fraction(principal, 100), apr, chance.randrange(1, 8), plan, START)
    for _ in range(25):
        loan.advance_to(loan.today + dt.timedelta(days=chance.randrange(0, 40)))
        before, payoff = loan.totals(), paise_of(loan.payoff())
        paise = chance.choice([chance.randrange(1, payoff // 5 + 2), max(payoff, 1), payoff + 1, 1])
        answer = loan.pay(f"{paise // 100}.{paise % 100:02d}")
        assert ("refused" in answer) == (paise > payoff)
        assert ("refused" in answer) == (loan.totals() == before)

        billed_interest = sum((bill.interest_asked for bill in loan.issued), Fraction(0))
        billed_principal = sum((bill.principal_asked for bill in loan.issued), Fraction(0))
        assert loan.paid_in == loan.interest_received + loan.principal_received
        assert loan.disbursed == loan.principal_received + loan.principal
        assert loan.interest_ever == loan.interest_received + billed_interest + loan.accrued + loan.waived
        assert 0 <= billed_principal <= loan.principal
        assert 0 <= loan.waived < 1
        assert loan.closed == (loan.payoff() == "0.00")
        coming = sum(paise_of(row["principal"]) for row in loan.schedule())
        assert coming == loan.principal - billed_principal

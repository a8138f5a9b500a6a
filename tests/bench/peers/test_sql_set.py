"""The check of set-based billing takes the rules' own figures and no others."""

import pytest

from bench.peers.sql_set import TODAY, check

DUE = TODAY.toordinal()
# The columns of `loans`, as the check reads them; the last two are what earlier bills ask for.
FIRST = [12, 38, 300, 30, 15, 500_000, 0, DUE - 30, 0, DUE, 0, 0]
FIRST_BILL = [1, DUE, 5_700, 15_000, 0]
FIRST_AFTER = [12, 38, 300, 30, 15, 500_000, 0, DUE, 1, DUE + 30, 5_700, 15_000]
LAST = [3, 38, 300, 30, 15, 500_000, 99_999, DUE - 30, 2, DUE, 10, 20]
LAST_BILL = [3, DUE, 5_700, 499_980, 30]
LAST_AFTER = [3, 38, 300, 30, 15, 500_000, 99_999, DUE, 3, DUE + 30, 5_710, 500_000]


@pytest.mark.parametrize(
    ("before", "bill", "after"), [(FIRST, FIRST_BILL, FIRST_AFTER), (LAST, LAST_BILL, LAST_AFTER)]
)
def test_the_bills_of_the_contract_agree(before, bill, after):
    check(before, bill, after)


@pytest.mark.parametrize("place", range(2, 5))
def test_a_bill_off_by_a_paisa_is_no_result(place):
    bill = list(FIRST_BILL)
    bill[place] += 1
    with pytest.raises(RuntimeError, match="the rules"):
        check(FIRST, bill, FIRST_AFTER)


@pytest.mark.parametrize("place", range(6, 12))
def test_a_loan_left_otherwise_is_no_result(place):
    after = list(FIRST_AFTER)
    after[place] += 1
    with pytest.raises(RuntimeError, match="the rules"):
        check(FIRST, FIRST_BILL, after)

-- Billing as a batch job over tables: the contract's bill in exact integers, for all due loans at once.
-- Units are in the names; interest is kept in 1/100,000 paise.

CREATE TABLE loans (
    id                     bigint PRIMARY KEY,
    tenure                 integer NOT NULL,
    daily_rate_thousandths bigint  NOT NULL,
    min_due_hundredths     bigint  NOT NULL,
    cycle_days             integer NOT NULL,
    due_days               integer NOT NULL,
    principal_paise        bigint  NOT NULL,
    accrued_units          bigint  NOT NULL,
    accrued_through        date    NOT NULL,
    bills_issued           integer NOT NULL,
    next_billing           date    NOT NULL,
    billed_interest_paise  bigint  NOT NULL,  -- what unpaid bills ask for
    billed_principal_paise bigint  NOT NULL
);

CREATE TABLE bills (
    loan_id             bigint  NOT NULL,
    number              integer NOT NULL,
    billing_date        date    NOT NULL,
    due_date            date    NOT NULL,
    interest_paise      bigint  NOT NULL,
    principal_due_paise bigint  NOT NULL,
    past_due_paise      bigint  NOT NULL,
    PRIMARY KEY (loan_id, number)
);

-- Both are one expression, which the planner puts into the statement itself.
CREATE FUNCTION percent_half_even(paise bigint, hundredths bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT paise * hundredths / 10000 + CASE
        WHEN paise * hundredths % 10000 > 5000 THEN 1
        WHEN paise * hundredths % 10000 = 5000 THEN paise * hundredths / 10000 % 2
        ELSE 0
    END
$$;

CREATE FUNCTION principal_due(loan loans) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN loan.bills_issued + 1 >= loan.tenure THEN loan.principal_paise - loan.billed_principal_paise
        ELSE least(
            percent_half_even(loan.principal_paise, loan.min_due_hundredths),
            loan.principal_paise - loan.billed_principal_paise
        )
    END
$$;

CREATE FUNCTION accrued(loan loans) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT loan.accrued_units
        + loan.principal_paise * loan.daily_rate_thousandths * (loan.next_billing - loan.accrued_through)
$$;

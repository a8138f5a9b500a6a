-- A payment as one function over a locked row: what PostgreSQL does at best, with no service in front of it.
-- Units are in the names; interest accrues in 1/100,000 paise, as in ledgerd.

CREATE TABLE loans (
    id                       bigint PRIMARY KEY,
    principal_paise          bigint NOT NULL,
    daily_rate_thousandths   bigint NOT NULL,
    accrued_units            bigint NOT NULL,
    accrued_through          date   NOT NULL,
    interest_received_paise  bigint NOT NULL,
    principal_received_paise bigint NOT NULL
) WITH (fillfactor = 50);  -- room for a new version of each row on its own page

-- The unique key of the callers' ids is the only index.
CREATE TABLE payments (
    client_id       integer     NOT NULL,
    transaction_id  text        NOT NULL,
    loan_id         bigint      NOT NULL,
    amount_paise    bigint      NOT NULL,
    interest_paise  bigint      NOT NULL,
    principal_paise bigint      NOT NULL,
    paid_on         date        NOT NULL,
    recorded_at     timestamptz NOT NULL
);

CREATE FUNCTION pay(to_loan bigint, paise bigint, caller integer, called text) RETURNS payments
LANGUAGE plpgsql AS $$
DECLARE
    loan      loans;
    receipt   payments;
    units     bigint;
    interest  bigint;
    principal bigint;
BEGIN
    SELECT * INTO loan FROM loans WHERE id = to_loan FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'loan-not-found';
    END IF;
    units := loan.accrued_units
        + loan.principal_paise * loan.daily_rate_thousandths * (current_date - loan.accrued_through);
    interest := least(paise, units / 100000);
    principal := paise - interest;
    INSERT INTO payments VALUES (caller, called, to_loan, paise, interest, principal, current_date, now())
    ON CONFLICT DO NOTHING RETURNING * INTO receipt;
    IF NOT FOUND THEN
        SELECT * INTO receipt FROM payments WHERE client_id = caller AND transaction_id = called;
        IF receipt.loan_id <> to_loan OR receipt.amount_paise <> paise THEN
            RAISE EXCEPTION 'transaction-id-conflict';
        END IF;
        RETURN receipt;
    END IF;
    IF principal > loan.principal_paise THEN
        RAISE EXCEPTION 'amount-exceeds-payoff';
    END IF;
    UPDATE loans SET
        principal_paise = loan.principal_paise - principal,
        accrued_units = units - interest * 100000,
        accrued_through = current_date,
        interest_received_paise = loan.interest_received_paise + interest,
        principal_received_paise = loan.principal_received_paise + principal
    WHERE id = to_loan;
    RETURN receipt;
END
$$;

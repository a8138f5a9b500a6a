"""Makes the Django peer's tables and book, and prints the loans' ids and the tokens as JSON.

`python -m bench.peers.django.seed LOANS TOKENS EARLIER_PAYMENTS`, with the environment of `peer.py`.
"""

import json
import os
import sys

import django

EARLIER = """
SET session_replication_role = replica;  -- the loans are there: no look-up for each row
ALTER TABLE payments DROP CONSTRAINT payments_once;
INSERT INTO payments (client_id, transaction_id, loan_id, amount_paise, interest_paise, principal_paise, paid_on,
    recorded_at, outstanding_paise)
SELECT %(client)s, substr(md5(n::text), 1, 8) || '-earlier-' || n, 1 + n %% %(loans)s, 100, 0, 100, current_date,
    now(), 0
FROM generate_series(1, %(earlier)s) AS n;
ALTER TABLE payments ADD CONSTRAINT payments_once UNIQUE (client_id, transaction_id);
SET session_replication_role = DEFAULT;
UPDATE loans SET principal_paise = principal_paise - paid, principal_received_paise = paid
FROM (SELECT loan_id, sum(amount_paise) AS paid FROM payments GROUP BY loan_id) AS earlier
WHERE loans.id = loan_id;
"""


def main(loans: int, tokens: int, earlier: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.peers.django.settings")
    django.setup()
    from datetime import timedelta

    from django.core.management import call_command
    from django.db import connection
    from django.utils import timezone
    from rest_framework_simplejwt.tokens import AccessToken

    from bench.peers.django.lending.models import Loan, User

    call_command("migrate", run_syncdb=True, verbosity=0)
    client = User.objects.create(email="bank@example.com", name="Bank")
    borrower = User.objects.create(email="bench@example.com", name="Bench")
    today = timezone.localdate()
    terms = {"amount_paise": 10**11, "principal_paise": 10**11, "daily_rate_thousandths": 38, "tenure": 120}
    dates = {"disbursed_on": today, "accrued_through": today, "next_billing": today + timedelta(days=30)}
    Loan.objects.bulk_create(
        [Loan(id=number + 1, borrower=borrower, **terms, **dates) for number in range(loans)],
        batch_size=1_000,
    )
    if earlier:
        with connection.cursor() as cursor:
            for statement in EARLIER.split(";\n"):
                values = {"client": client.id, "loans": loans, "earlier": earlier}
                if statement.strip():
                    cursor.execute(statement, {n: v for n, v in values.items() if f"%({n})s" in statement})
    texts = []
    for _ in range(tokens):  # each with an id of its own
        token = AccessToken.for_user(client)
        token["scope"] = "payments:write"
        texts.append(str(token))
    print(json.dumps({"loan_ids": [str(number + 1) for number in range(loans)], "tokens": texts}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""`django seed LOANS TOKENS EARLIER`: makes tables and a book, and prints loan ids and tokens as JSON."""

import json
from datetime import timedelta
from typing import Any

from django.core.management import BaseCommand, CommandParser, call_command
from django.db import connection
from django.utils import timezone
from rest_framework_simplejwt.tokens import AccessToken

from bench.peers.django.lending.models import Loan, User

# Checks and indexes of bulk data come after it, as in any large import.
EARLIER = """
SET session_replication_role = replica;
ALTER TABLE payments DROP CONSTRAINT payments_once;
INSERT INTO payments (client_id, transaction_id, loan_id, amount_paise, interest_paise, principal_paise,
    paid_on, recorded_at, outstanding_paise)
SELECT {client}, substr(md5(n::text), 1, 8) || '-earlier-' || n, 1 + n % {loans}, 100, 0, 100,
    current_date, now(), 0
FROM generate_series(1, {earlier}) AS n;
ALTER TABLE payments ADD CONSTRAINT payments_once UNIQUE (client_id, transaction_id);
SET session_replication_role = DEFAULT;
UPDATE loans SET principal_paise = principal_paise - paid, principal_received_paise = paid
FROM (SELECT loan_id, sum(amount_paise) AS paid FROM payments GROUP BY loan_id) AS earlier
WHERE loans.id = loan_id
"""


class Command(BaseCommand):
    """Makes the book."""

    def add_arguments(self, parser: CommandParser) -> None:
        for name in ("loans", "tokens", "earlier"):
            parser.add_argument(name, type=int)

    def handle(self, *, loans: int, tokens: int, earlier: int, **_: Any) -> None:
        call_command("migrate", run_syncdb=True, verbosity=0)
        client = User.objects.create(email="bank@example.com", name="Bank")
        borrower = User.objects.create(email="bench@example.com", name="Bench")
        lend(borrower, loans)
        if earlier:
            with connection.cursor() as cursor:
                for statement in EARLIER.format(client=client.id, loans=loans, earlier=earlier).split(";\n"):
                    cursor.execute(statement)
        loan_ids = [str(number) for number in range(1, loans + 1)]
        self.stdout.write(
            json.dumps({"loan_ids": loan_ids, "tokens": [token(client) for _ in range(tokens)]})
        )


def lend(borrower: User, loans: int) -> None:
    today = timezone.localdate()
    terms = {"amount_paise": 10**11, "principal_paise": 10**11, "daily_rate_thousandths": 38, "tenure": 120}
    dates = {"disbursed_on": today, "accrued_through": today, "next_billing": today + timedelta(days=30)}
    rows = [Loan(id=number, borrower=borrower, **terms, **dates) for number in range(1, loans + 1)]
    Loan.objects.bulk_create(rows, batch_size=1_000)


def token(client: User) -> str:
    """A token with an id of its own."""
    made = AccessToken.for_user(client)
    made["scope"] = "payments:write"
    return str(made)

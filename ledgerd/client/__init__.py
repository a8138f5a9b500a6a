"""A client for whoever sends payments to ledgerd: typed, asyncio, on aiohttp and msgspec alone.

    async with Client("http://localhost:8080", client_id, client_secret) as client:
        receipt = await client.pay(Payment(loan_id, 207_00, "upi-1"))

It imports nothing else of ledgerd. docs/client.md says how to use it, and when it tries again.
"""

from ledgerd.client.errors import LedgerdError, OutcomeUnknown, Problem, Unavailable
from ledgerd.client.models import (
    Allocation,
    Bill,
    Due,
    Instalment,
    Loan,
    OpenBill,
    Outstanding,
    PastPayment,
    Payment,
    Receipt,
    StatementPage,
    Upcoming,
    paise,
    rupees,
)
from ledgerd.client.payer import Client
from ledgerd.client.results import Result

__all__ = [
    "Allocation",
    "Bill",
    "Client",
    "Due",
    "Instalment",
    "LedgerdError",
    "Loan",
    "OpenBill",
    "OutcomeUnknown",
    "Outstanding",
    "PastPayment",
    "Payment",
    "Problem",
    "Receipt",
    "Result",
    "StatementPage",
    "Unavailable",
    "Upcoming",
    "paise",
    "rupees",
]

"""The table of the console: every page and what each form does, once. It makes the router and the test of who
may see what.
"""

from __future__ import annotations

from ledgerd.http.console import (
    apply,
    billing,
    book,
    home,
    journal_page,
    live,
    loan_page,
    loans,
    logins,
    pay,
    search,
    statement,
)
from ledgerd.http.console.visit import Form, PageRoute

PAGES: tuple[PageRoute, ...] = (
    PageRoute("GET", "/console/login", logins.show_login, "anyone"),
    PageRoute("POST", "/console/login", logins.log_in, "anyone", logins.LoginForm),
    PageRoute("POST", "/console/logout", logins.log_out, "member", Form),
    PageRoute("GET", "/console/", home.show_home),
    PageRoute("GET", "/console/book/", book.show_sums, "ops"),
    PageRoute("GET", "/console/loans/", loans.show_loans, "ops"),
    PageRoute("GET", "/console/borrowers/{user_id}/", loans.show_borrower, "ops"),
    PageRoute("GET", "/console/search/", search.show_search, "ops"),
    PageRoute("POST", "/console/search/", search.search, "ops", search.SearchForm, may_take_long=True),
    PageRoute("GET", "/console/billing/", billing.show_billing, "ops"),
    PageRoute("POST", "/console/billing/", billing.start, "ops", billing.BillForm),
    PageRoute("GET", "/console/billing/progress/", billing.show_progress, "ops"),
    PageRoute("GET", "/console/billing/{run_id}/", billing.show_run, "ops"),
    PageRoute(
        "POST",
        "/console/clock/",
        billing.advance,
        "ops",
        billing.ClockForm,
        sandbox_only=True,
        may_take_long=True,
    ),
    PageRoute("GET", "/console/loans/{loan_id}/", loan_page.show_loan),
    PageRoute(
        "GET", "/console/loans/{loan_id}/journal/", journal_page.show_journal, "ops", may_take_long=True
    ),
    PageRoute("GET", "/console/loans/{loan_id}/statement/", statement.show_statement),
    PageRoute("GET", "/console/loans/{loan_id}/statement.csv", statement.download_statement),
    PageRoute("GET", "/console/loans/{loan_id}/pay/", pay.show_pay, "borrower"),
    PageRoute("POST", "/console/loans/{loan_id}/pay/", pay.pay, "borrower", pay.PayForm),
    PageRoute("GET", "/console/payments/{transaction_id}/", pay.show_receipt, "borrower"),
    PageRoute("GET", "/console/apply/", apply.show_apply, "borrower"),
    PageRoute("POST", "/console/apply/", apply.apply, "borrower", apply.ApplyForm),
    PageRoute("GET", "/console/live/", live.show_live, "ops"),
    PageRoute("GET", "/console/live/figures/", live.show_figures, "ops"),
)

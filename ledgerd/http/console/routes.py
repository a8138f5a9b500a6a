"""The table of the console: every page and what each form does, once. It makes the router and the test of who
may see what.
"""

from __future__ import annotations

from ledgerd.http.console import home, journal_page, live, loan_page, logins
from ledgerd.http.console.visit import Form, PageRoute

PAGES: tuple[PageRoute, ...] = (
    PageRoute("GET", "/console/login", logins.show_login, "anyone"),
    PageRoute("POST", "/console/login", logins.log_in, "anyone", logins.LoginForm),
    PageRoute("POST", "/console/logout", logins.log_out, "member", Form),
    PageRoute("GET", "/console/", home.show_home),
    PageRoute("GET", "/console/loans/{loan_id}/", loan_page.show_loan),
    PageRoute(
        "GET", "/console/loans/{loan_id}/journal/", journal_page.show_journal, "ops", may_take_long=True
    ),
    PageRoute("GET", "/console/live/", live.show_live, "ops"),
    PageRoute("GET", "/console/live/figures/", live.show_figures, "ops"),
)

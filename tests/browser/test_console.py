"""The console as people use it: with a mouse, a keyboard, a thumb, in the dark, and without JavaScript."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import NARROW, PHONE, PLAIN, WIDE, keep, log_in

OPS_PAGES = {
    "book": "/console/?days=90",
    "loans": "/console/loans/",
    "loan": "/console/loans/{loan}/",
    "journal": "/console/loans/{loan}/journal/",
    "billing": "/console/billing/",
    "search": "/console/search/",
    "live": "/console/live/",
}
BORROWER_PAGES = {
    "my-loans": "/console/",
    "my-loan": "/console/loans/{loan}/",
    "pay": "/console/loans/{loan}/pay/",
    "apply": "/console/apply/",
    "statement": "/console/loans/{loan}/statement/",
}
EVERY_PAGE = [("ops", name, path) for name, path in OPS_PAGES.items()] + [
    ("asha", name, path) for name, path in BORROWER_PAGES.items()
]


@pytest.mark.parametrize("screen", [WIDE, PHONE, NARROW], ids=lambda screen: screen.name)
@pytest.mark.parametrize(("who", "name", "path"), EVERY_PAGE, ids=[name for _, name, _ in EVERY_PAGE])
def test_every_page_fits_its_screen_and_breaks_no_rule(service, sit_down, who, name, path, screen):
    """No script or style is refused, nothing reaches beyond the screen, and axe finds nothing to mend."""
    with sit_down(who, screen) as page:
        page.goto(path.format(loan=service.loans[0]))
        for plot in page.locator("[data-plot]").all():
            expect(plot.locator("canvas")).to_be_visible()
        keep(page, f"{name}-{screen.name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= screen.width
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_the_login_page_breaks_no_rule(sit_down):
    with sit_down(None) as page:
        page.goto("/console/")
        keep(page, "login")
        assert Axe().run(page).violations_count == 0


def test_a_keyboard_is_enough(service, sit_down):
    with sit_down(None) as page:
        page.goto("/console/login")
        keys = page.keyboard
        keys.type(service.ops["client_id"])  # the field has the focus
        keys.press("Tab")
        keys.type(service.ops["client_secret"])
        keys.press("Enter")
        expect(page.get_by_role("heading", name="The book")).to_be_visible()
        keys.press("Tab")
        expect(page.get_by_role("link", name="To the content")).to_be_focused()
        expect(page.get_by_role("link", name="To the content")).to_be_in_viewport()
        for _ in range(6):
            keys.press("Tab")
        expect(page.get_by_role("searchbox")).to_be_focused()
        keys.type("upi-1")
        keys.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text(service.loans[0])


def test_a_double_click_pays_once(service, sit_down):
    before = service.call("GET", f"/api/loans/{service.loans[1]}/", who="ops")
    with sit_down("asha") as page:
        page.goto(f"/console/loans/{service.loans[1]}/pay/")
        page.get_by_label("another amount", exact=True).check()
        page.get_by_label("Another amount in rupees").fill("10")
        page.get_by_role("button", name="Pay", exact=True).dblclick()
        expect(page.get_by_role("heading", level=1)).to_have_text("10.00 paid")
        keep(page, "receipt-wide")
    after = service.call("GET", f"/api/loans/{service.loans[1]}/", who="ops")

    def received(loan):
        parts = (loan["interest_received"], loan["principal_received"])
        return sum(int(part.replace(".", "")) for part in parts)

    assert received(after) - received(before) == 1000


def test_without_scripts_one_applies_and_pays_all_the_same(service, sit_down):
    with sit_down("asha", PLAIN) as page:
        page.goto("/console/apply/")
        page.get_by_label("Amount in rupees").fill("1000")
        page.get_by_label("Interest in percent a year").fill("12")
        page.get_by_label("Cycles of 30 days").fill("6")
        page.get_by_role("button", name="Apply").click()
        page.get_by_role("link", name="Pay", exact=True).click()
        page.get_by_label("another amount", exact=True).check()
        page.get_by_label("Another amount in rupees").fill("1.234")
        page.get_by_role("button", name="Pay", exact=True).click()
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("Another amount in rupees").fill("1.23")
        page.get_by_role("button", name="Pay", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("1.23 paid")


def test_live_figures_move_by_themselves(service, sit_down):
    with sit_down("ops") as page:
        page.goto("/console/live/")
        payments = page.locator("dt:text-is('Payments') + dd")
        expect(payments).to_contain_text("a second")
        for number in range(20):
            body = {"loan_id": service.loans[1], "amount": "0.01", "transaction_id": f"live-{number}"}
            service.call("POST", "/api/make-payment/", body, "bank")
        expect(payments).not_to_have_text("0.0 a second", timeout=15_000)


def test_a_part_that_comes_after_the_logout_leads_to_the_login(sit_down):
    with sit_down("ops") as page:
        page.goto("/console/live/")
        page.context.clear_cookies()
        page.wait_for_url("**/console/login", timeout=15_000)


def test_the_clock_moves_and_what_is_due_is_billed(service, sit_down):
    with sit_down("ops") as page:
        page.goto("/console/billing/")
        before = page.locator(".date").inner_text()
        page.get_by_label("Days to move by").fill("1")
        page.get_by_role("button", name="Move the date").click()
        expect(page.locator(".date")).not_to_have_text(before)
        page.get_by_role("button", name="Bill what is due").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Run for")
        keep(page, "billing-run-wide")
    service.log_in()


def test_what_is_printed_has_no_frame(service, sit_down):
    with sit_down("asha") as page:
        page.goto(f"/console/loans/{service.loans[0]}/statement/")
        expect(page.get_by_role("button", name="Print")).to_be_visible()
        page.emulate_media(media="print")
        expect(page.locator("header")).to_be_hidden()
        expect(page.get_by_role("button", name="Print")).to_be_hidden()
        expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_the_csv_is_kept_as_a_file(service, sit_down):
    with sit_down("asha") as page:
        page.goto(f"/console/loans/{service.loans[0]}/statement/")
        with page.expect_download() as download:
            page.get_by_role("link", name="Payments as CSV").click()
        assert download.value.suggested_filename.startswith(f"statement-{service.loans[0]}-")


def test_the_api_s_page_and_a_problem_s_are_whole_without_any_internet(sit_down):
    with sit_down(None) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        for name, path in (
            ("docs", "/docs"),
            ("problem", "/problems/loan-closed"),
            ("problems", "/problems/"),
        ):
            page.goto(path)
            keep(page, name)
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert len(asked) == 3


def test_logging_out_ends_it(service, sit_down):
    with sit_down(None) as page:
        log_in(service, page, "asha")
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.goto(f"/console/loans/{service.loans[0]}/")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()

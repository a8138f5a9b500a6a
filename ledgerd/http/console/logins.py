"""Logging in to the console and out of it: as a borrower by email or identity number, or as a client of
scope `ops` by its id and secret.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from ledgerd.http.clients import Refusal
from ledgerd.http.console.endpoint import HOME, LOGIN, session_cookie
from ledgerd.http.console.visit import Answer, Form, Page, Redirect, Visit
from ledgerd.http.people import problem_of
from ledgerd.http.tokens import Caller
from ledgerd.ids import format_id, parse_id

_FIELD_CHARACTERS_MAX: Final = 256


class LoginForm(Form):
    """Who wants in. `next` is the page that was asked for."""

    who: str
    secret: str
    next: str = ""


async def show_login(visit: Visit) -> Answer:
    """GET /console/login"""
    if visit.session is not None:
        return Redirect(HOME)
    return _login_page(visit.query.get("next", ""))


async def log_in(visit: Visit) -> Answer:
    """POST /console/login"""
    form: LoginForm = visit.form
    if visit.session is not None:
        visit.services.sessions.end(visit.session_id)
    who = form.who.strip()
    if max(len(who), len(form.secret)) > _FIELD_CHARACTERS_MAX:
        return _login_page(form.next, "This is too long to be right.", 422)
    session_id = await _begin(visit, who, form.secret)
    if isinstance(session_id, Refusal):
        problem = problem_of(session_id)
        page = _login_page(form.next, problem.detail, problem.status, who)
        page.headers = {name: value for name, value in problem.headers.items() if name == "Retry-After"}
        return page
    limits = visit.services.config.console
    return Redirect(_safe(form.next), session_cookie(session_id, visit, limits.session_max_s))


async def log_out(visit: Visit) -> Answer:
    """POST /console/logout"""
    visit.services.sessions.end(visit.session_id)
    return Redirect(LOGIN, session_cookie("", visit, 0))


async def _begin(visit: Visit, who: str, secret: str) -> str | Refusal:
    """Begin a session for who it is, by the kind of name that was given."""
    accounts = visit.services.accounts
    client_id = parse_id(who)
    if client_id is not None:
        scopes = await accounts.prove_client(who, secret)
        if not isinstance(scopes, Refusal):
            if "ops" not in scopes:
                return Refusal("bad-credentials", "This client may post payments, but has not the scope ops.")
            return visit.services.sessions.begin(_caller("client", client_id, scopes), f"client {who}")
        if visit.services.vault.parse(who) is None:  # else it may be a borrower's identity all the same
            return scopes
    is_email = "@" in who
    user_id = await accounts.prove(
        None if is_email else who, who if is_email else None, secret, visit.address
    )
    if isinstance(user_id, Refusal):
        return user_id
    caller = _caller("borrower", user_id, ("borrower",))
    user = await accounts.me(caller)
    assert user is not None
    return visit.services.sessions.begin(caller, user.name)


def _caller(kind: str, number: int, scopes: tuple[str, ...]) -> Caller:
    """Whom the API's handlers take for the caller: the same as with a token of theirs."""
    assert kind in {"borrower", "client"}
    return Caller(
        kind="borrower" if kind == "borrower" else "client",
        id=number,
        scopes=frozenset(scopes),
        login_id=0,
        expires_at_s=0,
        jti="",
        namespace=f"{kind[0]}:{format_id(number)}",
    )


def _login_page(next_page: str, error: str = "", status: int = 200, who: str = "") -> Page:
    return Page("login.html", {"next": _safe(next_page), "error": error, "who": who}, status)


def _safe(next_page: str) -> str:
    """Return where to go after the login: a page of the console, never another site."""
    parts = urlsplit(next_page)
    inside = not parts.scheme and not parts.netloc and parts.path.startswith(HOME)
    return next_page if inside and "\\" not in next_page and next_page.isprintable() else HOME

"""From a browser's request to a page and back: the one path that every page of the console takes.

In order: request id, draining, session, who may, the form and whether it is ours, handler, page, metrics and
one log line.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

from aiohttp import web

from ledgerd.domain.calendar import format_day
from ledgerd.http.bodies import check_encoding, check_query, decode_form
from ledgerd.http.console import assets, render
from ledgerd.http.console.sessions import Session
from ledgerd.http.console.visit import Answer, Download, Form, Page, PageRoute, Parts, Redirect, Visit
from ledgerd.http.endpoint import Desk, draining, problem_of, respond
from ledgerd.http.problems import PROBLEMS, Problem
from ledgerd.http.protocol import ClientGone
from ledgerd.http.request_body import read_body
from ledgerd.http.services import Services

HOME: Final = "/console/"
LOGIN: Final = "/console/login"
COOKIE: Final = "ledgerd-console"
_FORM_TYPE: Final = "application/x-www-form-urlencoded"


class PageEndpoint:
    """Serves one row of the console's table."""

    def __init__(self, services: Services, parts: Parts, route: PageRoute, desk: Desk) -> None:
        self._services = services
        self._parts = parts
        self._route = route
        self._desk = desk
        self._body_bytes = services.config.limits.body_bytes
        self._body_timeout_s = services.config.server.body_timeout_s

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request, whatever becomes of it."""
        started_s = time.perf_counter()
        request_id = self._desk.choose_id(request.headers.get("X-Request-ID"))
        session = None
        try:
            if self._services.draining:
                raise draining()  # noqa: TRY301 - as any other problem
            session_id = request.cookies.get(COOKIE, "")
            session = self._services.sessions.find(session_id)
            answer = await self._answer(request, session, session_id)
            response = self._response(answer, session, request_id)
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            problem = problem_of(error, self._route, request_id)
            response = self._response(problem_page(problem, request_id), session, request_id)
        return self._desk.record(request, self._route.path, response, started_s, request_id)

    async def _answer(self, request: web.Request, session: Session | None, session_id: str) -> Answer:
        route = self._route
        if not _may(session, route):
            return _refused(request, session)
        form = None if route.form is None else await self._read(request, session, route.form)
        if request.query_string:
            check_query(request.query)
        visit = Visit(
            services=self._services,
            parts=self._parts,
            session=session,
            path=request.match_info,
            query=request.query,
            form=form,
            address=self._services.trusted_proxies.caller(
                request.remote or "", request.headers.getall("X-Forwarded-For", [])
            ),
            over_https=request.headers.get("Origin", "").startswith("https://"),
            session_id=session_id,
        )
        work = route.handler(visit)
        return await (work if route.may_take_long else self._desk.under_way.outcome_of(work))

    async def _read(self, request: web.Request, session: Session | None, kind: type[Form]) -> Form:
        """Read the form, and see that one of our own pages sent it."""
        if not is_ours(request):
            raise _not_ours()
        check_encoding(request.headers.get("Content-Encoding"))
        if request.content_type != _FORM_TYPE:
            raise Problem("unsupported-media-type", f"Send {_FORM_TYPE}.")
        form = decode_form(kind, await read_body(request, self._body_bytes, self._body_timeout_s))
        if session is not None and not session.sent(form.csrf):
            raise _not_ours()
        return form

    def _response(self, answer: Answer, session: Session | None, request_id: str) -> web.Response:
        match answer:
            case Redirect(location, headers):
                return respond(303, b"", "text/plain", request_id, {"Location": location, **headers})
            case Download(body, content_type, file_name):
                headers = {"Content-Disposition": f'attachment; filename="{file_name}"'}
                return respond(200, body, content_type, request_id, headers)
            case Page(template, values, status, headers):
                body = render.render(template, **self._frame(session), **values)
                own = {**render.HEADERS, **headers}
                return respond(status, body, own["Content-Type"], request_id, own)

    def _frame(self, session: Session | None) -> dict[str, Any]:
        """What the frame around every page needs."""
        clock = self._services.config.clock
        return {
            "session": session,
            "business_date": format_day(self._services.clock.today()),
            "is_sandbox": clock.sandbox_start_day is not None,
            "here": self._route.path,
        }


class AssetEndpoint:
    """Serves one file that pages name."""

    def __init__(self, asset: assets.Asset, desk: Desk) -> None:
        self._asset = asset
        self._desk = desk

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer with the file."""
        started_s = time.perf_counter()
        request_id = self._desk.choose_id(request.headers.get("X-Request-ID"))
        response = respond(200, self._asset.body, self._asset.content_type, request_id, assets.HEADERS)
        return self._desk.record(request, "console asset", response, started_s, request_id)


def is_ours(request: web.Request) -> bool:
    """Return whether a form came from one of our own pages, as far as the browser says."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


def problem_page(problem: Problem, request_id: str) -> Page:
    """The page of a problem that no form can show."""
    kind = PROBLEMS[problem.slug]
    values = {
        "status": problem.status,
        "phrase": HTTPStatus(problem.status).phrase,
        "title": kind.title,
        "detail": problem.detail,
        "request_id": request_id,
    }
    headers = {name: value for name, value in problem.headers.items() if name != "WWW-Authenticate"}
    return Page("problem.html", values, problem.status, headers)


def session_cookie(session_id: str, visit: Visit, max_age_s: int) -> dict[str, str]:
    """Return the header that has the browser keep a session's id; at once forgotten when `max_age_s` is 0."""
    secure = "; Secure" if visit.over_https else ""
    return {
        "Set-Cookie": f"{COOKIE}={session_id}; Path=/console; Max-Age={max_age_s}; HttpOnly; SameSite=Lax"
        + secure
    }


def _may(session: Session | None, route: PageRoute) -> bool:
    if route.who == "anyone":
        return True
    if session is None:
        return False
    return route.who == "member" or (route.who == "ops") == session.runs_the_book


def _refused(request: web.Request, session: Session | None) -> Answer:
    """To the login page when nobody is logged in; else there is no such page, for them."""
    if session is not None:
        raise Problem("not-found", "There is no such page, or it is not for this login.")
    if "HX-Request" in request.headers:  # a part of a page: the page itself must go to the login
        return Page("empty.html", {}, 401, {"HX-Redirect": LOGIN})
    there = request.path_qs if request.method == "GET" and request.path != HOME else ""
    return Redirect(f"{LOGIN}?next={quote(there, safe='')}" if there else LOGIN)


def _not_ours() -> Problem:
    return Problem("malformed", "This form is not of this login's pages any more: load the page again.")

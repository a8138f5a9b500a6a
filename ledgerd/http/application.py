"""The aiohttp application: the route table on a router, documents, and an answer to everything else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from ledgerd.http.batches import BatchEndpoint
from ledgerd.http.console.application import add_console
from ledgerd.http.edge import EXPRESS
from ledgerd.http.endpoint import Desk, Endpoint, problem_response, respond
from ledgerd.http.express import ExpressLane
from ledgerd.http.openapi import document
from ledgerd.http.overdue import UnderWay
from ledgerd.http.pages import HTML_HEADERS, docs_page, problem_page, problems_page
from ledgerd.http.problems import PROBLEMS, Problem
from ledgerd.http.request_body import expect_continue
from ledgerd.http.routes import ROUTES
from ledgerd.http.services import Services
from ledgerd.observe import AccessLog

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def request_id_chooser(random_bits: Callable[[int], int]) -> Callable[[str | None], str]:
    """Return how a request gets its id: the caller's when it is a good one, else a new one."""

    def choose(sent: str | None) -> str:
        return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else f"{random_bits(64):016x}"

    return choose


def build_application(
    services: Services, access: AccessLog, choose_id: Callable[[str | None], str]
) -> web.Application:
    """Build the application for these services."""
    under_way = UnderWay(services.config.server.request_timeout_s)
    desk = Desk(services.metrics, access, choose_id, under_way)
    sandbox = services.config.clock.sandbox_start_day is not None
    routes = [route for route in ROUTES if sandbox or not route.sandbox_only]
    app = web.Application(
        client_max_size=0
    )  # bodies are read by protocol.read_body, which has limits of its own
    app.cleanup_ctx.append(under_way.sweeping)
    for route in routes:
        endpoint = (BatchEndpoint if route.batch else Endpoint)(services, route, desk)
        if route.name == "makePayment":
            app[EXPRESS] = ExpressLane(services, route, desk)
        for path in {route.path, route.path.rstrip("/")}:
            app.router.add_route(route.method, path, endpoint.handle, expect_handler=expect_continue)
            if route.method == "GET":
                app.router.add_route("HEAD", path, endpoint.handle, expect_handler=expect_continue)
    described = document(routes)
    _add_pages(app, desk, described)
    add_console(app, services, desk)
    app.router.add_route("*", "/{anything:.*}", Fallback(app, desk).handle)
    return app


def _add_pages(app: web.Application, desk: Desk, described: dict[str, object]) -> None:
    """Serve the documents, each rendered once."""
    html = "text/html; charset=utf-8"
    openapi = msgspec.json.format(msgspec.json.encode(described))
    pages = [
        Page(desk, "/openapi.json", "application/json", openapi),
        Page(desk, "/docs", html, docs_page(described)),
        Page(desk, "/problems", html, problems_page()),
        *(Page(desk, f"/problems/{slug}", html, problem_page(slug)) for slug in PROBLEMS),
    ]
    for page in pages:
        for spelled in (page.path, f"{page.path}/"):
            app.router.add_get(spelled, page.handle)


class Page:
    """A document that never changes."""

    def __init__(self, desk: Desk, path: str, content_type: str, body: bytes) -> None:
        self.path = path
        self._desk = desk
        self._content_type = content_type
        self._body = body
        self._headers = dict(HTML_HEADERS) if content_type.startswith("text/html") else None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        started_s = time.perf_counter()
        request_id = self._desk.choose_id(request.headers.get("X-Request-ID"))
        response = respond(200, self._body, self._content_type, request_id, self._headers)
        return self._desk.record(request, self.path, response, started_s, request_id)


class Fallback:
    """Answers what no route took: 405 where the address has other methods, else 404."""

    def __init__(self, app: web.Application, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def handle(self, request: web.Request) -> web.StreamResponse:
        started_s = time.perf_counter()
        request_id = self._desk.choose_id(request.headers.get("X-Request-ID"))
        allowed: set[str] = set()
        for resource in self._app.router.resources():
            if resource.canonical == "/{anything}":
                continue
            _, methods = await resource.resolve(request)
            allowed |= methods
        if allowed:
            methods_text = ", ".join(sorted(allowed))
            problem = Problem("method-not-allowed", f"Use {methods_text}.", {}, {"Allow": methods_text})
        else:
            problem = Problem("not-found", "There is nothing at this address.")
        response = problem_response(problem, request_id)
        return self._desk.record(request, "no route", response, started_s, request_id)

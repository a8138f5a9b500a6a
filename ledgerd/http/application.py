"""The aiohttp application: the route table on a router, documents, and an answer to everything else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from ledgerd.http.endpoint import Endpoint, problem_response, respond
from ledgerd.http.openapi import document
from ledgerd.http.pages import HTML_HEADERS, docs_page, problem_page, problems_page
from ledgerd.http.problems import PROBLEMS, Problem
from ledgerd.http.protocol import expect_continue
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
    sandbox = services.config.clock.sandbox_start_day is not None
    routes = [route for route in ROUTES if sandbox or not route.sandbox_only]
    app = web.Application(
        client_max_size=0
    )  # bodies are read by protocol.read_body, which has limits of its own
    for route in routes:
        endpoint = Endpoint(services, route, access, choose_id)
        for path in {route.path, route.path.rstrip("/")}:
            app.router.add_route(route.method, path, endpoint, expect_handler=expect_continue)
            if route.method == "GET":
                app.router.add_route("HEAD", path, endpoint)
    described = document(routes)
    _add_pages(app, choose_id, described)
    app.router.add_route("*", "/{anything:.*}", Fallback(app, choose_id))
    return app


def _add_pages(
    app: web.Application, choose_id: Callable[[str | None], str], described: dict[str, object]
) -> None:
    """Serve the documents, each rendered once."""
    pages = {
        "/openapi.json": ("application/json", msgspec.json.format(msgspec.json.encode(described))),
        "/docs": ("text/html; charset=utf-8", docs_page(described)),
        "/problems": ("text/html; charset=utf-8", problems_page()),
        **{f"/problems/{slug}": ("text/html; charset=utf-8", problem_page(slug)) for slug in PROBLEMS},
    }
    for path, (content_type, body) in pages.items():
        page = Page(content_type, body, choose_id)
        for spelled in (path, f"{path}/"):
            app.router.add_get(spelled, page)


class Page:
    """A document that never changes."""

    def __init__(self, content_type: str, body: bytes, choose_id: Callable[[str | None], str]) -> None:
        self._content_type = content_type
        self._body = body
        self._choose_id = choose_id

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        headers = dict(HTML_HEADERS) if self._content_type.startswith("text/html") else None
        request_id = self._choose_id(request.headers.get("X-Request-ID"))
        return respond(200, self._body, self._content_type, request_id, headers)


class Fallback:
    """Answers what no route took: 405 where the address has other methods, else 404."""

    def __init__(self, app: web.Application, choose_id: Callable[[str | None], str]) -> None:
        self._app = app
        self._choose_id = choose_id

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        request_id = self._choose_id(request.headers.get("X-Request-ID"))
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
        return problem_response(problem, request_id)

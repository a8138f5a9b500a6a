"""Puts the console into the application: its table on the router, and the files that its pages name."""

from __future__ import annotations

from aiohttp import web

from ledgerd.http.console.assets import ASSETS
from ledgerd.http.console.book import Bookkeeper
from ledgerd.http.console.endpoint import AssetEndpoint, PageEndpoint
from ledgerd.http.console.live import Live
from ledgerd.http.console.routes import PAGES
from ledgerd.http.console.visit import Parts
from ledgerd.http.endpoint import Desk
from ledgerd.http.request_body import expect_continue
from ledgerd.http.services import Services


def add_console(app: web.Application, services: Services, desk: Desk) -> None:
    """Serve the console, unless the configuration has it off."""
    config = services.config
    if not config.console.enabled:
        return
    parts = Parts(live=Live(), bookkeeper=Bookkeeper())
    app.cleanup_ctx.append(parts.bookkeeper.keeping)
    app.cleanup_ctx.append(lambda _: parts.live.sampling(services))
    sandbox = config.clock.sandbox_start_day is not None
    for route in PAGES:
        if route.sandbox_only and not sandbox:
            continue
        endpoint = PageEndpoint(services, parts, route, desk)
        for path in {route.path, route.path.rstrip("/")}:
            app.router.add_route(route.method, path, endpoint.handle, expect_handler=expect_continue)
            if route.method == "GET":
                app.router.add_route("HEAD", path, endpoint.handle, expect_handler=expect_continue)
    for asset in ASSETS.values():
        app.router.add_get(asset.address, AssetEndpoint(asset, desk).handle)

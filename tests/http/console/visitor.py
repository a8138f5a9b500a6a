"""A browser's part without a browser: keeps cookies, reads pages, fills in forms as they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin

from bs4 import BeautifulSoup, Tag
from multidict import CIMultiDictProxy

from tests.http.outside import PASSWORD, Caller, World

REDIRECTS_MAX = 5


@dataclass
class Seen:
    """A page that came."""

    address: str
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def html(self) -> BeautifulSoup:
        return BeautifulSoup(self.body.decode(), "html.parser")

    @property
    def text(self) -> str:
        """What a reader sees, each run of blanks as one space."""
        return " ".join(self.html.get_text(" ").split())

    def form(self, action: str) -> Tag:
        """The form that goes to this address."""
        [form] = self.html.select(f'form[action="{action}"]')
        return form

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the table with this caption, as text."""
        for table in self.html.find_all("table"):
            if table.caption and " ".join(table.caption.get_text(" ").split()).startswith(caption):
                return [
                    [" ".join(cell.get_text(" ").split()) for cell in row.find_all(["td", "th"])]
                    for row in table.tbody.find_all("tr")
                ]
        raise AssertionError(f"no table {caption!r} on {self.address}")

    def figure(self, name: str) -> str:
        """The figure under this name, in a list of figures."""
        for term in self.html.find_all("dt"):
            if " ".join(term.get_text(" ").split()) == name:
                return " ".join(term.find_next_sibling("dd").get_text(" ").split())
        raise AssertionError(f"no figure {name!r} on {self.address}")


@dataclass
class Visitor:
    """Somebody at the console of a World."""

    world: World
    cookies: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, method: str, address: str, fields: dict[str, str] | None = None, **headers: str
    ) -> Seen:
        """Send one request, and keep the cookies of its answer."""
        self.world.client.session.cookie_jar.clear()  # each visitor has a jar of their own
        sent = dict(headers)
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = None
        if fields is not None:
            body = urlencode(fields).encode()
            sent.setdefault("Content-Type", "application/x-www-form-urlencoded")
        async with self.world.client.request(
            method,
            address,
            data=body,
            headers=sent,
            skip_auto_headers=("Content-Type",),
            allow_redirects=False,
        ) as response:
            for line in response.headers.getall("Set-Cookie", []):
                for name, morsel in SimpleCookie(line).items():
                    self.cookies[name] = morsel.value
                    self.world.secrets.add(morsel.value or "-" * 99)
                    if morsel["max-age"] == "0":
                        del self.cookies[name]
            return Seen(address, response.status, response.headers, await response.read())

    async def get(self, address: str, **headers: str) -> Seen:
        """Open a page, following redirects."""
        return await self._follow(await self.ask("GET", address, None, **headers))

    async def submit(self, page: Seen, action: str, **fields: str) -> Seen:
        """Send a form of a page with these fields filled in, and the rest as they stand."""
        form = page.form(action)
        standing = {
            one["name"]: one.get("value", "")
            for one in form.select("input[name]")
            if one.get("type") not in {"radio", "checkbox"} or one.has_attr("checked")
        }
        for select in form.select("select[name]"):
            chosen = select.select_one("option[selected]") or select.select_one("option")
            standing[select["name"]] = chosen.get("value", chosen.get_text())
        method = form.get("method", "get").upper()
        filled = {**standing, **fields}
        if method == "GET":
            return await self.get(f"{action}?{urlencode(filled)}")
        return await self._follow(await self.ask("POST", action, filled))

    async def _follow(self, seen: Seen) -> Seen:
        for _ in range(REDIRECTS_MAX):
            if seen.status != 303:
                return seen
            seen = await self.ask("GET", urljoin(seen.address, seen.headers["Location"]))
        raise AssertionError(f"redirected for ever, lately to {seen.address}")

    async def log_in(self, who: str, secret: str) -> Seen:
        return await self.submit(await self.get("/console/login"), "/console/login", who=who, secret=secret)


async def ops_visitor(world: World) -> Visitor:
    """Somebody of those who run the book, logged in."""
    visitor = Visitor(world)
    assert (await visitor.log_in(world.ops.id, world.ops.secret)).status == 200
    return visitor


async def borrower_visitor(world: World, borrower: Caller) -> Visitor:
    """A borrower, logged in."""
    visitor = Visitor(world)
    assert (await visitor.log_in(borrower.email, PASSWORD)).status == 200
    return visitor

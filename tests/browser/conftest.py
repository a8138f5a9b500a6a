"""A real service on a free port with a small book in it, and a real Chromium at its console."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.requisites import chromium

PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
PASSWORD = "a long passphrase"
POLLS_MAX = 2000
REFUSED = "Failed to load resource: the server responded with a status of 4"


@dataclass
class Service:
    """Where it listens, and who is there."""

    url: str
    ops: dict[str, Any]
    bank: dict[str, Any]
    email: str = "asha@example.in"
    loans: list[str] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, body: Any = None, who: str | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if who is not None:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def log_in(self) -> None:
        for who, client in (("ops", self.ops), ("bank", self.bank)):
            body = {
                "grant_type": "client_credentials",
                **{k: client[k] for k in ("client_id", "client_secret")},
            }
            self.tokens[who] = self.call("POST", "/api/token/", body)["access_token"]
        body = {"email": self.email, "password": PASSWORD}
        self.tokens["asha"] = self.call("POST", "/api/login/", body)["access_token"]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    port = free_port()
    (folder / "config.toml").write_text(
        f'[server]\nport = {port}\n[clock]\nsandbox_start = "2026-01-01"\n[identity]\nkind = "opaque"\n'
        "[lending]\nmin_credit_score = 300\n"
    )
    clients = [create_client(folder, scope) for scope in ("ops", "payments:write")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ledgerd", "serve"], cwd=folder, stdout=log, stderr=log
        )
    try:
        service = Service(f"http://127.0.0.1:{port}", *clients)
        wait_until_ready(service, process)
        fill(service)
        yield service
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def create_client(folder: Path, scope: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ledgerd", "client", "create", scope, "--scope", scope]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def wait_until_ready(service: Service, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            service.call("GET", "/readyz")
        except (urllib.error.URLError, ConnectionError):
            continue
        return
    raise AssertionError("the service has ended")


def fill(service: Service) -> None:
    """Asha, two loans, three months, and payments as they come."""
    who = {
        "name": "Asha Rao",
        "email": service.email,
        "aadhar_id": "identity-4321",
        "annual_income": "600000",
    }
    service.call("POST", "/api/register-user/", {**who, "password": PASSWORD})
    service.log_in()
    for _ in range(POLLS_MAX):
        if service.call("GET", "/api/me/", who="asha")["score_status"] == "scored":
            break
    for amount in ("5000", "3000"):
        body = {"amount": amount, "interest_rate": "14", "tenure": 12}
        service.loans.append(service.call("POST", "/api/apply-loan/", body, "asha")["loan_id"])
    for month in range(3):
        service.call("POST", "/api/sandbox/advance-clock/", {"days": 32}, "ops")
        body = {"loan_id": service.loans[0], "amount": "207.00", "transaction_id": f"upi-{month}"}
        service.call("POST", "/api/make-payment/", body, "bank")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    assert path is not None, "Chromium is missing: make test-browser installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass(frozen=True)
class Screen:
    """What somebody looks at the console with."""

    name: str
    width: int = 1280
    height: int = 900
    scheme: str = "light"
    scripts: bool = True


WIDE, PHONE = Screen("wide"), Screen("phone", 390, 844, "dark")
NARROW, PLAIN = Screen("narrow", 360, 640), Screen("plain", scripts=False)

Open = Callable[..., Any]


@pytest.fixture
def sit_down(service: Service, browser: Browser) -> Open:
    """`with sit_down("ops", PHONE) as page`: somebody logged in, whose browser complains of nothing."""

    @contextmanager
    def open_page(who: str | None, screen: Screen = WIDE) -> Iterator[Page]:
        context = browser.new_context(
            viewport={"width": screen.width, "height": screen.height},
            color_scheme=screen.scheme,
            java_script_enabled=screen.scripts,
            base_url=service.url,
        )
        page = context.new_page()
        complaints: list[str] = []

        def heard(said: Any) -> None:
            # A refusal is a page like any other; whatever else the browser calls an error is one.
            if said.type == "error" and not said.text.startswith(REFUSED):
                complaints.append(said.text)

        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        try:
            if who is not None:
                log_in(service, page, who)
            yield page
            assert complaints == []
        finally:
            context.close()

    return open_page


def log_in(service: Service, page: Page, who: str) -> None:
    name, secret = (service.email, PASSWORD)
    if who == "ops":
        name, secret = service.ops["client_id"], service.ops["client_secret"]
    page.goto("/console/login")
    page.get_by_label("Email, Aadhaar ID, or client id").fill(name)
    page.get_by_label("Password, or client secret").fill(secret)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Log out").wait_for()


def keep(page: Page, name: str) -> None:
    """Keep a picture for people to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

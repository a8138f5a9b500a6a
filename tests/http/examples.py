"""`make openapi`: one life over HTTP, written down as the examples of the API's document, and the document.

Each call of it is really made, and each answer is what really came; time and chance come from a seed, so that
the same code makes the same bytes. test_examples.py holds the file against another walk.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from aiohttp.test_utils import TestClient

from ledgerd.config import Identity
from ledgerd.http import examples
from ledgerd.http.openapi import document
from ledgerd.http.route import Route
from ledgerd.http.routes import ROUTES
from tests.http.outside import Answer, Caller, Time, World, config_in, opened

ROOT = Path(__file__).parents[2]
STARTS_S = 1_767_250_000  # in the morning of the sandbox's first day
AADHAAR = "999941057058"  # one that UIDAI gives to those who test
TOKEN_SHOWN = 24  # characters
BY_NAME = {route.name: route for route in ROUTES}


class Story:
    """A World that writes down what is said in it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.examples: list[dict[str, Any]] = []
        self.scopes = {world.payer.id: "payments:write", world.ops.id: "ops"}

    async def call(
        self,
        name: str,
        title: str,
        who: Caller | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        **parameters: str,
    ) -> Answer:
        route = BY_NAME[name]
        path = address(route, parameters)
        answer = await self.world.call(route.method, path, body, who, headers)
        example = {"operation": name, "title": title, "path": path, "status": answer.status}
        if who is not None:
            example["token"] = self.scopes.get(who.id, "borrower")
        if headers:
            example["headers"] = headers
        if body is not None:
            example["body"] = shown(body)
        if answer.body:
            example["answer"] = shown(answer.json)
        self.examples.append(example)
        return answer


def address(route: Route, parameters: dict[str, str]) -> str:
    """The route's path with these in it, and what has no place there behind it."""
    path = route.path.format_map(parameters)
    query = "&".join(
        f"{name}={value}" for name, value in parameters.items() if f"{{{name}}}" not in route.path
    )
    return f"{path}?{query}" if query else path


def shown(value: Any, name: str = "") -> Any:
    """The same without what nobody needs to see whole, or what the clock on the wall makes of it."""
    if isinstance(value, dict):
        return {key: shown(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [shown(one) for one in value]
    if name in {"access_token", "refresh_token"}:
        return f"{value[:TOKEN_SHOWN]}..."
    if name == "seconds":
        return 0.002
    return value


async def tell(world: World) -> list[dict[str, Any]]:
    """One borrower's life, as calls and answers."""
    story = Story(world)
    call = story.call
    till, ops = world.payer, world.ops
    person = {
        "name": "Asha Rao",
        "email": "asha@example.in",
        "aadhar_id": AADHAAR,
        "annual_income": "300000.00",
        "password": "a long passphrase",
    }
    await call("registerUser", "A new borrower", body=person)
    await call("registerUser", "Registered before", body=person)
    await call("registerUser", "Not a sum of money", body={**person, "annual_income": "3 lakh"})
    login = {"email": person["email"], "password": person["password"]}
    answer = (await call("login", "By email", body=login)).json
    asha = world.keep(Caller("", answer["access_token"], answer["refresh_token"]))
    await call("login", "A wrong password", body={**login, "password": "a short passphrase"})
    client = {"grant_type": "client_credentials", "client_id": till.id, "client_secret": till.secret}
    await call("token", "A client", body=client)
    refresh = {"grant_type": "refresh_token", "refresh_token": asha.refresh_token}
    answer = (await call("token", "A borrower's next pair", body=refresh)).json
    asha = world.keep(Caller("", answer["access_token"], answer["refresh_token"]))
    await world.scored(asha)
    await call("me", "A borrower", asha)
    await call("me", "No token")
    await call("me", "Another scope", till)

    wanted = {"amount": "5000.00", "interest_rate": "14.00", "tenure": 12, "repayment_plan": "min_due"}
    key = {"Idempotency-Key": "asha-first-loan"}
    loan_id = (await call("applyLoan", "Lent at once", asha, wanted, key)).json["loan_id"]
    await call("applyLoan", "Sent again", asha, wanted, key)
    await call("applyLoan", "The key of another body", asha, {**wanted, "tenure": 6}, key)
    await call("applyLoan", "Too much", asha, {**wanted, "amount": "5000.01"})
    await call("listLoans", "A borrower's own", asha, limit="10")
    await call("getLoan", "On its first day", asha, loan_id=loan_id)
    await call("getLoan", "Somebody else's", asha, loan_id="00000000000000aa")

    await call("advanceClock", "A month passes", ops, {"days": 46})
    pay = {"loan_id": loan_id, "amount": "100.00", "transaction_id": "asha-2026-02"}
    await call("makePayment", "A part of a bill", till, pay)
    await call("makePayment", "Sent again", till, pay)
    await call("makePayment", "The id of another payment", till, {**pay, "amount": "101.00"})
    await call("advanceClock", "Another month", ops, {"days": 20})
    more = {**pay, "transaction_id": "asha-2026-03"}
    await call("makePayment", "A newer bill first", till, {**more, "for_bill": 2})
    await call("makePayment", "A bill that is not there", till, {**more, "for_bill": 9})
    await call("makePayment", "More than is owed", till, {**more, "amount": "9000.00"})
    many = [{**more, "amount": "250.00"}, {**pay, "loan_id": "00000000000000aa", "transaction_id": "typo"}]
    await call("makePayments", "Two, one of which is refused", till, many)
    await call("getPayment", "One's own", till, transaction_id="asha-2026-02")
    await call("getPayment", "Never sent", till, transaction_id="asha-2026-04")
    await call("getStatement", "The first page", asha, loan_id=loan_id, limit="10")

    run = (await call("startBillingRun", "Tonight's, early", ops, {})).json
    await call("startBillingRun", "A day to come", ops, {"date": "2099-01-01"})
    await call("listBillingRuns", "The newest", ops, limit="2")
    await call("getBillingRun", "One", ops, run_id=run["run_id"])
    payoff = (await world.loan(asha, loan_id))["payoff"]
    last = {**pay, "amount": payoff, "transaction_id": "asha-last"}
    await call("makePayment", "The last", asha, last)
    await call("makePayment", "A closed loan", asha, {**last, "transaction_id": "asha-more"})
    await call("livez", "Alive")
    await call("readyz", "Ready")
    await call("jwks", "The key in use")
    await call("logout", "The end", asha)
    return story.examples


async def told() -> str:
    """The file's text."""

    async def client(server: Any, **options: Any) -> TestClient:
        made = TestClient(server, **options)
        await made.start_server()
        return made

    time = Time()
    time.now_s = float(STARTS_S)
    with tempfile.TemporaryDirectory() as folder:
        config = config_in(Path(folder), identity=Identity())
        async with opened(client, config, time) as world:
            story = await tell(world)
    return json.dumps(story, indent=1, ensure_ascii=False) + "\n"


def publish() -> None:
    """Write the document to docs/, by a process that reads the new examples."""
    code = "import sys; from tests.http.examples import published; sys.stdout.write(published())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    (ROOT / "docs" / "openapi.json").write_text(done.stdout, encoding="utf-8")


def published() -> str:
    """The document's text."""
    return msgspec.json.format(msgspec.json.encode(document(ROUTES)), indent=1).decode() + "\n"


if __name__ == "__main__":
    examples.FILE.write_text(asyncio.run(told()), encoding="utf-8")
    publish()

"""Schemathesis over the document that a service serves, as everybody whose token a route takes.

Each operation is called with what its schema allows and with what it forbids, then in chains along the
document's links. Every answer has to be one that the document promises: status, headers, media type, shape;
what the schema forbids is refused, and no protected call works without its token.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events

from ledgerd.http.routes import ROUTES
from tests.process import Service, ledgerd_here, write_config

PASSWORD = "correct horse"
SCOPES = ("borrower", "payments:write", "ops")
# The one ends a login, the other takes minutes for a long way; both are tried by hand in tests/http.
NOT_WALKED = {"logout", "advanceClock"}


@schemathesis.serializer("application/x-ndjson")
def as_line(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """A stream of one payment, or of what is none."""
    return value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"


@dataclass
class Walk:
    """What was called and answered, by operation and status; and what was not as promised, by check."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)

    @property
    def succeeded(self) -> set[str]:
        return {name for name, status in self.answers if status < 300}

    def fail(self, check: str, told: str) -> None:
        self.failures.setdefault(check, []).append(told)


def lasting(folder: Path) -> Path:
    """Write a configuration for a long walk: tokens live on, and no guess has to wait."""
    return write_config(folder, auth={"access_ttl_s": 3600, "login_failures": 1_000_000})


def tokens_of(service: Service) -> dict[str, str]:
    """Register a borrower, make two clients, log all of them in; return a token of each scope."""

    def post(path: str, body: dict[str, str], status: int) -> dict[str, Any]:
        answer = requests.post(f"{service.url}/api/{path}/", json=body, timeout=30)
        assert answer.status_code == status, answer.text
        return answer.json()

    login = {"aadhar_id": "a walker", "password": PASSWORD}
    post(
        "register-user", {**login, "name": "Walker", "email": "walker@example.in", "annual_income": "1"}, 201
    )
    tokens = {"borrower": post("login", login, 200)["access_token"]}
    for scope in SCOPES[1:]:
        made = ledgerd_here("client", "create", "till", "--scope", scope, "--config", service.config_path)
        client = json.loads(made.stdout)
        del client["scopes"]
        tokens[scope] = post("token", {"grant_type": "client_credentials", **client}, 200)["access_token"]
    return tokens


def document_of(service: Service) -> dict[str, Any]:
    """The document as it is served."""
    return requests.get(f"{service.url}/openapi.json", timeout=30).json()


def walk(
    service: Service,
    document: dict[str, Any],
    tokens: dict[str, str],
    examples: int,
    seed: int,
    without: Collection[str] = NOT_WALKED,
) -> Walk:
    """Call everything that the document has, but for the operations `without`."""
    operations: list[dict[str, Any]] = [
        {
            "include-operation-id": route.name,
            "headers": {"Authorization": f"Bearer {tokens[min(route.scopes)]}"},
        }
        for route in ROUTES
        if route.scopes and route.name not in without
    ]
    for one in operations:
        if one["include-operation-id"] == "makePayments":  # 200, and of each payment what is wrong with it
            one["checks"] = {"negative_data_rejection": {"enabled": False}}
    operations += [{"include-operation-id": name, "enabled": False} for name in without]
    # What a schema allows may still be refused by a rule of lending, which is a 422 too.
    accepted = {"expected-statuses": ["2xx", 401, 403, 404, 409, 422, 429]}
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "base-url": service.url,
            "continue-on-failure": True,
            "request-timeout": 30,
            "generation": {
                "max-examples": examples,
                "no-shrink": True,
                "database": "none",
                "allow-extra-parameters": False,  # a parameter that is not known is passed over
            },
            "checks": {"positive_data_acceptance": accepted},
            "operations": operations,
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config)
    walked = Walk()
    for event in schemathesis.engine.from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _note(walked, event)
        elif isinstance(event, events.NonFatalError):
            walked.fail("schemathesis", f"{event.label}: {event.info.format()}")
        elif isinstance(event, events.FatalError):
            raise event.exception
    return walked


def _note(walked: Walk, event: events.ScenarioFinished) -> None:
    recorder = event.recorder
    for case_id, interaction in recorder.interactions.items():
        if interaction.response is not None:
            name = recorder.cases[case_id].value.operation.definition.raw["operationId"]
            walked.answers[name, interaction.response.status_code] += 1
    for case_id, checks in recorder.checks.items():
        label = recorder.cases[case_id].value.operation.label
        for check in checks:
            if check.status is Status.FAILURE and check.failure_info is not None:
                failure = check.failure_info.failure
                told = f"{label}: {failure.title}: {failure.message}\n{check.failure_info.code_sample}"
                walked.fail(check.name, told)

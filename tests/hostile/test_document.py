"""The served document is kept, to the letter, by a service that runs: no 5xx, and nothing undocumented."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from ledgerd.http.routes import ROUTES
from tests.hostile.served_document import NOT_WALKED, document_of, lasting, tokens_of, walk
from tests.process import Service, serving

SEED = 1
EXAMPLES = 5
NEVER_SUCCEED = {"token"}  # nobody guesses a client's secret; whom the examples register, they log in


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    with serving(lasting(tmp_path_factory.mktemp("served"))) as served:
        yield served


@pytest.fixture(scope="module")
def tokens(service: Service) -> dict[str, str]:
    return tokens_of(service)


def test_every_answer_is_one_that_the_document_promises(service, tokens):
    walked = walk(service, document_of(service), tokens, EXAMPLES, SEED)
    told = [f"{check}: {one}" for check, failures in walked.failures.items() for one in failures]
    assert not told, "\n\n".join([f"seed {SEED}", *told[:20]])
    assert not {status for _, status in walked.answers if status >= 500}
    # Or this shows little: each call also succeeded, those about a loan or a run along the links.
    assert walked.succeeded == {route.name for route in ROUTES} - NOT_WALKED - NEVER_SUCCEED
    assert not [line for line in service.log if '"level":"error"' in line]


def test_a_document_that_is_wrong_is_noticed(service, tokens):
    wrong = copy.deepcopy(document_of(service))
    wrong["paths"]["/livez"]["get"]["security"] = [{"bearer": ["ops"]}]  # it takes anyone
    del wrong["paths"]["/api/me/"]["get"]["responses"]["401"]
    user = wrong["components"]["schemas"]["User"]["properties"]
    user["user_id"] = {"type": "integer"}
    wrong["paths"]["/api/loans/"]["get"]["parameters"][0]["schema"]["maximum"] = 499
    others = {route.name for route in ROUTES} - {"livez", "me", "listLoans"}
    walked = walk(service, wrong, tokens, EXAMPLES, SEED, others)
    assert set(walked.failures) >= {
        "ignored_auth",
        "negative_data_rejection",
        "response_schema_conformance",
        "status_code_conformance",
    }

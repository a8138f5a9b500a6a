"""The document's examples are what the service says, and the file of it in docs/ is what is served."""

from __future__ import annotations

from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from ledgerd.http.examples import EXAMPLES, FILE, examples_of
from ledgerd.http.openapi import document
from ledgerd.http.routes import ROUTES
from tests.http.examples import BY_NAME, told

DOCUMENT = document(ROUTES)
PUBLISHED = Path(__file__).parents[2] / "docs" / "openapi.json"
AGAIN = "another now: `make openapi` writes it anew"


async def test_the_file_is_what_the_service_says() -> None:
    assert await told() == FILE.read_text(encoding="utf-8"), AGAIN


def test_the_published_document_is_the_served_one() -> None:
    assert msgspec.json.decode(PUBLISHED.read_bytes()) == DOCUMENT, AGAIN


def test_every_operation_has_an_example_that_goes_well_first() -> None:
    for name in BY_NAME.keys() - {"metrics"}:
        first = examples_of(name)[0]
        assert first.status < 300, name
        assert len({example.title for example in examples_of(name)}) == len(examples_of(name)), name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.operation}-{example.title}")
def test_an_example_is_as_the_document_has_it(example) -> None:
    route = BY_NAME[example.operation]
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    assert not example.token or example.token in route.scopes or example.slug == "insufficient-scope"
    checked = []
    if example.answer is not None:
        media_type = "application/problem+json" if example.slug else "application/json"
        content = operation["responses"][str(example.status)]["content"][media_type]
        assert content["examples"][example.title] == {"value": example.answer}
        checked.append((content["schema"], example.answer))
    if example.body is not None and example.status < 300:
        content = operation["requestBody"]["content"]["application/json"]
        assert content["examples"][example.title] == {"value": example.body}
        checked.append((content["schema"], example.body))
    for schema, value in checked:
        whole = {"components": DOCUMENT["components"], **schema}
        jsonschema_rs.validator_for(whole).validate(value)

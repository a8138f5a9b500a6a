"""The document: valid OpenAPI 3.1, and the route table to the letter."""

from __future__ import annotations

import copy
import json
import re

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from ledgerd.http.openapi import document
from ledgerd.http.payloads import Health, LoanShown, Receipt
from ledgerd.http.problems import PROBLEMS
from ledgerd.http.route import Parameter, Reply, Route
from ledgerd.http.routes import ROUTES

DOCUMENT = document(ROUTES)
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
VALIDATOR = jsonschema_rs.validator_for(OPENAPI_31)

by_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)


async def nothing(_services, _call):
    return Reply(200)


def references(thing):
    if isinstance(thing, dict):
        if "$ref" in thing:
            yield thing["$ref"]
        for value in thing.values():
            yield from references(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from references(value)


def schemas_of(thing):
    return {media_type: content["schema"] for media_type, content in thing["content"].items()}


def problems_of(operation):
    return {
        (int(status), kind.removeprefix("/problems/"))
        for status, answer in operation["responses"].items()
        if "application/problem+json" in answer.get("content", {})
        for kind in answer["content"]["application/problem+json"]["schema"]["properties"]["type"]["enum"]
    }


def test_the_document_is_valid_openapi():
    assert [error.message for error in VALIDATOR.iter_errors(DOCUMENT)] == []
    broken = copy.deepcopy(DOCUMENT)
    del broken["info"]["version"]
    assert not VALIDATOR.is_valid(broken)


def test_every_schema_is_a_valid_schema():
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert schema["title"] == name
        assert not name.endswith("Shown")


def test_every_reference_leads_somewhere():
    found = set(references(DOCUMENT))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        thing = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            thing = thing[part]


def test_patterns_are_javascripts():
    patterns = re.findall(r'"pattern":\s*("(?:[^"\\]|\\.)*")', json.dumps(DOCUMENT))
    assert patterns
    for pattern in map(json.loads, patterns):
        assert not re.search(r"\\[AZz]|\(\?P", pattern), pattern


def test_the_same_table_makes_the_same_bytes():
    assert msgspec.json.encode(document(ROUTES)) == msgspec.json.encode(DOCUMENT)
    assert list(DOCUMENT["paths"]) == list(dict.fromkeys(route.path for route in ROUTES))
    assert list(DOCUMENT["components"]["schemas"]) == sorted(DOCUMENT["components"]["schemas"])


def test_the_table_and_the_document_have_the_same_calls():
    assert [*OPERATIONS] == [(route.method, route.path) for route in sorted(ROUTES, key=_first_of_path)]
    assert len({operation["operationId"] for operation in OPERATIONS.values()}) == len(ROUTES)


def _first_of_path(route):
    return [one.path for one in ROUTES].index(route.path)


@by_route
def test_an_operation_says_who_may_call_it_and_how(route):
    operation = OPERATIONS[route.method, route.path]
    assert (operation["operationId"], operation["summary"]) == (route.name, route.summary)
    assert operation["tags"] == [route.tag]
    assert next(tag["description"] for tag in DOCUMENT["tags"] if tag["name"] == route.tag)
    assert {scope for one in operation["security"] for scope in one["bearer"]} == route.scopes
    named = {(one["name"], one["in"]) for one in operation["parameters"] if "name" in one}
    assert named == {(parameter.name, parameter.place) for parameter in route.parameters}
    assert {"$ref": "#/components/parameters/X-Request-ID"} in operation["parameters"]
    in_path = {one["name"] for one in operation["parameters"] if one.get("in") == "path"}
    assert in_path == set(re.findall(r"\{(\w+)\}", route.path))


@by_route
def test_an_operation_has_every_answer_and_problem(route):
    operation = OPERATIONS[route.method, route.path]
    assert {str(status) for status in route.answers} <= operation["responses"].keys()
    found = problems_of(operation)
    assert {(PROBLEMS[slug].status, slug) for slug in route.problems} <= found
    assert {(400, "malformed"), (408, "request-timeout"), (500, "internal"), (503, "overloaded")} <= found
    assert ((401, "unauthorized") in found) == bool(route.scopes)
    statuses = {status for status, _ in found} | set(route.answers)
    assert operation["responses"].keys() == {str(status) for status in statuses}
    for status, answer in operation["responses"].items():
        assert {"X-Request-ID", *route.headers.get(int(status), ())} <= answer["headers"].keys()
        assert ("Retry-After" in answer["headers"]) or status not in {"429", "503"}
        assert (
            ("WWW-Authenticate" in answer["headers"])
            or (int(status), "unauthorized") not in found
            or (status != "401")
        )


def test_bodies_come_as_json_and_where_served_as_forms():
    body = OPERATIONS["POST", "/api/token/"]["requestBody"]
    assert list(body["content"]) == ["application/json", "application/x-www-form-urlencoded"]
    body = OPERATIONS["POST", "/api/make-payment/"]["requestBody"]
    assert body["required"]
    assert schemas_of(body) == {"application/json": {"$ref": "#/components/schemas/MakePayment"}}
    assert "requestBody" not in OPERATIONS["GET", "/api/me/"]


def test_a_batch_comes_and_goes_as_an_array_or_as_lines():
    operation = OPERATIONS["POST", "/api/make-payments/"]
    for where, name in (
        (operation["requestBody"], "MakePayment"),
        (operation["responses"]["200"], "PaymentResult"),
    ):
        item = {"$ref": f"#/components/schemas/{name}"}
        assert schemas_of(where) == {
            "application/json": {"type": "array", "items": item},
            "application/x-ndjson": item,
        }


def test_an_answer_of_more_than_one_kind_is_any_of_them():
    route = Route("GET", "/x", "x", nothing, "X", answers={200: Receipt | LoanShown})
    answer = document([route])["paths"]["/x"]["get"]["responses"]["200"]
    both = {"anyOf": [{"$ref": "#/components/schemas/Receipt"}, {"$ref": "#/components/schemas/Loan"}]}
    assert answer["content"]["application/json"]["schema"] == both
    route = Route("GET", "/x", "x", nothing, "X", answers={200: list[Receipt | LoanShown]})
    answer = document([route])["paths"]["/x"]["get"]["responses"]["200"]
    assert answer["content"]["application/json"]["schema"] == {"type": "array", "items": both}


def test_an_answer_and_a_problem_can_share_a_status():
    route = Route("GET", "/x", "x", nothing, "X", answers={503: Health}, problems=("draining",))
    described = document([route])
    answer = described["paths"]["/x"]["get"]["responses"]["503"]
    assert answer["content"].keys() == {"application/json", "application/problem+json"}
    assert VALIDATOR.is_valid(described)


def test_an_answer_leads_on_by_members_that_it_has():
    found = 0
    for route in ROUTES:
        operation = OPERATIONS[route.method, route.path]
        for status, answer in operation["responses"].items():
            if not route.links or int(status) not in route.answers:
                assert "links" not in answer
                continue
            assert answer["links"].keys() == {link.to for link in route.links}
            has = msgspec.structs.fields(route.answers[int(status)])
            for name, link in answer["links"].items():
                [to] = [one for one in ROUTES if one.name == name == link["operationId"]]
                assert link.get("parameters", {}).keys() <= {parameter.name for parameter in to.parameters}
                fields = link.get("requestBody", {})
                assert not fields or fields.keys() <= set(to.body.__struct_fields__)
                for expression in (*link.get("parameters", {}).values(), *fields.values()):
                    assert expression.removeprefix("$response.body#/") in {field.name for field in has}
                    found += 1
    assert found >= 9


def test_a_parameter_is_described():
    parameter = Parameter("limit", "query", "How many.", schema={"type": "integer"})
    route = Route("GET", "/x", "x", nothing, "X", parameters=(parameter,), answers={204: None})
    operation = document([route])["paths"]["/x"]["get"]
    assert operation["parameters"][0] == {
        "name": "limit",
        "in": "query",
        "description": "How many.",
        "required": False,
        "schema": {"type": "integer"},
    }
    assert "content" not in operation["responses"]["204"]

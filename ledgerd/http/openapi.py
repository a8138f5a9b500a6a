"""The route table as an OpenAPI 3.1 document, in the table's order.

What holds: every route is in it, with every status that it can answer, and the same table makes the same
bytes. application.py serves it as `/openapi.json`, and pages.py renders `/docs` from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from types import UnionType
from typing import Any, Final, get_args, get_origin

import msgspec

from ledgerd import __version__
from ledgerd.http.examples import Example, examples_of
from ledgerd.http.payloads import ProblemShown
from ledgerd.http.problems import CONTENT_TYPE, PROBLEMS
from ledgerd.http.route import Link, Parameter, Route

JsonObject = dict[str, Any]

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_NDJSON: Final = "application/x-ndjson"
_REF: Final = "#/components/schemas/"
_DESCRIPTION: Final = (
    "A loan ledger, exact to the paisa. Money is in rupees, as strings with two decimals; dates are business "
    "dates. Errors are RFC 9457 problems, whose `type` is a page that a browser can open."
)
_SCOPES: Final = {
    "borrower": "A registered borrower, for what is the borrower's own.",
    "payments:write": "A client that posts payments to any loan.",
    "ops": "A client that operates the service: billing runs, and a look at every loan.",
}
_TAGS: Final = {
    "People": "Who calls: borrowers by their passwords, clients by their secrets; the tokens of both.",
    "Loans": "Applying, and what is owed and why.",
    "Payments": "One, or many in one call. Each counts once.",
    "Operations": "The nightly billing, and a sandbox's date.",
    "Service": "For whoever runs it. No token.",
}
# What any call can answer: a head that can't be read or does not come, too many connections, a bug.
_EVERYWHERE: Final = ("malformed", "request-timeout", "internal", "overloaded")
_WITH_TOKEN: Final = ("unauthorized", "insufficient-scope")
_HEADERS: Final = {
    "X-Request-ID": "The caller's own when it matches `[A-Za-z0-9._-]{1,64}`, else a new one.",
    "Retry-After": "Seconds to wait before the next try.",
    "WWW-Authenticate": "Why the token was not accepted.",
    "Allow": "The methods of this address.",
    "Location": "Where the new thing is.",
    "Idempotent-Replayed": "`true`: the first answer once more, nothing was done.",
}
_PROBLEM_HEADERS: Final = {
    "unauthorized": "WWW-Authenticate",
    "insufficient-scope": "WWW-Authenticate",
    "method-not-allowed": "Allow",
    "score-pending": "Retry-After",
    "too-many-attempts": "Retry-After",
    "overloaded": "Retry-After",
    "storage-full": "Retry-After",
    "draining": "Retry-After",
}
_REQUEST_ID: Final = Parameter(
    "X-Request-ID",
    "header",
    "Names the request in answers and logs when it matches `[A-Za-z0-9._-]{1,64}`; another is replaced.",
)


def document(routes: Iterable[Route]) -> JsonObject:
    """Return the OpenAPI document of these routes."""
    routes = tuple(routes)
    types = list(dict.fromkeys([*_types(routes), ProblemShown]))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF + "{name}")
    schema_of = {kind: _published(schema) for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, JsonObject] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    named = {_public_name(name): _published(schema) for name, schema in components.items()}
    assert len(named) == len(components), "two schemas have one public name"
    return {
        "openapi": "3.1.0",
        "info": {"title": "ledgerd", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": [
            {"name": tag, "description": _TAGS.get(tag, "")}
            for tag in dict.fromkeys(route.tag for route in routes)
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(named.items())),
            "headers": {name: _header(text) for name, text in _HEADERS.items()},
            "parameters": {_REQUEST_ID.name: _parameter(_REQUEST_ID)},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": " ".join(f"`{scope}`: {text}" for scope, text in _SCOPES.items()),
                }
            },
        },
    }


def _types(routes: Sequence[Route]) -> Iterable[Any]:
    """Every Struct that the routes name."""
    for route in routes:
        for kind in (route.body, *route.answers.values()):
            if not isinstance(kind, str | None):
                yield from _structs(kind)


def _structs(kind: Any) -> Iterable[Any]:
    if isinstance(kind, UnionType) or get_origin(kind) is list:
        for member in get_args(kind):
            yield from _structs(member)
    else:
        yield kind


def _schema(kind: Any, schema_of: dict[Any, JsonObject]) -> JsonObject:
    """The schema of a Struct, a list or a union; msgspec itself makes no union of Structs without tags."""
    if isinstance(kind, UnionType):
        return {"anyOf": [_schema(member, schema_of) for member in get_args(kind)]}
    if get_origin(kind) is list:
        return {"type": "array", "items": _schema(get_args(kind)[0], schema_of)}
    return schema_of[kind]


def _operation(route: Route, schema_of: dict[Any, JsonObject]) -> JsonObject:
    operation: JsonObject = {"operationId": route.name, "tags": [route.tag], "summary": route.summary}
    if route.description:
        operation["description"] = route.description
    # Any one of the scopes will do; an empty list says that nobody is asked who they are.
    operation["security"] = [{"bearer": [scope]} for scope in _SCOPES if scope in route.scopes]
    parameters = [_parameter(parameter) for parameter in route.parameters]
    operation["parameters"] = [*parameters, {"$ref": f"#/components/parameters/{_REQUEST_ID.name}"}]
    if route.body is not None:
        media_types = (_JSON, _FORM) if route.form else (_JSON,)
        content = {one: {"schema": _schema(route.body, schema_of)} for one in media_types}
        operation["requestBody"] = {
            "required": route.body_required,
            "content": _many(content) if route.batch else content,
        }
    responses = {status: _answer(route, status, schema_of) for status in route.answers}
    for status, slugs in _slugs_by_status(route).items():
        problem = _problems(slugs, schema_of[ProblemShown])
        if status in responses:  # an answer and problems of one status: one of them comes
            problem["description"] = f"{responses[status]['description']} {problem['description']}"
            problem["content"] |= responses[status].get("content", {})
        responses[status] = problem
    operation["responses"] = {str(status): responses[status] for status in sorted(responses)}
    for example in examples_of(route.name):
        _show(example, operation)
    return operation


def _show(example: Example, operation: JsonObject) -> None:
    """Add an example to the answers of its status, and to the bodies that are taken."""
    places = []
    if example.answer is not None:
        answers = operation["responses"][str(example.status)]["content"]
        places.append((answers[CONTENT_TYPE if example.slug else _JSON], example.answer))
    if example.body is not None and example.status < 300:
        places.append((operation["requestBody"]["content"][_JSON], example.body))
    for place, value in places:
        place.setdefault("examples", {})[example.title] = {"value": value}


def _parameter(parameter: Parameter) -> JsonObject:
    shown = {"name": parameter.name, "in": parameter.place, "description": parameter.description}
    return {**shown, "required": parameter.required, "schema": parameter.schema}


def _header(description: str) -> JsonObject:
    return {"description": description, "schema": {"type": "string"}}


def _header_refs(*names: str) -> JsonObject:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *names)}


def _answer(route: Route, status: int, schema_of: dict[Any, JsonObject]) -> JsonObject:
    kind = route.answers[status]
    names = route.headers.get(status, ())
    replayed = status == HTTPStatus.OK and "Idempotent-Replayed" in names
    text = "The first answer, replayed." if replayed else f"{HTTPStatus(status).phrase}."
    answer: JsonObject = {"description": text, "headers": _header_refs(*names)}
    if isinstance(kind, str):
        answer["content"] = {kind: {"schema": {"type": "object" if kind == _JSON else "string"}}}
    elif kind is not None:
        content = {_JSON: {"schema": _schema(kind, schema_of)}}
        answer["content"] = _many(content) if route.batch else content
    if route.links:
        answer["links"] = {link.to: _link(link) for link in route.links}
    return answer


def _link(link: Link) -> JsonObject:
    shown: JsonObject = {"operationId": link.to}
    if link.parameters:
        shown["parameters"] = _members(link.parameters)
    if link.body:
        shown["requestBody"] = _members(link.body)
    return shown


def _members(named: Mapping[str, str]) -> JsonObject:
    return {name: f"$response.body#/{member}" for name, member in named.items()}


def _many(content: JsonObject) -> JsonObject:
    """The content of a batch: an array of items, or NDJSON, whose schema is that of each line."""
    item = content[_JSON]["schema"]
    return {_JSON: {"schema": {"type": "array", "items": item}}, _NDJSON: {"schema": item}}


def _slugs_by_status(route: Route) -> dict[int, list[str]]:
    with_token = _WITH_TOKEN if route.scopes else ()
    by_status: dict[int, list[str]] = {}
    for slug in dict.fromkeys([*with_token, *route.problems, *_EVERYWHERE]):
        by_status.setdefault(PROBLEMS[slug].status, []).append(slug)
    return by_status


def _problems(slugs: list[str], schema: JsonObject) -> JsonObject:
    """The answer of one status: which problems it may be stands in the schema's `type`."""
    types = [f"/problems/{slug}" for slug in slugs]
    return {
        "description": " ".join(f"{PROBLEMS[slug].title}." for slug in slugs),
        "headers": _header_refs(*dict.fromkeys(_PROBLEM_HEADERS[s] for s in slugs if s in _PROBLEM_HEADERS)),
        "content": {CONTENT_TYPE: {"schema": {**schema, "properties": {"type": {"enum": types}}}}},
    }


def _public_name(name: str) -> str:
    return name.removesuffix("Shown")


def _published(schema: Any) -> Any:
    """The schema as the document shows it: names without our suffix, patterns as JavaScript spells them."""
    if isinstance(schema, list):
        return [_published(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    shown = {key: _published(value) for key, value in schema.items()}
    if isinstance(reference := shown.get("$ref"), str):
        shown["$ref"] = _public_name(reference)
    if isinstance(title := shown.get("title"), str):
        shown["title"] = _public_name(title)
    if isinstance(pattern := shown.get("pattern"), str) and pattern.endswith(r"\Z"):
        shown["pattern"] = f"{pattern[:-2]}$"
    return shown

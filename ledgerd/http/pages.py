"""The pages for people: the API page and a page for each problem, rendered once at the start.

What holds: plain HTML that works with no internet and no JavaScript; whatever comes from a table is escaped;
the inline style is all that a browser may apply, by its hash. Used by application.py.
"""

from __future__ import annotations

import base64
import hashlib
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ledgerd.http.examples import Example, examples_of
from ledgerd.http.openapi import JsonObject
from ledgerd.http.problems import CONTENT_TYPE, PROBLEMS, problem_bytes

_STYLE: Final = (files("ledgerd.http") / "templates" / "style.css").read_text(encoding="utf-8")
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HTML_HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_AFTER_A_WAIT: Final = (
    "Yes, after a wait",
    "Nothing was done. Wait as `Retry-After` says, then send the same.",
)
_NOT_UNCHANGED: Final = ("Not unchanged", "Nothing was done, and the same request would be refused again.")
_UNKNOWN: Final = (
    "Yes, the same",
    "The outcome is unknown. Send the same `transaction_id` or `Idempotency-Key` again: it counts once.",
)
_RETRY: Final[dict[str | int, tuple[str, str]]] = {  # by slug, else by status
    "score-pending": _AFTER_A_WAIT,
    "bad-credentials": ("No", "Nothing was done. Log in with the right credentials."),
    "unauthorized": ("Yes, with a new token", "Nothing was done. Refresh or log in, then send the same."),
    408: ("Yes", "Nothing was done: the request had not come whole. Send it on a new connection."),
    429: _AFTER_A_WAIT,
    500: _UNKNOWN,
    503: _AFTER_A_WAIT,
}


def _code(text: str) -> Markup:
    """Escape the text, and show what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


_pages: Final = Environment(
    loader=PackageLoader("ledgerd.http"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.filters["code"] = _code
_pages.globals["style"] = Markup(_STYLE)  # noqa: S704 - our own file


def _render(template: str, **values: Any) -> bytes:
    return _pages.get_template(template).render(values).encode()


# Problems ----------------------------------------------------------------------------------------


def problems_page() -> bytes:
    """Return the list of all problems as HTML."""
    return _render("problems.html", problems=[_problem(slug) for slug in PROBLEMS])


def problem_page(slug: str) -> bytes:
    """Return the page of one problem as HTML."""
    return _render("problem.html", problem=_problem(slug))


def _problem(slug: str) -> JsonObject:
    kind = PROBLEMS[slug]
    retry_short, retry = _RETRY.get(slug) or _RETRY.get(kind.status) or _NOT_UNCHANGED
    return {
        "slug": slug,
        "status": kind.status,
        "phrase": HTTPStatus(kind.status).phrase,
        "title": kind.title,
        "advice": kind.advice,
        "retry_short": retry_short,
        "retry": retry,
        "example": msgspec.json.format(problem_bytes(slug, "What went wrong this time.")).decode(),
    }


# The API page ------------------------------------------------------------------------------------


def docs_page(document: JsonObject) -> bytes:
    """Return an OpenAPI document of ours as HTML."""
    components = document["components"]
    operations = [
        _operation(method, path, operation, components)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = [
        {**tag, "operations": [one for one in operations if one["tag"] == tag["name"]]}
        for tag in document["tags"]
    ]
    schemas = [
        {
            "name": name,
            "description": schema.get("description", ""),
            "fields": _fields(schema),
            "type": _type(schema),
        }
        for name, schema in components["schemas"].items()
    ]
    security = components["securitySchemes"]["bearer"]
    return _render("docs.html", info=document["info"], tags=tags, schemas=schemas, security=security)


def _operation(method: str, path: str, operation: JsonObject, components: JsonObject) -> JsonObject:
    return {
        "id": operation["operationId"],
        "tag": operation["tags"][0],
        "method": method.upper(),
        "path": path,
        "summary": operation["summary"],
        "description": operation.get("description", ""),
        "scopes": [scope for one in operation["security"] for scope in one["bearer"]],
        "parameters": [
            {
                "name": parameter["name"],
                "place": parameter["in"],
                "required": parameter["required"],
                "type": _type(parameter["schema"]),
                "description": parameter["description"],
            }
            for parameter in operation["parameters"]
            if "$ref" not in parameter  # what every call takes stands in the guide
        ],
        "body": _body(operation["requestBody"], components) if "requestBody" in operation else None,
        "answers": [_answer(status, answer) for status, answer in operation["responses"].items()],
        "examples": [_example(method, one) for one in examples_of(operation["operationId"])],
    }


def _example(method: str, example: Example) -> JsonObject:
    """A call as one would type it, and what came."""
    lines = [f'curl "$LEDGERD{example.path}"']
    if method == "post" and example.body is None:
        lines.append("--request POST")
    if example.token:
        lines.append('--header "Authorization: Bearer $TOKEN"')
    lines += [f'--header "{name}: {value}"' for name, value in example.headers.items()]
    if example.body is not None:
        lines.append(f"--json '{msgspec.json.format(msgspec.json.encode(example.body), indent=2).decode()}'")
    answer = (
        b"" if example.answer is None else msgspec.json.format(msgspec.json.encode(example.answer), indent=2)
    )
    return {
        "title": example.title,
        "status": f"{example.status} {HTTPStatus(example.status).phrase}",
        "slug": example.slug,
        "call": " \\\n  ".join(lines),
        "answer": answer.decode(),
    }


def _body(body: JsonObject, components: JsonObject) -> JsonObject:
    schema = next(iter(body["content"].values()))["schema"]
    return {
        "required": body["required"],
        "media_types": list(body["content"]),
        "type": _type(schema),
        "fields": _fields(_resolved(schema, components)),
    }


def _answer(status: str, answer: JsonObject) -> JsonObject:
    content = answer.get("content", {})
    problems = content.get(CONTENT_TYPE, {}).get("schema", {}).get("properties", {}).get("type", {})
    return {
        "status": status,
        "description": answer["description"],
        "headers": [name for name in answer["headers"] if name != "X-Request-ID"],  # every answer has that
        "problems": [kind.rpartition("/")[2] for kind in problems.get("enum", ())],
        "types": [
            {"media_type": media_type, "type": _type(one["schema"])}
            for media_type, one in content.items()
            if media_type != CONTENT_TYPE
        ],
    }


def _resolved(thing: JsonObject, components: JsonObject) -> JsonObject:
    if "$ref" not in thing:
        return thing
    _, _, kind, name = thing["$ref"].split("/")
    resolved: JsonObject = components[kind][name]
    return resolved


def _fields(schema: JsonObject) -> list[JsonObject]:
    required = schema.get("required", ())
    return [
        {
            "name": name,
            "required": name in required,
            "type": _type(field),
            "description": _description(field),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _description(field: JsonObject) -> str:
    """What the field says about itself, also when it may be null."""
    own = field.get("description")
    others = [one["description"] for one in field.get("anyOf", ()) if "description" in one]
    text: str = own if own is not None else " ".join(others)
    examples = field.get("examples") or [
        example for one in field.get("anyOf", ()) for example in one.get("examples", ())
    ]
    return f"{text} Such as `{examples[0]}`." if examples else text


def _type(schema: JsonObject) -> list[JsonObject]:
    """The type in a few words: pieces of text, some of which link to a schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return [{"text": name, "anchor": f"schema-{name}"}]
    if "anyOf" in schema:
        return _joined([_type(one) for one in schema["anyOf"]])
    if "enum" in schema:
        return _joined([[_text(msgspec.json.encode(value).decode())] for value in schema["enum"]])
    kind = schema.get("type", "anything")
    if kind == "array":
        return [_text("list of "), *_type(schema.get("items", {}))]
    bounds = {"minimum": "from {}", "maximum": "to {}", "maxLength": "of at most {} characters"}
    limits = [text.format(schema[key]) for key, text in bounds.items() if key in schema]
    default = f", {schema['default']} if left out" if "default" in schema else ""
    return [_text(" ".join([str(schema.get("format", kind)), *limits]) + default)]


def _joined(alternatives: list[list[JsonObject]]) -> list[JsonObject]:
    pieces = alternatives[0]
    for alternative in alternatives[1:]:
        pieces = [*pieces, _text(" or "), *alternative]
    return pieces


def _text(text: str) -> JsonObject:
    return {"text": text, "anchor": None}

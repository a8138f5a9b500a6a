"""From a form's text to a body of the API, and from its refusal to words beside the form.

The text of a field goes through the same rules as a body's, so that a form takes what the API takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from ledgerd.http.bodies import decode_json
from ledgerd.http.problems import Problem

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a form was not taken: words for the whole of it, and for each field that is not right."""

    text: str
    fields: Mapping[str, str] = field(default_factory=dict)
    status: int = 422


NOT_REFUSED: Final = Refused("")


def body_of(kind: type[T], **fields: Any) -> T:
    """Return a body of the API with these fields; raises the Problem that it would answer."""
    return decode_json(msgspec.json.Decoder(kind), msgspec.json.encode(fields), ())


def refused(problem: Problem) -> Refused:
    """Say a problem beside a form. One that has nothing to do with what was filled in is raised again."""
    if problem.status >= 500:
        raise problem
    errors = {error["path"].lstrip("$."): error["message"] for error in problem.extras.get("errors", ())}
    return Refused(problem.detail, errors, problem.status)

"""The examples of the document: calls of one borrower's life, and what was answered.

They lie in a file beside this one, which a walk over the real service makes (`make openapi`)
and a test holds to it. Used by openapi.py and pages.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

FILE: Final = Path(__file__).with_name("examples.json")


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call and its answer; both as JSON, None where there is none."""

    operation: str
    title: str
    path: str
    status: int
    token: str = ""  # the scope of the one that was sent
    headers: dict[str, str] = {}
    body: Any = None
    answer: Any = None

    @property
    def slug(self) -> str:
        """The problem's name; "" when the answer is none."""
        return self.answer["type"].rpartition("/")[2] if self.status >= 400 else ""


EXAMPLES: Final = msgspec.json.decode(FILE.read_bytes(), type=tuple[Example, ...])


def examples_of(operation: str) -> list[Example]:
    """Return an operation's examples: what goes well first."""
    return [example for example in EXAMPLES if example.operation == operation]

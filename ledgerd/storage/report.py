"""What `ledgerd verify` looked at and what differs; storage/verify.py fills it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

DIFFERENCES_SHOWN_MAX = 100


@dataclass(slots=True)
class Report:
    """What was looked at, and what differs."""

    events: int = 0
    loans: int = 0
    bills: int = 0
    payments: int = 0
    scores: int = 0
    found: int = 0
    differences: list[str] = field(default_factory=list)

    def differ(self, what: str) -> None:
        """Note a difference, as one line; beyond the first hundred they are only counted."""
        self.found += 1
        if self.found <= DIFFERENCES_SHOWN_MAX:
            # SQLite says some things on several lines, and garbled names may hold anything.
            line = "; ".join(what.splitlines())
            self.differences.append("".join(each if each.isprintable() else "?" for each in line))

    def summary(self) -> dict[str, Any]:
        """Return the counts, for people and scripts."""
        return {
            "status": "differs" if self.found else "verified",
            "events": self.events,
            "loans": self.loans,
            "bills": self.bills,
            "payments": self.payments,
            "scores": self.scores,
            "differences": self.found,
        }

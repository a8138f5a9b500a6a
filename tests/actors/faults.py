"""Faults of one line each, to see that the laws notice them: `plant` puts one into the running code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from ledgerd.actors import committer, loan_actor, registry
from ledgerd.storage import journal


@dataclass(frozen=True)
class Fault:
    """`right` stands once in the module's source; `wrong` takes its place."""

    name: str
    module: ModuleType
    right: str
    wrong: str

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


ANSWERING = (
    Fault(
        "answers past what is not durable",
        loan_actor,
        "while pending and pending[0].durable",
        "while pending",
    ),
    Fault(
        "accepts before it is durable",
        loan_actor,
        "Accepted(self.loan_id, events[-1], len(events)), durable=False)",
        "Accepted(self.loan_id, events[-1], len(events)), durable=True)",
    ),
    Fault(
        "a replay overtakes its owner",
        loan_actor,
        "self._wait(Pending(self, message, known, durable=True))",
        "self._registry.answer(message, known)",
    ),
    Fault(
        "a view overtakes what it shows",
        loan_actor,
        "self._wait(Pending(self, message, self._view(message, today), durable=True))",
        "self._registry.answer(message, self._view(message, today))",
    ),
    Fault("anybody may look", loan_actor, "not in (None, loan.borrower_id)", "in ()"),
    Fault(
        "a view is a day late",
        loan_actor,
        "max(today, loan.accrued_through)",
        "max(today, loan.accrued_through) + 1",
    ),
)

DUPLICATES = (
    Fault(
        "refusals don't ask for duplicates",
        loan_actor,
        'asks = key is not None and outcome.code != "loan-not-found"',
        "asks = False",
    ),
    Fault(
        "a refusal that is a retry stays one",
        loan_actor,
        "pending.answer = self._answer_owned(pending.message.command, owner)",
        "pass",
    ),
    Fault(
        "joins by the key alone",
        loan_actor,
        "if repeats(command, self.loan_id, owner_loan_id, event):",
        "if True:",
    ),
    Fault(
        "one caller's id is another's",
        loan_actor,
        "key = command.once_key\n",
        "key = command.once_key and command.once_key[-2:]\n",
    ),
    Fault("knows nothing in flight", loan_actor, "self._in_flight[key] = pending", "pass"),
    Fault("a taken key counts again", journal, "if owner is not None:", "if False:"),
    Fault(
        "looks only in memory", journal, 'candidates(connection, [*hashes.values()], schema="tables")', "()"
    ),
)

FALLING_BACK = (
    Fault(
        "taken is taken for appended",
        committer,
        "pending.actor.taken(pending, verdict.owner)",
        "pending.durable = True",
    ),
    Fault(
        "falls back to nowhere",
        loan_actor,
        "self.loan, self.version, self.head_hash = pending.before",
        "pass",
    ),
    Fault(
        "forgets what it decides again",
        loan_actor,
        "self.receive(again.pop())\n",
        "self.receive(again.pop()); again.clear()\n",
    ),
    Fault(
        "decides again in the wrong order",
        loan_actor,
        "self.receive(again.pop())\n",
        "self.receive(again.pop(0))\n",
    ),
    Fault(
        "what fell back still counts as in flight",
        loan_actor,
        "                del self._in_flight[each.key]",
        "                pass",
    ),
    Fault("goes on while it is broken", loan_actor, "while again and not self.broken:", "while again:"),
    Fault("drops what waits behind a bug", loan_actor, "self.mailbox[:0] = reversed(again)", "pass"),
    Fault("stale entries are appended", journal, "if entry.base_version != resume_at:", "if False:"),
    Fault("never takes up again", journal, "del self._resume_at[entry.loan_id]", "pass"),
    Fault(
        "nobody looks after who fell back",
        committer,
        "[pending.actor for pending in batch]",
        "[pending.actor for pending in batch if not pending.dead]",
    ),
)

COMING_AND_GOING = (
    Fault("evicts the busy", registry, "            if actor.idle:", "            if not actor.mailbox:"),
    Fault(
        "evicts what is being read",
        registry,
        "            if actor.idle:",
        "            if not actor.pending:",
    ),
    Fault("sweeps out the busy", registry, "or not actor.idle:", ":"),
    Fault(
        "reads a broken one twice", registry, "if actor.loaded:  # else it is being read already", "if True:"
    ),
    Fault("never reads a broken one again", registry, "if actor.broken:\n", "if False:\n"),
    Fault("stops in the middle of a mailbox", registry, "self._loop.call_soon(self._drain, actor)", "pass"),
    Fault("overtakes the mailbox", registry, "not actor.broken and not actor.mailbox:", "not actor.broken:"),
    Fault(
        "keeps loans that don't exist", registry, "(actor.transient or actor.loan is None)", "actor.transient"
    ),
    Fault(
        "a failed load answers nobody",
        registry,
        "actor.lose(f\"the loan can't be read",
        "str(f\"the loan can't be read",
    ),
    Fault(
        "a broken journal answers nobody",
        registry,
        "actor.lose(reason)\n        self._on_broken(error)",
        "pass\n        self._on_broken(error)",
    ),
    Fault(
        "goes on with a broken journal",
        committer,
        "self.broken = True\n            self._on_broken(error)",
        "pass\n            self._on_broken(error)",
    ),
    Fault("never hears that projections caught up", registry, "self.committer.catch_up()", "pass"),
    Fault("puts the key on every event", loan_actor, "key if version == last else None", "key"),
)

FAULTS = (*ANSWERING, *DUPLICATES, *FALLING_BACK, *COMING_AND_GOING)


def plant(fault: Fault, patch: pytest.MonkeyPatch) -> None:
    """Give the module's functions the code of its source with the fault in it, until `patch` is undone."""
    assert fault.module.__file__ is not None
    source = Path(fault.module.__file__).read_text(encoding="utf-8")
    assert source.count(fault.right) == 1, f"{fault.module.__name__} has changed: write the fault anew"
    faulty: dict[str, object] = {"__name__": fault.module.__name__}
    exec(compile(source.replace(fault.right, fault.wrong), fault.module.__file__, "exec"), faulty)
    planted = 0
    for owner_name, owner in vars(fault.module).items():
        if not isinstance(owner, type) or owner.__module__ != fault.module.__name__:
            continue
        for name, function in vars(owner).items():
            other = vars(faulty[owner_name]).get(name)
            if not isinstance(function, FunctionType) or not isinstance(other, FunctionType):
                continue
            if function.__code__ != other.__code__:
                patch.setattr(function, "__code__", other.__code__)
                planted += 1
    assert planted == 1

"""Faults that would lose or double money in a crash: each is planted in the running code, and some life must
notice. Those that show without a crash are in `tests.actors.faults`.
"""

from __future__ import annotations

from ledgerd import clock
from ledgerd.actors import committer, loan_actor, registry
from ledgerd.storage import engine, journal, once, tail
from tests.actors.faults import Fault

FAULTS = (
    Fault(
        "a start forgets what was not projected",
        journal,
        "events_after(connection, projected_seq)",
        "events_after(connection, self.head_seq)",
    ),
    Fault(
        "a start forgets the keys that were not indexed",
        journal,
        "keys_after(connection, indexed_seq)",
        "keys_after(connection, self.head_seq)",
    ),
    Fault(
        "the index says that it has what it is only about to have",
        once,
        "None if old.buckets else max(old.seqs.values())",
        "max(old.seqs.values())",
    ),
    Fault(
        "keys are forgotten before they are indexed",
        engine,
        "if watermark is not None:\n            self._keys.drop()",
        "if True:\n            self._keys.drop()",
    ),
    Fault("a payment of a moment ago is not found", engine, "self._keys.seq_of(once_key)", "None"),
    Fault(
        "a busy loan is forgotten",
        registry,
        "if actor.idle:\n                del",
        "if True:\n                del",
    ),
    Fault(
        "answers go out while the batch is on its way",
        loan_actor,
        "Accepted(self.loan_id, events[-1], len(events)), durable=False)",
        "Accepted(self.loan_id, events[-1], len(events)), durable=True)",
    ),
    Fault(
        "a batch that failed counts as written",
        committer,
        "self._break(error)\n        self._send_soon()",
        "self.acknowledge([each for each, _ in batch], AppendReply(0, 0, ()))\n        self._send_soon()",
    ),
    Fault("loans that a full disk left behind are not read again", registry, "if each.is_ahead]:", "if 0]:"),
    Fault("a full disk ends the projector's work", engine, "await asyncio.sleep(FULL_PAUSE_S)", "return 0"),
    Fault("the date goes back with the wall's clock", clock, "max(self._day, datetime", "max(0, datetime"),
    Fault("readers see half of a turn", tail, "return [*older, *newer]", "return [*newer]"),
)

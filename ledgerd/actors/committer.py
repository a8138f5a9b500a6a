"""The committer: gathers the entries of all actors and appends them in batches.

No timer: while batches are on their way to disk the next one grows, so batches are as large as the disk is
slow. A batch goes when a turn of the loop has brought nothing more to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ledgerd.actors.loan_actor import Pending
from ledgerd.observe import Metrics
from ledgerd.storage.ports import AppendReply, Entry, Opened, Store

BATCHES_IN_FLIGHT = 2
BATCH_ENTRIES_MAX = 2_000
GATHER_TURNS_MAX = 8


class Committer:
    """Sends entries to the store in the order they were put, and acknowledges them by identity."""

    def __init__(
        self, store: Store, opened: Opened, metrics: Metrics, on_broken: Callable[[BaseException], None]
    ) -> None:
        self._store = store
        self._epoch = opened.epoch
        self._metrics = metrics
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._queue: list[tuple[Pending, Entry]] = []
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._catching_up: asyncio.Task[None] | None = None
        self.broken = False
        self.head_seq = opened.head_seq
        self.projected_seq = opened.projected_seq

    @property
    def lag_events(self) -> int:
        """How many events are durable and not yet in the tables, by the store's last word."""
        return self.head_seq - self.projected_seq

    def put(self, pending: Pending, entry: Entry) -> None:
        """Queue an entry; what is put in one turn of the loop goes in one batch."""
        self._queue.append((pending, entry))
        self._gather()

    def _gather(self) -> None:
        if self._queue and not self._scheduled and len(self._tasks) < BATCHES_IN_FLIGHT:
            self._scheduled = True
            self._loop.call_soon(self._flush, 0, 1)

    def _flush(self, seen: int, turn: int) -> None:
        """Send the queue once a turn of the loop has brought nothing more to it."""
        if seen < len(self._queue) < BATCH_ENTRIES_MAX and turn < GATHER_TURNS_MAX:
            self._loop.call_soon(self._flush, len(self._queue), turn + 1)
            return
        self._scheduled = False
        if self._queue and not self.broken and len(self._tasks) < BATCHES_IN_FLIGHT:
            batch, self._queue = self._queue[:BATCH_ENTRIES_MAX], self._queue[BATCH_ENTRIES_MAX:]
            task = self._loop.create_task(self._commit(batch))
            self._tasks.add(task)

    async def _commit(self, batch: list[tuple[Pending, Entry]]) -> None:
        started_s = self._loop.time()
        task = asyncio.current_task()
        assert task is not None
        try:
            reply = await self._store.append(self._epoch, [entry for _, entry in batch])
            if not self.broken:
                self._metrics.commits_total.inc()
                self._metrics.commit_seconds.observe(self._loop.time() - started_s)
                self.acknowledge([pending for pending, _ in batch], reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known of the batch
            self._break(error)
        finally:
            self._tasks.discard(task)
        self._gather()

    def _break(self, error: Exception) -> None:
        """Send nothing more: every actor is ahead of the disk now, and the service stops."""
        if not self.broken:
            self.broken = True
            self._on_broken(error)

    def catch_up(self) -> None:
        """Have the tables follow the journal, and hear how far they are: replies to appends say it, but
        while the lag refuses every message there are none.
        """
        if self._catching_up is None and not self.broken:
            self._catching_up = self._loop.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            projected_seq = await self._store.project_through(self.head_seq - self.lag_events // 2)
            self.projected_seq = max(self.projected_seq, projected_seq)
        except Exception as error:  # noqa: BLE001 - without projections the service can't go on
            self._break(error)
        finally:
            self._catching_up = None

    def acknowledge(self, batch: list[Pending], reply: AppendReply) -> None:
        """Tell the actors what became of their entries: first every owner that the store named, then
        fallbacks, then the rest.
        """
        self._metrics.committed_events_total.inc(max(0, reply.head_seq - self.head_seq))
        self.head_seq = max(self.head_seq, reply.head_seq)
        self.projected_seq = max(self.projected_seq, reply.projected_seq)
        excepted = {verdict.index for verdict in reply.exceptions}
        for verdict in reply.exceptions:
            if verdict.owner is not None:
                batch[verdict.index].actor.learn(verdict.owner)
        for verdict in reply.exceptions:
            pending = batch[verdict.index]
            if verdict.outcome == "taken" and not pending.dead:
                assert verdict.owner is not None
                pending.actor.taken(pending, verdict.owner)
        for index, pending in enumerate(batch):
            if index not in excepted:
                assert not pending.dead, "what was decided again was not written"
                pending.durable = True
        for actor in dict.fromkeys([pending.actor for pending in batch]):
            actor.settle()

"""The committer: gathers the entries of all actors and appends them in batches.

No timer: while batches are on their way to disk the next one grows, so batches are as large as the disk is
slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ledgerd.actors.loan_actor import Pending
from ledgerd.metrics import Metrics
from ledgerd.storage.ports import AppendReply, BatchLost, Entry, Opened, Store

BATCHES_IN_FLIGHT = 2
BATCH_ENTRIES_MAX = 2_000
BATCH_ENTRIES_EARLY = 16  # fewer wait for the end of the turn


class Committer:
    """Sends entries to the store in the order they were put, and acknowledges them by identity."""

    def __init__(
        self,
        store: Store,
        opened: Opened,
        metrics: Metrics,
        on_broken: Callable[[BaseException], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._store = store
        self._epoch = opened.epoch
        self._metrics = metrics
        self._on_broken = on_broken
        self._on_lost = on_lost  # a batch: whoever waits for something durable waits in vain
        self._loop = asyncio.get_running_loop()
        self._queue: list[tuple[Pending, Entry]] = []
        self._scheduled = False
        self._replies: set[asyncio.Future[AppendReply]] = set()  # to the batches that are on their way ..
        self._on_their_way = 0  # .. with so many entries
        self._catching_up: asyncio.Task[None] | None = None
        self.broken = False
        self.head_seq = opened.head_seq
        self.projected_seq = opened.projected_seq
        self.acknowledged_s = metrics.now_s()  # when the last batch was

    @property
    def lag_events(self) -> int:
        """How many events are durable and not yet in the tables, by the store's last word."""
        return self.head_seq - self.projected_seq

    @property
    def queued(self) -> int:
        """How many entries wait for a batch to go with."""
        return len(self._queue)

    @property
    def on_their_way(self) -> int:
        """How many entries the batches have that are on their way to disk."""
        return self._on_their_way

    def put(self, pending: Pending, entry: Entry) -> None:
        """Queue an entry. A batch goes at the end of a turn of the loop, or at once when it is as large as
        what is on its way, so that the disk works while the next messages are decided.
        """
        self._queue.append((pending, entry))
        if len(self._queue) >= self._on_their_way and len(self._queue) >= BATCH_ENTRIES_EARLY:
            self._send()
        else:
            self._send_soon()

    def _send_soon(self) -> None:
        if self._queue and not self._scheduled and len(self._replies) < BATCHES_IN_FLIGHT:
            self._scheduled = True
            self._loop.call_soon(self._end_of_turn)

    def _end_of_turn(self) -> None:
        self._scheduled = False
        self._send()

    def _send(self) -> None:
        if not self._queue or self.broken or len(self._replies) >= BATCHES_IN_FLIGHT:
            return
        batch, self._queue = self._queue[:BATCH_ENTRIES_MAX], self._queue[BATCH_ENTRIES_MAX:]
        try:
            awaited = self._store.append(self._epoch, [entry for _, entry in batch])
            reply = asyncio.ensure_future(awaited)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is known of the batch
            self.broken = True
            self._loop.call_soon(self._on_broken, error)  # an actor may be in the middle of deciding
            return
        self._replies.add(reply)
        self._on_their_way += len(batch)
        reply.add_done_callback(partial(self._on_reply, self._epoch, batch, self._metrics.now_s()))

    def _on_reply(
        self,
        epoch: int,
        batch: list[tuple[Pending, Entry]],
        started_s: float,
        reply: asyncio.Future[AppendReply],
    ) -> None:
        self._replies.discard(reply)
        self._on_their_way -= len(batch)
        if epoch != self._epoch:  # lost with the batch before it: refused, and its actors were read again
            reply.exception()
            self._send_soon()
            return
        try:
            appended = reply.result()
            if not self.broken:
                self.acknowledged_s = self._metrics.observe_commit(started_s, len(batch))
                self.acknowledge([pending for pending, _ in batch], appended)
        except BatchLost as lost:
            self._epoch = lost.epoch
            self._queue.clear()
            self._on_lost(str(lost))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - likewise
            self._break(error)
        self._send_soon()

    def _break(self, error: BaseException) -> None:
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
            self.hear_projected(await self._store.project_through(self.head_seq - self.lag_events // 2))
        except Exception as error:  # noqa: BLE001 - without projections the service can't go on
            self._break(error)
        finally:
            self._catching_up = None

    def hear_projected(self, seq: int) -> None:
        """Hear from the store how far the tables are."""
        self.projected_seq = max(self.projected_seq, seq)

    def acknowledge(self, batch: list[Pending], reply: AppendReply) -> None:
        """Tell the actors what became of their entries: first every owner that the store named, then
        fallbacks, then the rest.
        """
        self._metrics.committed_events_total.inc(max(0, reply.head_seq - self.head_seq))
        self.head_seq = max(self.head_seq, reply.head_seq)
        self.hear_projected(reply.projected_seq)
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

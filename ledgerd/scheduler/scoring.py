"""Keeps the scores: imports the configured CSV when it has changed, and scores borrowers from what is stored.

What holds: one refresh at a time, whoever asks; no borrower gets a first score while an import runs; nothing
is read while nothing happens. An import that fails is logged and kept in `last_error`; who is pending is
scored all the same, from what is stored. Built by app.py; woken by registration, refreshed by the cron and by
the watch over the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ledgerd.domain.scoring import ScoreRules
from ledgerd.observe import log
from ledgerd.scheduler.importer import (
    Identities,
    ImportSummary,
    Progress,
    import_file,
)
from ledgerd.storage.ports import NamedStore

USERS_A_BATCH: Final = 500
TOUCHED_ROWS_A_PAGE: Final = 20_000
TOUCHED_USERS_MAX: Final = 50_000  # held in memory at once

FileStamp = tuple[int, int, int, int]


class Scoring:
    """The scores of one service. `rejects_bytes` bounds each rejects file, `time_s` gives Unix seconds.

    Without `csv_path` nothing is imported by itself.
    """

    def __init__(
        self,
        store: NamedStore,
        identities: Identities,
        rules: ScoreRules,
        csv_path: Path | None,
        rejects_bytes: int,
        time_s: Callable[[], float],
    ) -> None:
        self.last_error: str | None = None
        self._store = store
        self._rules = rules
        self._csv_path = csv_path
        self._identities = identities
        self._rejects_bytes = rejects_bytes
        self._time_s = time_s
        self._woken = asyncio.Event()
        self._scoring = asyncio.Lock()
        self._looked: FileStamp | None = None  # as the last refresh found the file, whatever came of it
        self._imported: FileStamp | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Refresh in the background, and score whoever registers from then on."""
        assert self._waking is None, "started once"
        self._begin_refresh()
        self._waking = asyncio.get_running_loop().create_task(self._score_when_woken())
        self._waking.add_done_callback(_tell_if_failed)

    def watch(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Look at the CSV after each `wait`, and refresh when it has changed.

        A file that is still being written is left until it stands still for one look; the cron takes it all
        the same.
        """
        if self._csv_path is not None:
            watching = self._watch(self._csv_path, wait)
            self._watching = asyncio.get_running_loop().create_task(watching)
            self._watching.add_done_callback(_tell_if_failed)

    async def close(self) -> None:
        """Stop; an import under way is cut off and goes on at the next start."""
        tasks = [task for task in (self._waking, self._watching, self._refreshing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """Say that somebody has registered."""
        self._woken.set()

    async def refresh(self) -> None:
        """Import the CSV if it is new or has changed, then score whom that touches and who is pending.

        Joins the refresh that is under way, if there is one. A caller who is cancelled cancels nothing.
        """
        await asyncio.shield(self._begin_refresh())

    async def import_now(self, path: Path, on_progress: Progress | None = None) -> ImportSummary:
        """Import another file, after what is under way, and score whom it touches; raises ImportFailed."""
        async with self._scoring:
            return await import_and_score(
                self._store,
                self._identities,
                self._rules,
                path,
                self._rejects_bytes,
                self._time_s,
                on_progress,
            )

    def _begin_refresh(self) -> asyncio.Task[None]:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
            self._refreshing.add_done_callback(_tell_if_failed)
        return self._refreshing

    async def _refresh(self) -> None:
        async with self._scoring:  # held through the import: nobody is scored from half of it
            if self._csv_path is not None:
                await self._import_if_changed(self._csv_path)
            await score_all(self._store, self._rules)

    async def _watch(self, path: Path, wait: Callable[[], Awaitable[object]]) -> None:
        before: FileStamp | None = None
        while True:
            await wait()
            stamp: FileStamp | None = None
            with suppress(OSError):  # the refresh says so when a file is missing
                stamp = await asyncio.to_thread(_stamp, path)
            if stamp is not None and stamp == before and stamp != self._looked:
                with suppress(Exception):  # the refresh has told it; the next look is taken all the same
                    await self.refresh()
            before = stamp

    async def _import_if_changed(self, path: Path) -> None:
        self._looked = None
        try:
            stamp = self._looked = await asyncio.to_thread(_stamp, path)
            if stamp == self._imported:
                return
            summary = await import_file(
                self._store, self._identities, path, self._rejects_bytes, self._time_s
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, who is pending is scored all the same
            reason = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            if reason != self.last_error:  # a file that stays away is told once
                log.warning("transactions_not_imported", reason=reason)
            self.last_error = reason
            return
        self._imported = stamp
        self.last_error = None
        if summary.is_new:
            log.info(
                "transactions_imported",
                file=summary.path,
                rows_imported=summary.rows_imported,
                rows_rejected=summary.rows_rejected,
                rejects_file=summary.rejects_path,
                rejects_left_out=summary.rejects_left_out,
            )

    async def _score_when_woken(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                async with self._scoring:
                    await score_pending(self._store, self._rules)
            except Exception as error:  # noqa: BLE001 - the next who registers is scored all the same
                log.error("scoring_failed", error=f"{type(error).__name__}: {error}")


async def import_and_score(
    store: NamedStore,
    identities: Identities,
    rules: ScoreRules,
    path: Path,
    rejects_bytes: int,
    time_s: Callable[[], float],
    on_progress: Progress | None = None,
) -> ImportSummary:
    """Import one file, then score whom it touches and who is pending; raises ImportFailed."""
    summary = await import_file(store, identities, path, rejects_bytes, time_s, on_progress)
    await score_all(store, rules)
    return summary


async def score_all(store: NamedStore, rules: ScoreRules) -> None:
    """Score whoever is pending, and again whoever has new transactions."""
    await score_pending(store, rules)
    await score_touched(store, rules)


async def score_pending(store: NamedStore, rules: ScoreRules) -> None:
    """Score every borrower who has no score yet."""
    after = -1
    while user_ids := await store.read("pending_users", after, USERS_A_BATCH):
        await _score(store, rules, user_ids)
        after = user_ids[-1]


async def score_touched(store: NamedStore, rules: ScoreRules) -> None:
    """Score again every borrower with transactions that came after the last time; goes on where a kill cut it
    off.
    """
    page = await store.read("touched_users", None, TOUCHED_ROWS_A_PAGE)
    start, touched = page["after"], set(page["user_ids"])
    while page["after"] < page["through"]:
        page = await store.read("touched_users", page["through"], TOUCHED_ROWS_A_PAGE)
        touched.update(page["user_ids"])
        if len(touched) >= TOUCHED_USERS_MAX or page["after"] == page["through"]:
            await _score(store, rules, sorted(touched))
            await store.write("set_scored_through", start, page["through"])
            start, touched = page["through"], set()


async def _score(store: NamedStore, rules: ScoreRules, user_ids: list[int]) -> None:
    for start in range(0, len(user_ids), USERS_A_BATCH):
        await store.write(
            "score_users",
            user_ids[start : start + USERS_A_BATCH],
            rules.base_paise,
            rules.step_paise,
            rules.step_points,
            rules.min_score,
            rules.max_score,
        )


def _tell_if_failed(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("scoring_failed", error=f"{type(error).__name__}: {error}")


def _stamp(path: Path) -> FileStamp:
    """What changes whenever a file does."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

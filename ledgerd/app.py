"""The composition root: the only module that sees every part. It hands in what comes from chance: time, ids,
random bytes, the store.

`open_service` builds the running service without a listener; server.py puts a listener, signals and the
control socket around it, and the command line uses it for commands on a database that nobody serves. `build`
is the same for other programs, which embed it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ledgerd.actors.registry import ActorLimits, Registry
from ledgerd.clock import Clock, SandboxClock, SystemClock
from ledgerd.config import Config
from ledgerd.domain.calendar import format_day
from ledgerd.domain.eligibility import LendingRules
from ledgerd.domain.scoring import ScoreRules
from ledgerd.http.accounts import Accounts
from ledgerd.http.addresses import TrustedProxies
from ledgerd.http.application import build_application, request_id_chooser
from ledgerd.http.console.sessions import Sessions
from ledgerd.http.keyring import Keyring, load_or_create_keyring
from ledgerd.http.passwords import Passwords
from ledgerd.http.services import Services
from ledgerd.http.throttle import Throttle
from ledgerd.http.tokens import Revocations, Tokens
from ledgerd.ids import Ids
from ledgerd.metrics import Metrics
from ledgerd.observe import AccessLog, log
from ledgerd.scheduler.billing import Billing
from ledgerd.scheduler.cron import Alarm
from ledgerd.scheduler.importer import Identities, ImportSummary, Progress
from ledgerd.scheduler.scoring import Scoring
from ledgerd.storage.engine import Engine
from ledgerd.storage.files import open_memory
from ledgerd.storage.ports import StoreError
from ledgerd.storage.remote import RemoteStore
from ledgerd.storage.room import LOOK_S, Reserved, Room, free_bytes
from ledgerd.storage.runs import check_clock
from ledgerd.storage.vault import Vault, load_or_create_vault_keys

T = TypeVar("T")


class Chance:
    """Where time and randomness come from, and how much room there is."""

    def __init__(
        self,
        time_s: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        random_bits: Callable[[int], int] | None = None,
        free_bytes: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.time_s = time_s
        self.random_bytes = random_bytes  # for secrets
        self.free_bytes = free_bytes  # of a folder's disk
        # For ids, which only have to differ.
        self.random_bits = random_bits or random.Random(random_bytes(32)).getrandbits  # noqa: S311


class Service:
    """Everything that runs, but for the listener. `broken` is set when nothing can be made durable any more:
    stop then.
    """

    def __init__(
        self,
        config: Config,
        chance: Chance,
        clock: Clock | None = None,
        storage: RemoteStore | Engine | None = None,
    ) -> None:
        self.config = config
        self.chance = chance
        self.given_clock = clock  # in the place of the one that the configuration asks for
        self.given_storage = storage
        self.choose_request_id = request_id_chooser(chance.random_bits)
        self.broken = asyncio.Event()
        self.store: RemoteStore | Engine
        self.services: Services
        self.registry: Registry
        self.billing: Billing
        self.scoring: Scoring
        self.alarms: dict[str, Alarm] = {}
        self.stack = AsyncExitStack()
        self._jobs: set[asyncio.Task[Any]] = set()

    def application(self, access: AccessLog | None = None) -> web.Application:
        """Return the HTTP application of this service."""
        return build_application(self.services, access or AccessLog(None), self.choose_request_id)

    def break_down(self, error: BaseException | None = None) -> None:
        """The store is gone, or can't commit: answer nothing more, and have the process stopped."""
        if not self.broken.is_set():
            self.broken.set()
            log.error("the store has ended: stopping", error=str(error) if error else "")

    async def drain(self) -> None:
        """Refuse new work, cut billing off, and wait until every message is answered."""
        self.services.drain()
        await self.billing.close()
        if not self.broken.is_set():
            await self.registry.drain()

    async def close(self) -> None:
        """Close everything, in the opposite order of opening."""
        await self.stack.aclose()

    async def import_transactions(self, path: Path, progress: Progress) -> ImportSummary:
        """Import a CSV of bank history, then score whom it touches; raises ImportFailed."""
        return await self.scoring.import_now(path, progress)

    def start_jobs(self) -> None:
        """Set the alarms, and look for what was missed while nobody ran. A sandbox's date moves by hand, so
        that only a day that was cut off can be missing.
        """
        config = self.config
        start_day = config.clock.sandbox_start_day
        if start_day is None:
            self._set_alarm("billing", config.scheduler.billing_cron, self.billing.tonight)
        self._set_alarm("scoring", config.scheduler.scoring_cron, self.scoring.refresh)
        self.begin(self.billing.catch_up(start_day or 0))
        self._watch = asyncio.get_running_loop().create_task(self._watch_room())
        self.stack.callback(self._watch.cancel)
        self.scoring.watch(lambda: asyncio.sleep(config.scoring.watch_s))

    async def _watch_room(self) -> None:
        """Look at the disk, tell when it gets full, and go on with what was refused when it no longer is.
        Look at the date too: a day begins with the first look after midnight, whoever calls.
        """
        room = self.registry.room
        while True:
            self.services.clock.today()
            if room.look():
                self.hear_of_room()
            await asyncio.sleep(LOOK_S)

    def hear_of_room(self) -> None:
        """The disk has become full, or has room again."""
        room = self.registry.room
        figures = {"free_bytes": room.free_bytes, "reserve_bytes": room.reserve_bytes}
        if room.is_short:
            log.error("the disk is nearly full: what writes is refused until there is room", **figures)
        else:
            log.info("the disk has room again", **figures)
            self.begin(self.billing.catch_up(self.config.clock.sandbox_start_day or 0))

    def _set_alarm(self, name: str, line: str, work: Callable[[], Awaitable[object]]) -> None:
        alarm = Alarm(name, line, self.config.clock.zone, work, self.chance.time_s)
        self.stack.push_async_callback(alarm.close)
        self.alarms[name] = alarm

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have something done in the background; an error is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._job_ended)
        return task

    async def end_jobs(self) -> None:
        """Wait until what was begun is done."""
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def _job_ended(self, task: asyncio.Task[Any]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.broken.is_set():
            log.error("background work failed", error=f"{type(error).__name__}: {error}")


@asynccontextmanager
async def build(
    config: Config,
    *,
    clock: Clock | None = None,
    storage: RemoteStore | Engine | None = None,
    chance: Chance | None = None,
) -> AsyncIterator[Service]:
    """Open a service in this program's event loop, with its nightly jobs, and close it at the end.

    `Service.application()` is its HTTP application for a runner of one's own; `Service.registry.ask` gives a
    loan a command without HTTP, and answers when that is durable. `clock` takes the place of the one that the
    configuration asks for: a SandboxClock makes a sandbox, whose date moves by `set` or over HTTP. `storage`
    takes the place of `[storage] url`: an engine of `files.open_memory` lives in memory and ends with the
    service, one of `files.open_engine` in this process. The service closes it.

    Raises StoreError or KeyFileError, one line each, when it can't be opened. Importing ledgerd does nothing
    but define things: no thread, no logging, no event loop policy is touched until this is called.
    """
    if isinstance(clock, SandboxClock):
        sandbox = msgspec.structs.replace(config.clock, sandbox_start=format_day(clock.today()))
        config = msgspec.structs.replace(config, clock=sandbox)
    service = Service(config, chance or Chance(), clock, storage)
    await _open(service, background=True)
    try:
        service.start_jobs()
        yield service
        await service.drain()
    finally:
        await service.close()


async def open_service(config: Config, chance: Chance | None = None, *, background: bool = True) -> Service:
    """Open the database and start everything but the listener; a single command needs no `background` work.
    Raises StoreError or KeyFileError, one line each.
    """
    service = Service(config, chance or Chance())
    await _open(service, background=background)
    return service


async def _open(service: Service, *, background: bool) -> None:
    try:
        await _compose(service, background=background)
    except BaseException:
        await service.close()
        raise


async def _compose(service: Service, *, background: bool) -> None:
    config, chance, stack = service.config, service.chance, service.stack
    kind = config.identity.kind
    keys = load_or_create_vault_keys(config.auth.keys_path, chance.random_bytes)
    vault = Vault(keys.encryption_keys, keys.current_key_id, keys.index_key, kind, chance.random_bytes)
    identities = Identities(kind, keys.index_key)
    keyring = load_or_create_keyring(config.auth.keys_path, chance.time_s(), chance.random_bytes)
    metrics = Metrics()
    service.store = store = await _open_store(service)
    if isinstance(store, RemoteStore):
        metrics.watch_store(store.pid)
    stack.push_async_callback(store.close)
    stack.push_async_callback(service.end_jobs)
    if "refused" in await store.write("bind_vault", vault.fingerprint):
        raise StoreError(
            f"{config.auth.keys_dir}: these are not the keys of this database:"
            " restore its keys, or name their folder in [auth] keys_dir"
        )
    clock = await _open_clock(service)
    await store.write("interrupt_runs", clock.now_ms())
    ids = Ids(chance.time_s, chance.random_bits)
    service.registry = registry = Registry(
        store, store.opened, clock, _actor_limits(config), metrics, service.break_down, _room(service)
    )
    stack.callback(registry.close)
    service.scoring = scoring = Scoring(
        Reserved(store, registry.room),
        identities,
        score_rules(config),
        config.scoring.transactions_path,
        config.scoring.rejects_bytes,
        chance.time_s,
    )
    await store.write("use_score_rules", *msgspec.structs.astuple(score_rules(config)))
    if background:
        await scoring.start()
    stack.push_async_callback(scoring.close)
    service.billing = Billing(
        store, registry, clock, ids, config.scheduler.billing_window, metrics, scoring.refresh
    )
    stack.push_async_callback(service.billing.close)
    tokens, accounts = await _open_accounts(service, vault, keyring, ids)
    lending = LendingRules(
        config.lending.min_credit_score,
        config.lending.min_annual_income_paise,
        config.lending.max_amount_paise,
    )
    service.services = Services(
        config=config,
        lending=lending,
        store=store,
        registry=registry,
        clock=clock,
        ids=ids,
        accounts=accounts,
        tokens=tokens,
        vault=vault,
        billing=service.billing,
        scorer=scoring,
        metrics=metrics,
        trusted_proxies=TrustedProxies(config.server.trusted_proxies),
        sessions=Sessions(config.console, service.chance.random_bytes, service.chance.time_s),
        ready=True,
    )


async def _open_accounts(
    service: Service, vault: Vault, keyring: Keyring, ids: Ids
) -> tuple[Tokens, Accounts]:
    auth, chance = service.config.auth, service.chance
    revocations = Revocations(chance.time_s)
    tokens = Tokens(
        keyring, auth.issuer, auth.audience, auth.access_ttl_s, auth.token_cache, chance.time_s, revocations
    )
    passwords = Passwords(auth.password_workers, chance.random_bytes)
    service.stack.callback(passwords.close)
    accounts = Accounts(
        service.store,
        vault,
        tokens,
        passwords,
        Throttle(auth.login_failures, chance.time_s),
        revocations,
        ids,
        chance.random_bytes,
        chance.time_s,
        auth,
    )
    await accounts.load_revocations()
    return tokens, accounts


async def _open_store(service: Service) -> RemoteStore | Engine:
    """Start the store process, or for `sqlite:///:memory:` open one in this process."""
    if service.given_storage is not None:
        return service.given_storage
    storage = service.config.storage
    if storage.tables_path is None or storage.journal_path is None or storage.lock_path is None:
        return await open_memory()
    return await RemoteStore.start(
        storage.tables_path,
        storage.journal_path,
        storage.lock_path,
        storage.projection_batch,
        storage.index_batch,
        service.break_down,
    )


async def _open_clock(service: Service) -> Clock:
    """Return the clock that the database belongs to. Its date goes on from where it stood."""
    config, store, time_s = service.config.clock, service.store, service.chance.time_s
    stored = await store.read("read_clock")
    sandbox = config.sandbox_start_day is not None
    check_clock(stored, sandbox=sandbox)
    kind, day = stored or (None, 0)
    clock: Clock
    if service.given_clock is not None:
        clock = service.given_clock
    elif config.sandbox_start_day is not None:
        clock = SandboxClock(day or config.sandbox_start_day, time_s)
    else:
        clock = SystemClock(config.zone, day, time_s)
    today = clock.today()
    if kind is None or today > day:
        await store.write("save_clock", "sandbox" if sandbox else "system", today)
    if isinstance(clock, SystemClock):
        clock.keep = lambda day: service.begin(store.write("save_clock", "system", day))
    return clock


def _room(service: Service) -> Room:
    """Look at the database's disk."""
    storage, chance = service.config.storage, service.chance
    path = storage.tables_path
    room = Room(storage.reserve_bytes, None if path is None else lambda: chance.free_bytes(path.parent))
    if room.look():
        log.error("the disk is nearly full: what writes is refused", free_bytes=room.free_bytes)
    return room


def _actor_limits(config: Config) -> ActorLimits:
    limits = config.limits
    return ActorLimits(
        mailbox=limits.mailbox,
        in_flight=limits.in_flight,
        resident_loans=limits.resident_loans,
        resident_idle_s=float(limits.resident_idle_s),
        tail_events=config.storage.tail_events,
    )


def score_rules(config: Config) -> ScoreRules:
    """Return the configured scale of scores."""
    scoring = config.scoring
    return ScoreRules(
        scoring.base_balance_paise,
        scoring.step_balance_paise,
        scoring.step_points,
        scoring.min_score,
        scoring.max_score,
    )

"""What can be set: every key, its type, range and default, once, as frozen Structs.

Money comes out in paise, percents in hundredths. config_file.py reads them; the composition root hands each
part its section.
"""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from ledgerd.domain.calendar import parse_day
from ledgerd.domain.money import daily_rate, parse_hundredths

_DECIMAL = r"^[0-9]{1,13}(\.[0-9]{1,2})?\Z"
SQLITE_URL = "sqlite:///"

# A NUL in a path or a host is refused where it is written, not where it is used.
_SHOWN = r"^[^\x00-\x1f\x7f]*\Z"
Text = Annotated[str, Meta(min_length=1, max_length=4096, pattern=_SHOWN, description="text in quotes")]
TextOrNone = Annotated[str, Meta(max_length=4096, pattern=_SHOWN, description="text in quotes")]
Rupees = Annotated[str, Meta(pattern=_DECIMAL, description='rupees such as "5000.00"')]
Percent = Annotated[str, Meta(pattern=_DECIMAL, description='a percentage such as "3.00"')]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[int, Meta(ge=1, le=315_360_000)]
Days = Annotated[int, Meta(ge=1, le=366)]
Networks = Annotated[list[Text], Meta(description='a list such as ["10.0.0.0/8", "192.0.2.1"]')]
Score = Annotated[int, Meta(ge=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Mebibytes = Annotated[int, Meta(ge=0, le=1_048_576)]


def _hundredths(text: str) -> int:
    value = parse_hundredths(text)
    if value is None:  # only when built by hand: what is read is checked by its pattern first
        raise ValueError(f"not a decimal with at most two places: {text!r}")
    return value


def shown(value: object) -> str:
    """Show a value that somebody wrote, on one short line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of `config.toml`."""


class Server(Section, frozen=True):
    """Where and how the service listens."""

    host: Text = "127.0.0.1"
    port: Port = 8080
    header_timeout_s: Seconds = 10
    body_timeout_s: Seconds = 10
    request_timeout_s: Seconds = 30
    keepalive_timeout_s: Seconds = 75
    connections: Count = 10_000
    connections_per_address: Count = 1024
    trusted_proxies: Networks = []
    shutdown_timeout_s: Seconds = 10

    def __post_init__(self) -> None:
        for each in self.trusted_proxies:
            try:
                ip_network(each)
            except ValueError as error:
                raise ValueError(f"trusted_proxies: write addresses or networks; {error}") from None


class Storage(Section, frozen=True):
    """Where the database lies; every path is None for a database in memory."""

    url: Text = "sqlite:///ledgerd.db"
    tail_events: Count = 200_000
    projection_batch: Count = 2000
    index_batch: Count = 100_000
    reserve_mib: Mebibytes = 256

    def __post_init__(self) -> None:
        path = self.url.removeprefix(SQLITE_URL)
        if not self.url.startswith(SQLITE_URL) or path in {"", "/"} or path.endswith(("/", "/..")):
            raise ValueError('url: write "sqlite:///relative.db" or "sqlite:////absolute.db"')

    @property
    def reserve_bytes(self) -> int:
        """Room on the disk that what can be refused may not use."""
        return self.reserve_mib << 20

    @property
    def tables_path(self) -> Path | None:
        """The file of the tables."""
        path = self.url.removeprefix(SQLITE_URL)
        return None if path == ":memory:" else Path(path)

    @property
    def journal_path(self) -> Path | None:
        """The file of the journal: ledger.db -> ledger.journal.db."""
        path = self.tables_path
        return path and path.with_name(f"{path.stem}.journal{path.suffix}")

    @property
    def lock_path(self) -> Path | None:
        """The file whose lock says that somebody serves this database: ledger.db.lock."""
        path = self.tables_path
        return path and path.with_name(f"{path.name}.lock")

    @property
    def socket_path(self) -> Path | None:
        """The Unix socket that the command line speaks to: ledger.db.sock."""
        path = self.tables_path
        return path and path.with_name(f"{path.name}.sock")


class Auth(Section, frozen=True):
    """Keys, tokens and logins."""

    keys_dir: Text = "keys"
    issuer: Text = "ledgerd"
    audience: Text = "ledgerd"
    access_ttl_s: Seconds = 900
    refresh_ttl_s: Seconds = 2_592_000
    token_cache: Count = 10_000
    password_workers: Annotated[int, Meta(ge=1, le=64)] = 2
    login_failures: Count = 5

    @property
    def keys_path(self) -> Path:
        """The folder of the keys."""
        return Path(self.keys_dir)


class Clock(Section, frozen=True):
    """Which business dates the service lives by."""

    timezone: Text = "Asia/Kolkata"
    sandbox_start: str = ""

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            raise ValueError(
                f'timezone: {shown(self.timezone)} is not known; write an IANA name, such as "Asia/Kolkata"'
            ) from None
        if self.sandbox_start and parse_day(self.sandbox_start) is None:
            raise ValueError('sandbox_start: write a date, such as "2026-01-31", or "" for the real date')

    @property
    def zone(self) -> ZoneInfo:
        """The timezone of business dates."""
        return ZoneInfo(self.timezone)

    @property
    def sandbox_start_day(self) -> int | None:
        """The sandbox's first day as a day number, or None on the real clock."""
        return parse_day(self.sandbox_start)


class Lending(Section, frozen=True):
    """Who may borrow what, and how bills are made."""

    min_credit_score: Score = 450
    min_annual_income: Rupees = "150000.00"
    max_amount: Rupees = "5000.00"
    max_apr: Percent = "100.00"
    max_tenure: Annotated[int, Meta(ge=1, le=1200)] = 120
    min_due_percent: Percent = "3.00"
    cycle_days: Days = 30
    due_days: Days = 15

    def __post_init__(self) -> None:
        if self.max_amount_paise == 0:
            raise ValueError('max_amount: write at least "0.01"')
        if self.min_due_percent_hundredths > 100_00:
            raise ValueError('min_due_percent: write at most "100.00"')
        # The database keeps a cycle's interest as a 64-bit integer of 1/100,000 paise.
        if self.max_amount_paise * daily_rate(self.max_apr_hundredths) * self.cycle_days >= 2**63:
            raise ValueError("max_amount: one cycle of interest on it at max_apr is too large; lower one")

    @property
    def min_annual_income_paise(self) -> int:
        """The lowest income that borrows."""
        return _hundredths(self.min_annual_income)

    @property
    def max_amount_paise(self) -> int:
        """The most one loan lends."""
        return _hundredths(self.max_amount)

    @property
    def max_apr_hundredths(self) -> int:
        """The highest rate, in hundredths of a percent a year."""
        return _hundredths(self.max_apr)

    @property
    def min_due_percent_hundredths(self) -> int:
        """The part of the balance that a bill asks for, in hundredths of a percent."""
        return _hundredths(self.min_due_percent)


class Scoring(Section, frozen=True):
    """How a bank history becomes a score."""

    transactions_csv: TextOrNone = ""
    watch_s: Seconds = 2
    rejects_bytes: Annotated[int, Meta(ge=4096, le=1_000_000_000_000)] = 104_857_600
    base_balance: Rupees = "10000.00"
    step_balance: Rupees = "15000.00"
    step_points: Score = 10
    min_score: Score = 300
    max_score: Score = 900

    def __post_init__(self) -> None:
        if self.step_balance_paise == 0:
            raise ValueError('step_balance: write at least "0.01"')
        if self.min_score > self.max_score:
            raise ValueError("min_score: must not be above max_score")

    @property
    def transactions_path(self) -> Path | None:
        """The CSV to import by itself, or None."""
        return Path(self.transactions_csv) if self.transactions_csv else None

    @property
    def base_balance_paise(self) -> int:
        """The balance up to which the score stays lowest."""
        return _hundredths(self.base_balance)

    @property
    def step_balance_paise(self) -> int:
        """The balance that each further `step_points` take."""
        return _hundredths(self.step_balance)


class Identity(Section, frozen=True):
    """What counts as an identity number."""

    kind: Literal["aadhaar", "opaque"] = "aadhaar"


class Scheduler(Section, frozen=True):
    """When the recurring jobs run. The cron lines are read by the part that keeps them."""

    billing_cron: Text = "5 0 * * *"
    scoring_cron: Text = "*/5 * * * *"
    billing_window: Count = 100


class Limits(Section, frozen=True):
    """A bound on everything that could grow."""

    mailbox: Count = 4096
    in_flight: Count = 8192
    resident_loans: Count = 100_000
    resident_idle_s: Seconds = 600
    body_bytes: Count = 16_384
    batch_items: Count = 10_000
    batch_bytes: Count = 4_194_304
    line_bytes: Count = 16_384
    batches: Count = 32


class Console(Section, frozen=True):
    """The pages for people, at /console/."""

    enabled: bool = True
    sessions: Count = 10_000
    session_idle_s: Seconds = 1800
    session_max_s: Seconds = 43_200
    journal_rows: Count = 5_000_000
    search_rows: Count = 5_000_000
    book_refresh_s: Seconds = 30


class Log(Section, frozen=True):
    """What is logged, and how it looks."""

    format: Literal["auto", "json", "pretty"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section, frozen=True):
    """Everything that can be set."""

    server: Server = Server()
    storage: Storage = Storage()
    auth: Auth = Auth()
    clock: Clock = Clock()
    lending: Lending = Lending()
    scoring: Scoring = Scoring()
    identity: Identity = Identity()
    scheduler: Scheduler = Scheduler()
    limits: Limits = Limits()
    console: Console = Console()
    log: Log = Log()


SECTIONS: dict[str, type[Section]] = get_type_hints(Config)
KEYS: dict[tuple[str, str], Any] = {
    (section, key): annotation
    for section, struct in SECTIONS.items()
    for key, annotation in get_type_hints(struct, include_extras=True).items()
}

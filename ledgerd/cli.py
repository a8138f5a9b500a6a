"""The command line: thin verbs over server.py, control.py and verify. Every failure is one line on stderr and
exit code 1.
"""

from __future__ import annotations

import faulthandler
import os
import re
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

import ledgerd
from ledgerd.app import score_rules
from ledgerd.completion import SHELLS, Command, Option
from ledgerd.config import Config
from ledgerd.config_file import ConfigError, ignored_variables, load_config
from ledgerd.control import CommandFailed, run_command
from ledgerd.control import Progress as Show
from ledgerd.http.clients import CLIENT_SCOPES
from ledgerd.notify import Notifier
from ledgerd.observe import configure_logging, log
from ledgerd.scheduler.cron import check_cron
from ledgerd.server import CannotListen
from ledgerd.server import serve as serve_for_ever
from ledgerd.storage.files import migrate_files
from ledgerd.storage.keyfiles import KeyFileError
from ledgerd.storage.ports import StoreError
from ledgerd.storage.verify import verify_files

T = TypeVar("T")

DEFAULT_CONFIG = Path("config.toml")
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration file. Default: config.toml here, or the defaults without one.",
        show_default=False,
        readable=False,  # is for `load_config` to find out, which says it on one line
    ),
]

app = typer.Typer(
    name="ledgerd",
    no_args_is_help=True,
    add_completion=False,  # but for `completion`, whose scripts do not start Python at each press of Tab
    pretty_exceptions_enable=False,
    help="A loan servicing ledger: payments that count once, nightly bills, statements exact to the paisa.",
    epilog="Start with: ledgerd demo",
)
client_app = typer.Typer(no_args_is_help=True, help="The machines that post payments or operate the service.")
keys_app = typer.Typer(no_args_is_help=True, help="The keys that sign access tokens.")
app.add_typer(client_app, name="client")
app.add_typer(keys_app, name="keys")


def main() -> None:
    """Run the command line. Whatever ends it from outside, as a watchdog does, has it say where it stood."""
    faulthandler.enable()
    app()


def settings(path: Path | None) -> Config:
    """Read the configuration, or end with what is wrong with it."""
    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    try:
        config = load_config(path, os.environ)
    except ConfigError as error:
        raise fail(str(error)) from None
    for key in ("billing_cron", "scoring_cron"):
        wrong = check_cron(getattr(config.scheduler, key))
        if wrong is not None:
            raise fail(f'[scheduler] {key}: {wrong}: write a cron line such as "5 0 * * *"')
    return config


def fail(message: str) -> typer.Exit:
    """Say why, on one line, and return the exit to raise."""
    typer.echo(f"ledgerd: {message}", err=True)
    return typer.Exit(1)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; what it refuses is said on one line."""
    try:
        return uvloop.run(work)
    except (CannotListen, CommandFailed, StoreError, KeyFileError, RuntimeError, UnicodeError) as error:
        raise fail(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise fail(f"{where}{error.strerror or error}") from None


def command(config: Config, name: str, args: dict[str, Any], label: str | None = None) -> Any:
    """Run a command on the database, with a progress bar where `label` names one."""
    configure_logging(config.log.format, "warning")

    async def work() -> Any:
        with progress_bar(label) as show:
            return await run_command(config, name, args, show)

    return run(work())


@contextmanager
def progress_bar(label: str | None) -> Iterator[Show]:
    """Show a bar while the block runs and yield what moves it; it pulses until there is a total. No bar
    without a label or a terminal.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    with Progress(*columns, console=console, disable=label is None or not console.is_terminal) as bar:
        task = bar.add_task(label or "", total=None, speed="")

        def show(done: int, total: int, rows_per_s: int = 0, /) -> None:
            speed = f"{rows_per_s:,} rows/s" if rows_per_s else ""
            bar.update(task, completed=done, total=total or None, speed=speed)

        yield show


def show_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    typer.echo(msgspec.json.encode(value).decode())


@app.callback(invoke_without_command=True)
def about(  # noqa: D103 - a docstring would take the place of the help at `app`
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"ledgerd {ledgerd.__version__}")
        raise typer.Exit


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Makes the database and the keys on first start. Stopping refuses new work, answers what is queued, and
    exits in seconds.
    """
    loaded = settings(config)
    access = configure_logging(loaded.log.format, loaded.log.level)
    for name in ignored_variables(os.environ):
        log.warning("a variable that names no key is ignored", variable=name)
    code = run(serve_for_ever(loaded, access, Notifier.from_environment(os.environ)))
    if code:
        raise fail("the store ended: see the log above; start again, callers retry by transaction_id")


@app.command()
def demo(
    exit: Annotated[
        bool,
        typer.Option("--exit", help="End after the walk; the exit code says whether all went as it should."),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Walk one borrower's whole life over HTTP, in a sandbox of its own, showing each call and answer.

    Then it stays up to be tried, until Ctrl-C. Of the configuration it takes the server's host and port
    alone; with --exit, or when the port is taken, it listens on a free one.
    """
    from ledgerd.demo import walk  # noqa: PLC0415 - only the demo pays for its imports

    raise typer.Exit(run(walk(stay=not exit, server=settings(config).server)))


@app.command("import-transactions")
def import_transactions(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False)], config: ConfigOption = None
) -> None:
    """Import a CSV of bank history for scoring. Each row counts once: a copy imports nothing, a grown file
    its new rows. Bad rows go to FILE.rejects.csv, each with its line and what is wrong with it.
    """
    summary = command(settings(config), "import_transactions", {"path": str(file.absolute())}, "importing")
    show_json(summary)
    if summary["rows_rejected"]:
        full = f" (full: {left_out:,} are left out)" if (left_out := summary["rejects_left_out"]) else ""
        rejected, rejects_path = summary["rows_rejected"], summary["rejects_path"]
        typer.echo(f"{rejected:,} rows rejected: see {rejects_path}{full}", err=True)


@app.command()
def bill(
    date: Annotated[
        str | None,
        typer.Option(
            "--date",
            metavar="YYYY-MM-DD",
            help="Bill what had fallen due by this date. Default: today.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Bill every loan that is due. May be repeated: each loan gets each bill once."""
    run_shown = command(settings(config), "bill", {"date": date}, "billing")
    show_json(run_shown)
    for loan_id in run_shown["failed_loans"]:
        typer.echo(f"ledgerd: not billed: {loan_id}", err=True)
    if run_shown["failed"]:
        raise fail(
            f"{run_shown['failed']} of {run_shown['due']} loans were not billed: see the service's log,"
            " and run it again"
        )


@client_app.command("create")
def create_client(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    scope: Annotated[
        list[str],
        typer.Option("--scope", metavar="|".join(CLIENT_SCOPES), help="What it may do. May be repeated."),
    ],
    config: ConfigOption = None,
) -> None:
    """Make a client and print {client_id, client_secret, scopes}. The secret is shown this once."""
    show_json(command(settings(config), "create_client", {"name": name, "scopes": scope}))


@keys_app.command("rotate")
def rotate_keys(config: ConfigOption = None) -> None:
    """Sign tokens with a new key from now on; tokens of the old one stay valid until they end."""
    show_json(command(settings(config), "rotate_keys", {}))


@app.command()
def verify(config: ConfigOption = None) -> None:
    """Recompute every loan from its history and compare every figure. Exit code 1 when one differs. Reads
    only.
    """
    loaded = settings(config)
    storage = loaded.storage
    if storage.tables_path is None or storage.journal_path is None:
        raise fail("a database in memory can't be verified")
    try:
        with progress_bar("verifying") as show:
            report = verify_files(
                storage.tables_path,
                storage.journal_path,
                score_rules(loaded),
                show,
                sandbox=loaded.clock.sandbox_start_day is not None,
            )
    except StoreError as error:
        raise fail(str(error)) from None
    for line in report.differences:
        typer.echo(f"ledgerd: {line}", err=True)
    show_json(report.summary())
    if report.differences:
        raise fail(f"{report.found} differences")


@app.command()
def backup(
    path: Annotated[Path, typer.Argument(metavar="PATH", readable=False)], config: ConfigOption = None
) -> None:
    """Copy the database into the new folder PATH, consistent, also while it is served."""
    command(settings(config), "backup", {"path": str(path.absolute())}, "backing up")
    typer.echo(f"backed up to {path}", err=True)


@app.command()
def migrate(config: ConfigOption = None) -> None:
    """Bring a database up to this version of ledgerd. Refused while it is served."""
    storage = settings(config).storage
    if storage.tables_path is None or storage.journal_path is None or storage.lock_path is None:
        raise fail("a database in memory needs no migration")
    ran = run(migrate_files(storage.tables_path, storage.journal_path, storage.lock_path))
    typer.echo(f"{ran} migrations ran" if ran else "nothing to do", err=True)


@app.command("check-config")
def check_config(config: ConfigOption = None) -> None:
    """Read the configuration and say whether it is right."""
    settings(config)
    for name in ignored_variables(os.environ):
        typer.echo(f"ledgerd: {name} names no key and is ignored", err=True)
    typer.echo("the configuration is right", err=True)


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="|".join(SHELLS))]) -> None:
    """Print a script that completes ledgerd's commands and options.

    In ~/.bashrc: eval "$(ledgerd completion bash)". For zsh write it to a file _ledgerd in a folder of
    $fpath, for fish to ~/.config/fish/completions/ledgerd.fish.
    """
    if shell not in SHELLS:
        raise fail(f"{shell}: no such shell; write one of {', '.join(SHELLS)}")
    typer.echo(SHELLS[shell](tree(typer.main.get_command(app))), nl=False)


def tree(command: Any) -> Command:
    """Return a command of typer's, and all below it, as `completion` takes it."""
    options = [
        Option(name, summary(param.help), "" if param.is_flag else param.metavar)
        for param in command.params
        if param.param_type_name == "option"
        for name in param.opts
    ]
    return Command(
        command.name,
        summary(command.help),
        (*options, Option("--help", "Show what it does and takes")),
        next((param.metavar for param in command.params if param.param_type_name == "argument"), ""),
        tuple(map(tree, getattr(command, "commands", {}).values())),
    )


def summary(text: str) -> str:
    """Return the first sentence of a help, without its full stop."""
    return re.split(r"[.;:](?:\s|$)", " ".join(text.split()), maxsplit=1)[0]

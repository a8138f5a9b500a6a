"""The command line, on a database that is served and on one that is not."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import typer

import ledgerd as package
from ledgerd.cli import app, tree
from ledgerd.completion import SHELLS
from ledgerd.sample import write_sample
from tests.crash.load import Payment, api, client_token, new_client, new_loans
from tests.process import Finished, Service, ledgerd, ledgerd_here, serving, write_config

COMMANDS = {
    "serve": "Serve the API",
    "demo": "Walk one borrower's whole life",
    "import-transactions": "Import a CSV of bank history",
    "bill": "Bill every loan that is due",
    "client create": "Make a client and print",
    "keys rotate": "Sign tokens with a new key",
    "verify": "Recompute every loan",
    "backup": "Copy the database",
    "migrate": "Bring a database up to this version",
    "check-config": "Read the configuration and say",
    "completion": "Print a script that completes",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with an empty database, for all tests that need one that runs."""
    with serving(write_config(tmp_path_factory.mktemp("served"))) as service:
        yield service


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    """The configuration of a database that nobody serves."""
    return write_config(tmp_path)


@pytest.fixture(params=["served", "not served"])
def either(request: pytest.FixtureRequest) -> Path:
    """One after the other."""
    if request.param == "served":
        service: Service = request.getfixturevalue("served")
        return service.config_path
    path: Path = request.getfixturevalue("config_path")
    return path


def answer(finished: Finished) -> dict[str, Any]:
    """The one JSON object that a command printed on stdout."""
    assert finished.code == 0, finished
    [line] = finished.stdout.splitlines()
    value = json.loads(line)
    assert isinstance(value, dict)
    return value


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def here(*args: object) -> Finished:
    """Run a command in this process, beside the loop of the test."""
    return await asyncio.to_thread(ledgerd_here, *args)


def edit(config_path: Path, sql: str, *params: object) -> None:
    """Change the tables by hand."""
    connection = sqlite3.connect(config_path.with_name("ledgerd.db"))
    with connection:
        connection.execute(sql, params)
    connection.close()


# Help and configuration --------------------------------------------------------------------------


def test_version():
    finished = ledgerd("--version")
    assert (finished.code, finished.stdout, finished.stderr) == (0, f"ledgerd {package.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does(command: str):
    finished = ledgerd_here(*command.split(), "--help", COLUMNS="100", NO_COLOR="1", TERM="dumb")
    assert finished.code == 0
    assert COMMANDS[command] in finished.stdout
    assert ("--config" in finished.stdout) == (command != "completion")


def test_help_names_every_command():
    shown = ledgerd_here("--help", COLUMNS="100", NO_COLOR="1", TERM="dumb").stdout
    assert [name for name in COMMANDS if name.split()[0] not in shown] == []


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_a_script(shell: str):
    script = SHELLS[shell](tree(typer.main.get_command(app)))
    assert ledgerd_here("completion", shell) == Finished(0, script, "")


def test_completion_knows_three_shells():
    assert ledgerd_here("completion", "tcsh").complaint == "tcsh: no such shell; write one of bash, zsh, fish"


def test_an_unknown_command_is_refused():
    assert ledgerd_here("sevre").code != 0


def test_a_good_configuration(config_path: Path):
    assert ledgerd_here("check-config", "--config", config_path).code == 0
    assert (
        ledgerd_here("check-config", "--config", Path(package.__file__).parents[1] / "config.toml").code == 0
    )


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"server": {"prot": 1}}, "[server] prot: no such key"),
        ({"sever": {"port": 1}}, "[sever]: no such section"),
        ({"server": {"port": "x"}}, "[server] port"),
        ({"scheduler": {"billing_cron": "5 0 * *"}}, "[scheduler] billing_cron: needs five fields"),
        ({"scheduler": {"scoring_cron": "99 * * * *"}}, "[scheduler] scoring_cron"),
    ],
)
def test_a_bad_configuration_is_refused_by_every_command(
    tmp_path: Path, sections: dict[str, dict[str, object]], words: str
):
    path = write_config(tmp_path, **sections)
    for command in (["check-config"], ["serve"], ["verify"], ["bill"]):
        assert words in ledgerd_here(*command, "--config", path).complaint


def test_a_configuration_that_is_not_there(tmp_path: Path):
    assert "missing.toml" in ledgerd_here("check-config", "--config", tmp_path / "missing.toml").complaint


def test_config_toml_of_this_folder_is_read_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert ledgerd_here("check-config").code == 0  # without one, the defaults
    write_config(tmp_path, server={"prot": 1})
    assert "prot" in ledgerd_here("check-config").complaint


def test_the_environment_overrides(config_path: Path, tmp_path: Path):
    why = ledgerd_here("check-config", "--config", config_path, LEDGERD_SERVER_PORT="many").complaint
    assert why.startswith("LEDGERD_SERVER_PORT")
    why = ledgerd_here("check-config", "--config", config_path, LEDGERD_SERVER_PROT="1").complaint
    assert why.startswith("LEDGERD_SERVER_PROT")
    said = ledgerd_here("check-config", "--config", config_path, LEDGERD_LOANS="1").stderr
    assert said == "ledgerd: LEDGERD_LOANS names no key and is ignored\nthe configuration is right\n"
    url = f"sqlite:///{tmp_path}/elsewhere/ledger.db"
    create = ("client", "create", "till", "--scope", "ops", "--config", config_path)
    answer(ledgerd_here(*create, LEDGERD_STORAGE_URL=url, LEDGERD_SERVER_PORT=""))
    assert (tmp_path / "elsewhere" / "ledger.db").exists()
    assert not (tmp_path / "ledgerd.db").exists()


# Clients and keys --------------------------------------------------------------------------------


def test_client_create_prints_one_object(either: Path):
    scopes = ("--scope", "payments:write", "--scope", "ops")
    client = answer(ledgerd_here("client", "create", "till 7", *scopes, "--config", either))
    assert list(client) == ["client_id", "client_secret", "scopes"]
    assert client["scopes"] == ["payments:write", "ops"]
    other = answer(ledgerd_here("client", "create", "till 7", *scopes, "--config", either))
    assert other["client_id"] != client["client_id"]


@pytest.mark.parametrize("scope", ["borrower", "payments", ""])
def test_client_create_refuses_a_bad_scope(either: Path, scope: str):
    finished = ledgerd_here("client", "create", "till", "--scope", scope, "--config", either)
    assert "scope" in finished.complaint
    assert finished.stdout == ""


def test_client_create_refuses_a_name_that_is_no_text(either: Path):
    name = b"till \xff".decode(errors="surrogateescape")  # as the shell hands over what is not UTF-8
    finished = ledgerd_here("client", "create", name, "--scope", "ops", "--config", either)
    assert "not UTF-8" in finished.complaint
    assert finished.stdout == ""


@pytest.mark.parametrize("name", ["", "till\n7"])
def test_client_create_refuses_a_name_that_does_not_show(either: Path, name: str):
    finished = ledgerd_here("client", "create", name, "--scope", "ops", "--config", either)
    assert finished.complaint.startswith("A client's name is 1 to 200 characters that show")
    assert finished.stdout == ""


def test_client_create_takes_any_name_that_shows(either: Path):
    answer(ledgerd_here("client", "create", "--scope", "ops", "--config", either, "--", "--दुकान 7"))


async def test_keys_rotate_while_the_service_runs(served: Service):
    old = await new_client(served, "ops")
    rotated = answer(await here("keys", "rotate", "--config", served.config_path))
    new = await new_client(served, "ops")
    assert jwt.get_unverified_header(new)["kid"] == rotated["kid"]
    old_kid = jwt.get_unverified_header(old)["kid"]
    for token in (old, new):
        async with api(served, token) as caller:
            assert (await caller.get("/api/billing-runs/"))[0] == 200
    async with api(served) as caller:
        _, jwks = await caller.get("/.well-known/jwks.json")
    assert {key["kid"] for key in jwks["keys"]} >= {old_kid, rotated["kid"]}


def test_keys_rotate_while_nobody_serves(config_path: Path):
    kids = {answer(ledgerd_here("keys", "rotate", "--config", config_path))["kid"] for _ in range(2)}
    assert len(kids) == 2
    made = {path.name.split(".")[1] for path in config_path.with_name("keys").glob("*.pem")}
    assert kids < made


# Bank history ------------------------------------------------------------------------------------


def test_import_transactions(either: Path, tmp_path: Path):
    csv = tmp_path / "history.csv"
    write_sample(csv, people=20, seed=3, rows_each=3)
    command = ("import-transactions", csv, "--config", either)
    first = answer(ledgerd_here(*command))
    assert (first["is_new"], first["rows_imported"], first["rows_rejected"]) == (True, 60, 0)
    again = answer(ledgerd_here(*command))
    assert (again["is_new"], again["rows_imported"]) == (False, 0)
    with csv.open("a") as file:
        file.write("x1,2026-01-01,CREDIT,1.00\nx1,2026-01-01,CREDIT,much\n")
    grown = answer(ledgerd_here(*command))
    assert (grown["is_new"], grown["rows_imported"], grown["rows_rejected"]) == (True, 1, 1)
    assert Path(grown["rejects_path"]).read_text().count("\n") == 2


def test_import_says_how_fast_it_went_and_where_the_rejects_are(either: Path, tmp_path: Path):
    csv = tmp_path / "history.csv"
    csv.write_text("user,date,transaction_type,amount\n" + "x1,2026-01-01,CREDIT,1.00\n" * 50)
    command = ("import-transactions", csv, "--config", either)
    clean = ledgerd_here(*command, FORCE_COLOR="1", TERM="xterm", COLUMNS="120")
    assert "rows/s" in clean.stderr  # in the bar, which this terminal shows
    summary = answer(clean)
    assert min(summary["seconds"], summary["rows_per_s"]) > 0
    with csv.open("a") as file:
        file.write("x1,2026-01-01,CREDIT,much\n" * 1200)
    finished = ledgerd_here(*command)
    assert answer(finished)["rows_rejected"] == 1200
    assert finished.stderr == f"1,200 rows rejected: see {csv}.rejects.csv\n"
    with csv.open("a") as file:
        file.write("x1,2026-01-01,CREDIT,much\n" * 1000)
    assert (csv.parent / "history.csv.rejects.csv").stat().st_size > 100_000
    bounded = ledgerd_here(*command, LEDGERD_SCORING_REJECTS_BYTES="100000")
    if either.parent == tmp_path:  # what serves has a setting of its own
        assert answer(bounded)["rejects_left_out"] == 1000
        assert bounded.stderr.endswith(".rejects.csv (full: 1,000 are left out)\n")


def test_import_of_what_is_no_history(either: Path, tmp_path: Path):
    missing = tmp_path / "missing.csv"
    assert str(missing) in ledgerd_here("import-transactions", missing, "--config", either).complaint
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert str(other) in ledgerd_here("import-transactions", other, "--config", either).complaint


# Billing -----------------------------------------------------------------------------------------


def test_bill(either: Path):
    run = answer(ledgerd_here("bill", "--config", either))
    assert (run["business_date"], run["status"]) == ("2026-01-01", "completed")
    assert (run["due"], run["billed"], run["failed"]) == (0, 0, 0)
    earlier = answer(ledgerd_here("bill", "--date", "2025-12-31", "--config", either))
    assert earlier["business_date"] == "2025-12-31"


@pytest.mark.parametrize("day", ["2026-01-02", "9999-12-31", "2026-02-30", "tomorrow", "2026-1-1"])
def test_bill_refuses_the_future_and_what_is_no_date(either: Path, day: str):
    why = ledgerd_here("bill", "--date", day, "--config", either).complaint
    assert "2026-01-01" in why
    assert "--date" in why


async def test_bill_names_the_loans_that_failed_served_or_not(tmp_path: Path):
    config_path = write_config(tmp_path)
    to = ("--config", config_path)
    with serving(config_path) as service:
        loan_ids = await new_loans(service, 3)
    bad = loan_ids[1]
    edit(config_path, "UPDATE meta SET value = value + 30 WHERE key = 'business_date'")
    # More interest than fits into an event.
    edit(
        config_path,
        "UPDATE loans SET principal_paise = 1 << 62, daily_rate_thousandths = 1000000000 WHERE id = ?",
        int(bad, 16),
    )

    def check(finished: Finished, due: int) -> None:
        run = json.loads(finished.stdout)
        assert finished.code == 1
        assert (run["due"], run["billed"], run["failed"]) == (due, due - 1, 1)
        assert run["failed_loans"] == [bad]
        said = [line for line in finished.stderr.splitlines() if line.startswith("ledgerd: ")]
        assert said[0] == f"ledgerd: not billed: {bad}"
        assert said[1].startswith(f"ledgerd: 1 of {due} loans were not billed: ")

    check(await here("bill", *to), due=3)
    with serving(config_path):
        check(await here("bill", *to), due=1)


# Verify, back up, migrate ------------------------------------------------------------------------


async def test_on_a_database_with_a_loan_served_and_then_not(tmp_path: Path):
    config_path = write_config(tmp_path / "first")
    to = ("--config", config_path)
    early = answer(await here("client", "create", "till", "--scope", "ops", *to))
    with serving(config_path) as service:
        await client_token(service, early)
        token = await new_client(service, "payments:write", "ops")
        [loan_id] = await new_loans(service, 1, amount="5000.00")
        payment = Payment("t-1", loan_id, "10.00")
        async with api(service, token) as caller:
            payment.note(*await caller.pay(payment))
        running = answer(await here("verify", *to))
        assert (running["status"], running["events"]) == ("verified", 2)
        assert "in use by another ledgerd" in (await here("migrate", *to)).complaint
        backup = await here("backup", tmp_path / "second", *to)
        assert backup.code == 0, backup
        assert "exists" in (await here("backup", tmp_path / "second", *to)).complaint

    edit(config_path, "UPDATE meta SET value = value + 65 WHERE key = 'business_date'")
    run = answer(await here("bill", *to))
    assert (run["business_date"], run["due"], run["billed"], run["failed"]) == ("2026-03-07", 1, 1, 0)
    assert answer(await here("bill", *to))["due"] == 0
    verified = answer(await here("verify", *to))
    assert (verified["status"], verified["bills"], verified["payments"]) == ("verified", 2, 1)

    edit(config_path, "UPDATE payments SET interest_paise = interest_paise + 1")
    differs = await here("verify", *to)
    assert differs.code == 1
    assert json.loads(differs.stdout)["differences"] == 1
    assert [line.partition(" ")[0] for line in differs.stderr.splitlines()] == ["ledgerd:"] * 2

    await the_backup_serves(tmp_path / "second", config_path.with_name("keys"), payment, token)


async def the_backup_serves(folder: Path, keys: Path, payment: Payment, token: str) -> None:
    """A backup has the names of the default configuration; the keys are backed up by themselves."""
    assert names(folder) == {"ledgerd.db", "ledgerd.journal.db"}
    shutil.copytree(keys, folder / "keys")
    config_path = write_config(folder)
    verified = answer(await here("verify", "--config", config_path))
    assert (verified["status"], verified["payments"]) == ("verified", 1)
    with serving(config_path) as service:
        async with api(service, token) as caller:
            status, again = await caller.pay(payment)
            assert status == 200
            payment.note(status, again)


def test_on_a_database_without_anything(config_path: Path):
    to = ("--config", config_path)
    assert "no database" in ledgerd_here("verify", *to).complaint
    assert "no database" in ledgerd_here("migrate", *to).complaint
    answer(ledgerd_here("client", "create", "till", "--scope", "ops", *to))
    migrated = ledgerd_here("migrate", *to)
    assert (migrated.code, migrated.stderr) == (0, "nothing to do\n")
    assert answer(ledgerd_here("verify", *to))["status"] == "verified"
    backup = config_path.with_name("second")
    assert ledgerd_here("backup", backup, *to).code == 0
    assert "exists" in ledgerd_here("backup", backup, *to).complaint


@pytest.mark.parametrize("command", ["verify", "migrate"])
def test_a_database_in_memory_has_no_files(config_path: Path, command: str):
    memory = {"LEDGERD_STORAGE_URL": "sqlite:///:memory:"}
    assert "memory" in ledgerd_here(command, "--config", config_path, **memory).complaint

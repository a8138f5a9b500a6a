"""Reading the configuration: the file, the environment, and one plain line for every mistake."""

from pathlib import Path

import pytest

from ledgerd.config import KEYS, Config
from ledgerd.config_file import ConfigError, ignored_variables, load_config, variable_name

SHIPPED = Path(__file__).parent.parent / "config.toml"


@pytest.fixture
def written(tmp_path):
    """Write a config.toml and return its path."""

    def write(text):
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path, environ):
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The file ----------------------------------------------------------------------------------------


def test_the_shipped_file_loads_as_the_defaults(written):
    beside = written(SHIPPED.read_text(encoding="utf-8"))
    assert load_config(beside, {}) == load_config(written(""), {})


def test_a_file_changes_only_what_it_names(written):
    config = load_config(written('[server]\nport = 0\n[lending]\nmax_amount = "7500.5"\n'), {})
    assert config.server.port == 0
    assert config.server.host == "127.0.0.1"
    assert config.lending.max_amount_paise == 750_050
    assert config.lending.max_tenure == 120


# Paths -------------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_folder_of_the_file(written, tmp_path):
    path = written('[storage]\nurl = "sqlite:///data/l.db"\n[scoring]\ntransactions_csv = "bank.csv"\n')
    config = load_config(path, {})
    assert config.storage.tables_path == tmp_path / "data" / "l.db"
    assert config.storage.journal_path == tmp_path / "data" / "l.journal.db"
    assert config.storage.lock_path == tmp_path / "data" / "l.db.lock"
    assert config.storage.socket_path == tmp_path / "data" / "l.db.sock"
    assert config.auth.keys_path == tmp_path / "keys"
    assert config.scoring.transactions_path == tmp_path / "bank.csv"


def test_paths_from_the_environment_start_there_too(written, tmp_path):
    config = load_config(written(""), {"LEDGERD_STORAGE_URL": "sqlite:///other.db"})
    assert config.storage.tables_path == tmp_path / "other.db"


def test_without_a_file_relative_paths_start_at_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(None, {})
    assert config.storage.tables_path == tmp_path / "ledgerd.db"
    assert config.auth.keys_path == tmp_path / "keys"
    assert config.scoring.transactions_path is None


def test_a_file_named_relatively_has_absolute_paths_too(written, tmp_path, monkeypatch):
    written("")
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("config.toml"), {}).auth.keys_path == tmp_path / "keys"


def test_absolute_paths_stay(written, tmp_path):
    url = f"sqlite:///{tmp_path / 'elsewhere' / 'x'}"
    assert url.startswith("sqlite:////")
    config = load_config(written(f'[storage]\nurl = "{url}"\n'), {})
    assert config.storage.tables_path == tmp_path / "elsewhere" / "x"
    assert config.storage.journal_path == tmp_path / "elsewhere" / "x.journal"


# The environment ---------------------------------------------------------------------------------


def test_the_environment_overrides_the_file(written):
    path = written('[server]\nport = 9000\nhost = "0.0.0.0"\n')
    environ = {
        "LEDGERD_SERVER_PORT": "9001",
        "LEDGERD_LENDING_MAX_AMOUNT": "1.5",
        "LEDGERD_LOG_LEVEL": "debug",
    }
    config = load_config(path, environ)
    assert (config.server.port, config.server.host) == (9001, "0.0.0.0")
    assert config.lending.max_amount_paise == 150
    assert config.log.level == "debug"


@pytest.mark.parametrize(("section", "key"), list(KEYS))
def test_every_key_can_be_overridden(section, key):
    default = getattr(getattr(Config(), section), key)
    text = "10.0.0.0/8" if default == [] else str(default) or "2026-01-31"
    config = load_config(None, {variable_name(section, key): text})
    value = getattr(getattr(config, section), key)
    assert type(value) is type(default)
    assert str(value).strip("[']").endswith(text.removeprefix("sqlite:///"))


def test_a_list_stands_in_a_variable_with_commas():
    config = load_config(None, {"LEDGERD_SERVER_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1,2001:db8::/32"})
    assert config.server.trusted_proxies == ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]


def test_an_empty_variable_is_unset(written):
    environ = {"LEDGERD_SERVER_PORT": "", "LEDGERD_SERVER_NONSENSE": ""}
    assert load_config(written("[server]\nport = 9000\n"), environ).server.port == 9000


def test_variables_of_others_are_let_be():
    of_kubernetes = {
        "LEDGERD_SERVICE_HOST": "10.0.0.1",
        "LEDGERD_SERVICE_PORT": "8080",
        "LEDGERD_SERVICE_PORT_HTTP": "8080",
        "LEDGERD_PORT": "tcp://10.0.0.1:8080",
        "LEDGERD_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "LEDGERD_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    assert load_config(None, of_kubernetes) == load_config(None, {})
    assert ignored_variables(of_kubernetes) == []
    of_scripts = {"LEDGERD_LOANS": "1", "LEDGERD_TEST_PORT": "1", "LEDGERD_BASE_URL": "x", "LEDGERD_MAX": "1"}
    assert load_config(None, of_scripts) == load_config(None, {})
    assert ignored_variables(of_scripts) == list(of_scripts)
    assert ignored_variables({"LEDGERD_LOANS": "", "LEDGERD_SERVER_PORT": "1", "HOME": "x"}) == []


def test_variables_of_nobody_are_let_be():
    environ = {
        "LEDGERD": "x",
        "SERVER_PORT": "1",
        "ledgerd_server_port": "1",
    }
    assert load_config(None, environ) == load_config(None, {})


# Refusals ----------------------------------------------------------------------------------------

FILE_MISTAKES = [
    ("[server]\nprot = 1", "[server] prot: no such key (did you mean port?); correct or remove it"),
    ("[serve]\nport = 1", "[serve]: no such section (did you mean server?); correct or remove it"),
    ("[zzz]\nport = 1", "[zzz]: no such section; correct or remove it"),
    ("port = 1", "port: is in no section; write it below the line of its section, [server]"),
    ('[server]\n"a\\nb" = 1', "[server] 'a\\nb': no such key; correct or remove it"),
    ("server = 5", "server: must be a section; write [server] above its keys"),
    ('[server]\nport = "8080"', "[server] port: write a whole number from 0 to 65535, not '8080'"),
    ("[server]\nport = 65536", "[server] port: write a whole number from 0 to 65535, not 65536"),
    ("[server]\nport = true", "[server] port: write a whole number from 0 to 65535, not True"),
    ('[server]\ntrusted_proxies = "10.0.0.1"', "[server] trusted_proxies: write a list such as ["),
    ("[server]\ntrusted_proxies = [1]", "[server] trusted_proxies: write a list such as ["),
    ('[server]\ntrusted_proxies = ["x"]', "[server] trusted_proxies: write addresses or networks; 'x' does"),
    (
        '[server]\ntrusted_proxies = ["10.0.0.1/8"]',
        "trusted_proxies: write addresses or networks; 10.0.0.1/8",
    ),
    ("[limits]\nmailbox = 0", "[limits] mailbox: write a whole number from 1 to 1000000000, not 0"),
    ('[server]\nhost = ""', "[server] host: write text in quotes, not ''"),
    ('[scoring]\ntransactions_csv = "a\\u0000b"', "[scoring] transactions_csv: write text in quotes"),
    ('[auth]\nkeys_dir = "a\\u0000b"', "[auth] keys_dir: write text in quotes"),
    ("[scoring]\ntransactions_csv = 1", "[scoring] transactions_csv: write text in quotes, not 1"),
    ("[lending]\nmax_amount = 5000.0", 'max_amount: write rupees such as "5000.00", not 5000.0'),
    ('[lending]\nmax_amount = "1e3"', '[lending] max_amount: write rupees such as "5000.00"'),
    ('[lending]\nmax_amount = "5\\n"', '[lending] max_amount: write rupees such as "5000.00"'),
    ('[lending]\nmax_amount = "५"', '[lending] max_amount: write rupees such as "5000.00"'),
    ('[lending]\nmax_amount = "0.00"', '[lending] max_amount: write at least "0.01"'),
    ('[lending]\nmax_apr = "-1.00"', '[lending] max_apr: write a percentage such as "3.00"'),
    ('[lending]\nmin_due_percent = "100.01"', '[lending] min_due_percent: write at most "100.00"'),
    ('[lending]\nmax_amount = "9999999999999.99"\nmax_apr = "200"', "[lending] max_amount: one cycle"),
    ('[scoring]\nstep_balance = "0"', '[scoring] step_balance: write at least "0.01"'),
    ("[scoring]\nmin_score = 901", "[scoring] min_score: must not be above max_score"),
    ('[log]\nlevel = "loud"', '[log] level: write one of "debug", "info", "warning", "error", not \'loud\''),
    ("[console]\nenabled = 1", "[console] enabled: write true or false, not 1"),
    ('[identity]\nkind = "x"', '[identity] kind: write one of "aadhaar", "opaque", not \'x\''),
    ('[clock]\ntimezone = "Asia"', "[clock] timezone: 'Asia' is not known; write an IANA name"),
    ('[clock]\ntimezone = "../x"', "[clock] timezone: '../x' is not known; write an IANA name"),
    ('[clock]\nsandbox_start = "2026-02-30"', "[clock] sandbox_start: write a date"),
    ("[clock]\nsandbox_start = 2026-02-03", "[clock] sandbox_start: write text in quotes"),
    ('[storage]\nurl = "postgresql://x/y"', '[storage] url: write "sqlite:///relative.db"'),
    ('[storage]\nurl = "sqlite:///"', '[storage] url: write "sqlite:///relative.db"'),
    ('[storage]\nurl = "sqlite:///data/"', '[storage] url: write "sqlite:///relative.db"'),
    ("[server", "not TOML: "),
]


@pytest.mark.parametrize(("text", "expected"), FILE_MISTAKES)
def test_a_mistake_in_the_file_is_named(written, text, expected):
    path = written(text)
    message = refusal(path, {})
    assert message.startswith(f"{path}: ")
    assert expected in message


ENVIRONMENT_MISTAKES = [
    ("LEDGERD_CONSOLE_ENABLED", "yes", "write true or false, not 'yes'"),
    ("LEDGERD_SERVER_PORT", "80x", "write a whole number from 0 to 65535, not '80x'"),
    ("LEDGERD_SERVER_PORT", "8_080", "write a whole number from 0 to 65535, not '8_080'"),
    ("LEDGERD_SERVER_PORT", "80.0", "write a whole number"),
    ("LEDGERD_SERVER_PORT", "८०", "write a whole number"),
    ("LEDGERD_SERVER_PORT", "9" * 5000, "write a whole number"),
    ("LEDGERD_SERVER_PORT", "65536", "write a whole number from 0 to 65535, not 65536"),
    (
        "LEDGERD_SERVER_PRT",
        "80",
        "no such key (did you mean LEDGERD_SERVER_PORT?); correct the name or unset it",
    ),
    ("LEDGERD_SERVER_TRUSTED_PROXIES", "10.0.0.1,", "write a list such as"),
    ("LEDGERD_SERVER_TRUSTED_PROXIES", "10.0.0.1;::1", "write addresses or networks; '10.0.0.1;::1' does"),
    (
        "LEDGERD_SERVRE_PORT",
        "80",
        "no such key (did you mean LEDGERD_SERVER_PORT?); correct the name or unset it",
    ),
    (
        "LEDGERD_LIMIT_MAILBOX",
        "80",
        "no such key (did you mean LEDGERD_LIMITS_MAILBOX?); correct the name or unset it",
    ),
    ("LEDGERD_CLOCK_TIMEZONE", "Mars/Base", "'Mars/Base' is not known; write an IANA name"),
    ("LEDGERD_LENDING_MAX_AMOUNT", "5,000", 'write rupees such as "5000.00"'),
]


@pytest.mark.parametrize(("name", "text", "expected"), ENVIRONMENT_MISTAKES)
def test_a_mistake_in_the_environment_names_the_variable(name, text, expected):
    message = refusal(None, {name: text})
    assert message.startswith(f"{name}: {expected}")
    assert len(message) < 200


def test_a_file_that_is_not_there_is_named(tmp_path):
    assert (
        refusal(tmp_path / "none.toml", {})
        == f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory;"
        " name a file that can be, with --config"
    )


def test_a_file_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert refusal(path, {}).startswith(f"{path}: not TOML: ")

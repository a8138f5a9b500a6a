"""Reads the configuration at the start: `config.toml`, then `LEDGERD_<SECTION>_<KEY>` in the environment.

What is wrong is refused with one line that names the key and says what to write instead. Paths come out
absolute. Used by the command line.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from ledgerd.config import KEYS, SECTIONS, SQLITE_URL, Config, shown

PREFIX = "LEDGERD_"
_SWITCH = {"true": True, "false": False}
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_AT_PATH = re.compile(
    r"(?P<problem>.*) - at `\$\.(?P<section>\w+)(?:\.(?P<key>\w+))?(?:\[[.\d]+\])?`", re.DOTALL
)
_LIKE_A_KEY = 0.8  # difflib's measure
# What Kubernetes tells every container of a service that is called ledgerd.
_OF_KUBERNETES = re.compile(r"LEDGERD_(?:SERVICE_(?:HOST|PORT\w*)|PORT(?:_[0-9]+_\w+)?)", re.ASCII)
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<name>.*?)`", re.DOTALL)


class ConfigError(Exception):
    """The configuration is wrong; the message is one line for the person who wrote it."""


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read the file at `path` (None: the defaults), then the environment's overrides.

    Relative paths in the result start at the file's folder, without a file at the working directory.
    Raises ConfigError with a message of one line.
    """
    raw = {} if path is None else _read_toml(path)
    overridden = _override(raw, environ)
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), raw, path, overridden)) from None
    return _anchored(config, Path.cwd() if path is None else path.absolute().parent)


def variable_name(section: str, key: str) -> str:
    """Return the environment variable that overrides a key."""
    return f"{PREFIX}{section}_{key}".upper()


_VARIABLES = {variable_name(*key): key for key in KEYS}


def ignored_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the names that begin like ours and name no key. A name that is nearly a key, or that begins with
    a section's, is refused by `load_config` instead.
    """
    return [
        name
        for name, text in environ.items()
        if text and name.startswith(PREFIX) and name not in _VARIABLES and not _OF_KUBERNETES.fullmatch(name)
    ]


def _is_meant_as_a_key(name: str) -> bool:
    if name.startswith(tuple(variable_name(section, "") for section in SECTIONS)):
        return True
    keys = [each.removeprefix(PREFIX) for each in _VARIABLES]
    near = difflib.get_close_matches(name.removeprefix(PREFIX), keys, n=1, cutoff=_LIKE_A_KEY)
    return bool(near) and not _OF_KUBERNETES.fullmatch(name)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; name a file that can be, with --config"
        ) from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{path}: not TOML: {' '.join(str(error).split())}") from None


def _override(raw: dict[str, Any], environ: Mapping[str, str]) -> set[tuple[str, str]]:
    """Put the environment's values into `raw`; return the keys that it set."""
    overridden = set()
    for name, text in environ.items():
        if not text or not name.startswith(PREFIX):
            continue
        if name not in _VARIABLES:
            if _is_meant_as_a_key(name):
                near = _nearest(name, _VARIABLES)
                raise ConfigError(f"{name}: no such key{near}; correct the name or unset it")
            continue
        section, key = _VARIABLES[name]
        table = raw.setdefault(section, {})
        if isinstance(table, dict):  # otherwise the file is wrong, which the conversion says better
            table[key] = _parsed(name, text, KEYS[section, key])
            overridden.add((section, key))
    return overridden


def _parsed(name: str, text: str, annotation: Any) -> str | bool | int | list[str]:
    if annotation is bool:
        if text.lower() not in _SWITCH:
            raise ConfigError(f"{name}: write {_expected(annotation)}, not {shown(text)}")
        return _SWITCH[text.lower()]
    kind = next(iter(get_args(annotation)), str)
    if get_origin(kind) is list:
        return [each.strip() for each in text.split(",")]
    if kind is not int:
        return text
    if _WHOLE_NUMBER.fullmatch(text) is None:
        raise ConfigError(f"{name}: write {_expected(annotation)}, not {shown(text)}")
    return int(text)


def _explain(message: str, raw: dict[str, Any], path: Path | None, overridden: set[tuple[str, str]]) -> str:
    """Turn msgspec's message into one that names the key as its writer knows it."""
    file = "" if path is None else f"{path}: "
    located = _AT_PATH.fullmatch(message)
    section, key = (located["section"], located["key"]) if located else ("", None)
    problem = located["problem"] if located else message
    unknown = _UNKNOWN_FIELD.match(problem)
    if unknown is not None:
        name = unknown["name"]
        if not section and not isinstance(raw[name], dict):
            homes = [f"[{section}]" for section, key in KEYS if key == name] or ["[server]"]
            return (
                f"{file}{_plain(name)}: is in no section; write it below the line of its section, {homes[0]}"
            )
        if not section:
            return f"{file}[{_plain(name)}]: no such section{_nearest(name, SECTIONS)}; correct or remove it"
        near = _nearest(name, [key for known, key in KEYS if known == section])
        return f"{file}[{section}] {_plain(name)}: no such key{near}; correct or remove it"
    if key is None and not isinstance(raw.get(section), dict):
        return f"{file}{section}: must be a section; write [{section}] above its keys"
    if key is None:  # one of our own checks: "key: what to write"
        key, _, problem = problem.partition(": ")
    else:
        problem = f"write {_expected(KEYS[section, key])}, not {shown(raw[section][key])}"
    if (section, key) in overridden:
        return f"{variable_name(section, key)}: {problem}"
    return f"{file}[{section}] {key}: {problem}"


def _expected(annotation: Any) -> str:
    """Say in words what a key takes."""
    if annotation is bool:
        return "true or false"
    for meta in getattr(annotation, "__metadata__", ()):
        if meta.description is not None:
            return str(meta.description)
        return f"a whole number from {meta.ge} to {meta.le}"
    choices = get_args(annotation)
    return "one of " + ", ".join(f'"{choice}"' for choice in choices) if choices else "text in quotes"


def _nearest(name: str, known: Any) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _plain(name: str) -> str:
    """Show a name that somebody else chose, on one line."""
    return name if name.isidentifier() else shown(name)


def _anchored(config: Config, folder: Path) -> Config:
    """Make every path absolute."""
    storage, auth, scoring = config.storage, config.auth, config.scoring
    if storage.tables_path is not None:
        storage = msgspec.structs.replace(storage, url=f"{SQLITE_URL}{folder / storage.tables_path}")
    auth = msgspec.structs.replace(auth, keys_dir=str(folder / auth.keys_dir))
    if scoring.transactions_csv:
        scoring = msgspec.structs.replace(scoring, transactions_csv=str(folder / scoring.transactions_csv))
    return msgspec.structs.replace(config, storage=storage, auth=auth, scoring=scoring)

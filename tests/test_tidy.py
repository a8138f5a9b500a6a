"""Keeps the house tidy: sizes, docstrings, who imports what, what the rules may not reach for, stray words.

A failure lists each offender with its place. The tables say what is allowed and are part of the design:
change one only together with the reason for it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
LINE_COLUMNS_MAX = {".py": 110} | dict.fromkeys(("", ".in", ".service", ".sql", ".toml", ".yaml"), 120)

# Which modules of ledgerd/ may import a dependency: files, or folders with a slash at the end.
OWNERS = {
    "aiocron": ("scheduler/cron.py",),
    "cronsim": ("scheduler/cron.py",),
    "aiohttp": ("client/", "http/", "app.py", "control.py", "demo/"),
    "aiosqlite": ("storage/sqlite.py",),
    "argon2": ("http/passwords.py",),
    "cryptography": ("http/keyring.py", "storage/vault.py"),
    "jinja2": ("http/console/render.py", "http/pages.py"),
    "jwt": ("http/tokens.py",),
    "prometheus_client": ("metrics.py",),
    "rich": ("cli.py", "demo/"),
    "sqlite3": ("storage/",),
    "stdnum": ("storage/vault.py", "sample.py"),
    "structlog": ("observe.py",),
    "typer": ("cli.py",),
    "uvloop": ("app.py", "cli.py", "storage/process.py"),
}
# Dependencies that are imported under another name; tzdata is read by zoneinfo, msgspec is for everyone.
IMPORT_NAMES = {"argon2-cffi": "argon2", "pyjwt": "jwt", "python-stdnum": "stdnum"}
EVERYWHERE = {"msgspec", "tzdata"}

# Tests of more than one module, and modules of declarations that the tests of their users cover.
TESTS_OF_THE_WHOLE = {
    "storage/test_contract.py",
    "test_deploy.py",
    "test_deploy_alerts.py",
    "test_docs.py",
    "test_life.py",
    "test_reference.py",
    "test_tidy.py",
}
FOLDERS_OF_THE_WHOLE = {
    "browser",
    "canaries",
    "crash",
    "damage",
    "deploy",
    "fuzz",
    "hostile",
    "overload",
    "simulation",
}
WITHOUT_OWN_TEST = {
    "actors/messages.py",
    "http/console/visit.py",
    "storage/ports.py",
}

# Chance, time and output come into these rooms through the door, as arguments.
INNER_ROOMS = ("domain", "actors")
OUT_OF_REACH = re.compile(
    r"(?:datetime\.)?(?:datetime\.(?:now|utcnow|today)|date\.today)"
    r"|time\.\w+|random\.\w+|uuid\.\w+|secrets\.\w+|os\.urandom|print|float|input|open"
)

STRAY_WORDS = re.compile(
    r"\b(?:TODO|FIXME|HACK)\b"
    r"|pytest\.skip|mark\.skip|mark\.xfail|\bskipif\b"
    r"|(?<![\w.~:-])/(?:work|root|home|tmp)/|\.pyenv"
    r"|pypi\.org|pythonhosted\.org|registry\.npmjs"
    r"|\b(?:issue|PR) #?[0-9]+\b"
)
STRAY_FILE_NAMES = re.compile(r"(?:^|[/_.-])(?:old|copy|final|draft|untitled|scratch|wip)(?:[/_.-]|$)")


def none(offenders: Iterable[str]) -> None:
    found = sorted(offenders)
    assert not found, "\n".join(["", *found])


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def all_files() -> list[Path]:
    """Every file that belongs to the project, whether or not this is a git checkout."""
    below = [
        path
        for folder in ("ledgerd", "tests", "bench", "examples", "docs", "requirements", ".ci", "deploy")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    top = [path for path in ROOT.iterdir() if path.suffix in {".md", ".toml"} or path.name == "Makefile"]
    return sorted(below + top)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """The top-level names of what a module imports, also inside functions."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def dotted(node: ast.AST) -> str:
    """`a.b.c` for an attribute chain, else ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := dotted(node.value)):
        return f"{inner}.{node.attr}"
    return ""


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{relative(path)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


# Sizes -------------------------------------------------------------------------------------------


def test_modules_can_be_read_in_one_sitting():
    lengths = {
        relative(path): len(path.read_text().splitlines())
        for path in python_files("ledgerd", "bench", "examples")
    }
    none(f"{path}: {lines} lines" for path, lines in lengths.items() if lines > MODULE_LINES_MAX)


def test_functions_can_be_seen_whole():
    long = [
        f"{name}: {lines} lines"
        for path in python_files("ledgerd", "tests", "bench", "examples")
        for name, lines in functions(path)
        if lines > FUNCTION_LINES_MAX
    ]
    none(long)


def test_lines_fit():
    long = [
        f"{relative(path)}:{number}"
        for path in all_files()
        if path.suffix in LINE_COLUMNS_MAX
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > LINE_COLUMNS_MAX[path.suffix]
    ]
    none(long)


def test_every_module_says_what_it_is_for():
    silent = [
        relative(path)
        for path in python_files("ledgerd", "bench", "examples")
        if path.read_text().strip() and not ast.get_docstring(tree(path))
    ]
    none(silent)


# Imports -----------------------------------------------------------------------------------------


def test_imports_go_one_way():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_each_dependency_has_its_owner():
    strays = [
        f"{relative(path)}: {name}"
        for path in python_files("ledgerd")
        for name in imported(path) & OWNERS.keys()
        if not path.relative_to(ROOT / "ledgerd").as_posix().startswith(OWNERS[name])
    ]
    none(strays)


def test_the_rules_import_the_standard_library_and_msgspec_alone():
    allowed = sys.stdlib_module_names | {"msgspec", "ledgerd"}
    strays = [
        f"{relative(path)}: {name}"
        for path in python_files("ledgerd/domain")
        for name in imported(path) - allowed
    ]
    none(strays)


def test_dependencies_are_named_once_and_all_are_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (ROOT / "requirements" / "run.in").read_text().splitlines()
    assert sorted(project) == sorted(line for line in lines if line and not line.startswith("#"))
    names = {re.split(r"[<>=!~ ;]", line)[0] for line in project} - EVERYWHERE
    modules = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}
    assert modules == OWNERS.keys() - sys.stdlib_module_names
    used = set().union(*(imported(path) for path in python_files("ledgerd")))
    none(modules - used)


# What the inner rooms may not do -------------------------------------------------------------------


def test_chance_and_time_come_in_through_the_door():
    strays = [
        f"{relative(path)}:{node.lineno} {dotted(node)}"
        for room in INNER_ROOMS
        for path in python_files(f"ledgerd/{room}")
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Attribute) and OUT_OF_REACH.fullmatch(dotted(node)))
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and OUT_OF_REACH.fullmatch(node.func.id)
        )
    ]
    none(strays)
    hidden = [
        f"{relative(path)}: {name}"
        for room in INNER_ROOMS
        for path in python_files(f"ledgerd/{room}")
        for name in imported(path) & {"random", "secrets", "time", "uuid"}
    ]
    none(hidden)


def test_the_rules_know_no_float_and_no_loop():
    floats = [
        f"{relative(path)}:{node.lineno}"
        for path in python_files("ledgerd/domain")
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
        or isinstance(node, ast.AsyncFunctionDef)
    ]
    none(floats)


# Tests mirror modules ------------------------------------------------------------------------------


def test_every_test_has_its_module():
    """tests/x/test_y.py, or test_y_of_something.py, is about ledgerd/x/y.py; tests/bench is about bench/, and
    tests/examples about examples/.
    """
    strays = []
    for path in python_files("tests"):
        inside = path.relative_to(ROOT / "tests")
        if not path.name.startswith("test_") or inside.parts[0] in FOLDERS_OF_THE_WHOLE:
            continue
        if inside.as_posix() in TESTS_OF_THE_WHOLE:
            continue
        room = ROOT if inside.parts[0] in {"bench", "examples"} else ROOT / "ledgerd"
        stems = {module.stem for module in (room / inside.parent).glob("*.py")}
        about = path.stem.removeprefix("test_")
        if not any(about == stem or about.startswith(f"{stem}_") for stem in stems):
            strays.append(inside.as_posix())
    none(strays)


def test_every_module_has_its_test():
    untested = []
    for path in python_files("ledgerd"):
        inside = path.relative_to(ROOT / "ledgerd")
        if path.name.startswith("__") or inside.as_posix() in WITHOUT_OWN_TEST:
            continue
        if not list((ROOT / "tests" / inside.parent).glob(f"test_{path.stem}*.py")):
            untested.append(inside.as_posix())
    none(untested)


# Stray words and files -----------------------------------------------------------------------------


def test_no_stray_words():
    text_kinds = {".py", ".md", ".toml", ".sql", ".txt", ".in", ".service", ".yml", ".yaml", ""}
    strays = [
        f"{relative(path)}:{number}: {found[0]}"
        for path in all_files()
        if path.suffix in text_kinds and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (found := STRAY_WORDS.search(line))
    ]
    none(strays)


def test_no_stray_files():
    none(relative(path) for path in all_files() if STRAY_FILE_NAMES.search(relative(path)))

"""The documents say what the code does: keys, problems, routes, commands, links and files, both ways."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest
import typer

import ledgerd
from ledgerd.cli import app
from ledgerd.config import KEYS
from ledgerd.http.problems import PROBLEMS
from ledgerd.http.route import Route
from ledgerd.http.routes import ROUTES
from ledgerd.scheduler.importer import ImportSummary

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BAD_INPUTS = (ROOT / "docs" / "bad-inputs.md").read_text(encoding="utf-8")
FAULTS = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
THREATS = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
# For good: a number is never given to something else.
BAD_INPUT_NUMBERS = [*range(1, 31), *range(62, 91)]
FAULT_NUMBERS = [*range(31, 62)]
DOES_NOT_APPLY = {61}

WHO = {
    "anyone": set(),
    "any token": {"borrower", "payments:write", "ops"},
    "borrower": {"borrower"},
    "owner, `ops`": {"borrower", "ops"},
    "owner, `payments:write`": {"borrower", "payments:write"},
    "borrower, `payments:write`": {"borrower", "payments:write"},
    "`payments:write`": {"payments:write"},
    "`ops`": {"ops"},
}


def section(text: str, heading: str) -> str:
    """What stands under a heading of the second level."""
    return text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def in_backticks(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def commands(group: typer.core.TyperGroup, prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command of the command line with its options."""
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", {option for param in command.params for option in param.opts}


COMMANDS = dict(commands(typer.main.get_command(app)))


# Configuration and commands ------------------------------------------------------------------------


def test_every_key_is_named_and_none_besides():
    listed = {
        (section_name.strip("`[]"), key)
        for section_name, keys in rows(section(README, "Configuration"))
        for key in in_backticks(keys)
    }
    assert listed == set(KEYS)


def test_every_command_is_named_and_none_besides():
    listed = [in_backticks(name)[0] for name, _ in rows(section(README, "Commands"))]
    words = [re.sub(r" [A-Z]+$", "", name).removeprefix("ledgerd ") for name in listed]
    assert sorted(words) == sorted(COMMANDS)


def test_every_command_line_can_be_given():
    """Each `ledgerd ..` in a document is a command, with options that it has."""
    found = [
        (path.name, line)
        for path in DOCUMENTS
        for line in re.findall(r"ledgerd ((?:[a-z-]+ )?[a-z-]+[^`|\n;]*)", _code(path.read_text("utf-8")))
    ]
    assert found
    for name, line in found:
        known = [command for command in COMMANDS if f"{line} ".startswith(f"{command} ")]
        assert known, f"{name}: ledgerd {line}"
        assert set(re.findall(r"--[a-z]+", line)) <= COMMANDS[known[0]] | {"--help"}, f"{name}: {line}"


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for path in DOCUMENTS
        for target in re.findall(r"\bmake ([a-z-]+)", _code(path.read_text("utf-8")))
    }
    assert {"run", "demo", "test", "check"} <= named <= targets


# Routes and problems -------------------------------------------------------------------------------


def test_every_route_is_named_with_who_may_call_it():
    listed = {}
    for call, who, _ in rows(section(API, "Calls")):
        for name in in_backticks(call):
            listed[name if " " in name else f"GET {name}"] = WHO[who]
    for page in ("/openapi.json", "/docs", "/problems"):
        assert listed.pop(f"GET {page}") == set()
    assert listed == {f"{route.method} {route.path}": set(route.scopes) for route in ROUTES}


def test_every_problem_is_named_with_its_status():
    listed = [(in_backticks(slug)[0], int(status)) for slug, status, _ in rows(section(API, "Problems"))]
    assert dict(listed) == {slug: kind.status for slug, kind in PROBLEMS.items()}
    assert len(listed) == len(PROBLEMS)
    assert [status for _, status in listed] == sorted(status for _, status in listed)


def test_every_curl_line_is_a_call():
    lines = re.findall(r"curl -\w+ \"?\$URL([^ ?\"]+)(.*)", README)
    assert len(lines) >= 8
    for path, rest in lines:
        data = re.search(r"-d '(\{[^']*\})'", rest)
        method = "POST" if " -d " in rest else "GET"
        route = _route(method, path)
        assert route is not None, f"{method} {path}"
        if data is not None:
            assert route.body is not None
            msgspec.json.decode(data[1], type=route.body)


def test_the_import_s_summary_has_these_fields():
    [shown] = re.findall(r"^\{\"path\".*\}$", README, re.MULTILINE)
    assert list(msgspec.json.decode(shown)) == list(ImportSummary.__struct_fields__)


def _route(method: str, path: str) -> Route | None:
    return next((route for route in ROUTES if (route.method, route.path) == (method, path)), None)


# Bad inputs and faults -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"), [(BAD_INPUTS, BAD_INPUT_NUMBERS), (FAULTS, FAULT_NUMBERS)], ids=["inputs", "faults"]
)
def test_every_bad_input_and_fault_has_its_number_and_tests_that_exist(text, numbers):
    listed = [row for part in text.split("\n## ")[1:] for row in rows(part)]
    assert [int(number) for number, *_ in listed] == numbers
    for number, tried, must_come, held_by in listed:
        assert tried, number
        assert must_come, number
        tests = in_backticks(held_by)
        assert (not tests) == (int(number) in DOES_NOT_APPLY), f"{number} is held by no test"
        assert held_by == ", ".join(f"`{test}`" for test in dict.fromkeys(tests)), number
        for test in tests:
            path, _, name = test.partition("::")
            assert name in _names_of_tests(ROOT / path), f"{number}: {test}"


def test_every_threat_has_tests_that_exist():
    threats = rows(section(THREATS, "Threats"))
    assert len(threats) > 10
    for tried, kinds, against, held_by in threats:
        assert set(kinds.split(", ")) <= set("STRIDE"), tried
        assert against, tried
        assert in_backticks(held_by), f"{tried} is held by no test"
        for test in in_backticks(held_by):
            path, _, name = test.partition("::")
            assert name in _names_of_tests(ROOT / path), f"{tried}: {test}"
    assert {f"API{number}" for number in range(1, 11)} <= set(re.findall(r"API[0-9]+", str(threats)))


def test_every_route_is_an_entry_of_the_threat_model():
    _, _, entries = section(THREATS, "Where trust ends").partition("| entry |")
    named = [name for name in in_backticks(entries) if name.startswith(("GET ", "POST "))]
    assert sorted(named) == sorted(f"{route.method} {route.path}" for route in ROUTES)


@cache
def _names_of_tests(path: Path) -> set[str]:
    """The names of the tests of a file."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    body = ast.parse(path.read_text("utf-8"), str(path)).body
    return {node.name for node in body if isinstance(node, functions) and node.name.startswith("test_")}


# Links and files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            there = path.parent / file if file else path
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def anchors(path: Path) -> set[str]:
    """What a link may name behind its #: the headings of a document, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(path):
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|toml|md))[`:]", path.read_text("utf-8"))
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "ledgerd" / name).exists(), name


def test_the_runbook_keeps_the_names_that_alerts_lead_to():
    kept = "install upgrade back-up restore lost-disk rotate-keys stuck-night full-disk slow-disk overload"
    also = "verify-found-a-difference clock restarted does-not-start"
    assert anchors(ROOT / "docs" / "runbook.md") == {"runbook", *kept.split(), *also.split()}


def test_the_runbook_looks_at_metrics_that_exist():
    named = set(re.findall(r"\bledgerd_[a-z_]+[a-z]\b", (ROOT / "docs" / "runbook.md").read_text("utf-8")))
    listed = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert len(named) >= 8
    assert [name for name in sorted(named) if f"`{name}" not in listed] == []


def test_decisions_are_numbered_and_complete():
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    for path in decisions:
        text = path.read_text("utf-8")
        assert text.startswith(f"# {int(path.name[:4])}. "), path.name
        parts = re.findall(r"^\*\*([^*]+)\.\*\*", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "To undo"], path.name


def test_the_changelog_knows_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## \[{re.escape(ledgerd.__version__)}\]", changelog, re.MULTILINE)


def _code(text: str) -> str:
    """Only what stands in backticks or code blocks, a line each; of a console what is typed."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL)
    typed = [
        re.split(r" \| | 2>|; ", line.removeprefix("$ "))[0]
        for block in blocks
        for line in block.splitlines()
        if line.startswith(("$ ", "make ", "ledgerd "))
    ]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return "\n".join([*typed, *(code for code in in_backticks(prose) if "\n" not in code)])

"""The scripts complete what there is: in a real bash, and for the others by what they name."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from ledgerd.cli import app, tree
from ledgerd.completion import SHELLS, Command, Option, bash, fish, zsh

ROOT = tree(typer.main.get_command(app))
ASK = """
COMP_WORDS=({words}) COMP_CWORD={last}
_ledgerd
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(*lines: str, cwd: Path | None = None) -> list[set[str]]:
    """What a press of Tab offers at the end of each line, in a bash that has read the script."""
    asked = []
    for line in lines:
        words = shlex.split(line) + ([""] if line.endswith(" ") else [])
        asked.append(ASK.format(words=shlex.join(words), last=len(words) - 1))
    run = subprocess.run(
        ["bash", "--norc", "-c", bash(ROOT) + "echo; echo ===".join(["", *asked])],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    return [set(part.split("\n")) - {""} for part in run.stdout.split("===\n")[1:]]


def test_bash_completes_every_command_and_every_option():
    places = list(ROOT.walk())
    assert len(places) > 12
    lines = [" ".join(["ledgerd", *path]) for path, _ in places]
    options = completed(*(f"{line} --" for line in lines))
    for (path, command), offered in zip(places, options, strict=True):
        assert offered == {option.name for option in command.options}, path
    groups = [(path, command) for path, command in places if command.commands]
    below = completed(*(" ".join(["ledgerd", *path, ""]) for path, _ in groups))
    for (path, command), offered in zip(groups, below, strict=True):
        assert offered == {each.name for each in command.commands}, path


def test_bash_completes_what_is_taken(tmp_path: Path):
    (tmp_path / "history of May.csv").touch()
    (tmp_path / "here.toml").touch()
    table = {
        "ledgerd ver": {"verify"},
        "ledgerd client cr": {"create"},
        "ledgerd completion ": {"bash", "zsh", "fish"},
        "ledgerd serve ": {"--config", "--help"},  # it takes nothing else
        "ledgerd serve --config he": {"here.toml"},
        "ledgerd import-transactions --config here.toml hi": {"history of May.csv"},
        "ledgerd backup verify --config h": {"here.toml", "history of May.csv"},
        "ledgerd client create --scope ": {"payments:write", "ops"},
        "ledgerd client create till --scope ops --scope pay": {"payments:write"},
        "ledgerd bill --date ": set(),  # which nobody knows but the one who asks
        "ledgerd sevre --": {"--version", "--help"},
    }
    assert dict(zip(table, completed(*table, cwd=tmp_path), strict=True)) == table


def test_bash_is_told_whom_it_completes():
    said = subprocess.run(
        ["bash", "--norc", "-c", bash(ROOT) + "complete -p ledgerd"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "complete -F _ledgerd ledgerd\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_others_name_every_command_and_option(shell: str):
    script = SHELLS[shell](ROOT)
    for path, command in ROOT.walk():
        if path:
            assert f"{path[-1]}{':' if shell == 'zsh' else ' -d '}" in script.replace("'", ""), path
        for option in command.options:
            named = f"'{option.name}[" if shell == "zsh" else f" -l {option.name.removeprefix('--')} -d '"
            assert named in script, option


SMALL = Command(
    "ledgerd", "", (), "", (Command("say", "Isn't it", (Option("--how", "[a]: b", "a:b|c"),), "FILE"),)
)


def test_quotes_and_brackets_of_a_help_do_not_end_it():
    assert """'say:Isn'"'"'t it'""" in zsh(SMALL)
    assert r"'--how[\[a\]\: b]:a\:b|c:(a\:b c)' '1:FILE:_files'" in zsh(SMALL)
    assert """-a say -d 'Isn'"'"'t it'\n""" in fish(SMALL)
    assert "-l how -d '[a]: b' -x -a 'a:b c'\n" in fish(SMALL)

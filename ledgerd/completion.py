"""Scripts that complete command lines in bash, zsh and fish, written from the tree of commands.

A script has everything in it: a press of Tab does not start Python. What an option or an argument takes is
read off its name in the help: FILE and PATH are files, `a|b` is one of these words, anything else is free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple


class Option(NamedTuple):
    """An option: `name` with its dashes; it `takes` nothing (""), or what its help shows."""

    name: str
    help: str
    takes: str = ""


class Command(NamedTuple):
    """A command or a group of them; `takes` is its argument as its help shows it, "" without one."""

    name: str
    help: str
    options: tuple[Option, ...] = ()
    takes: str = ""
    commands: tuple[Command, ...] = ()

    def walk(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
        """Yield this command and all below it, each with the words that lead to it."""
        yield path, self
        for command in self.commands:
            yield from command.walk((*path, command.name))


def _is_files(takes: str) -> bool:
    return takes in {"FILE", "PATH"}


def _words(takes: str) -> list[str]:
    return takes.split("|") if "|" in takes else []


def _quoted(text: str) -> str:
    """Quote for any of the three shells; fish takes a backslash before a quote as the others take this."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def bash(root: Command) -> str:
    """Return the script for bash, from 3.2 on."""

    def listed(words: list[str]) -> str:
        return "$'" + "\\n".join(words) + "'"

    def taken(takes: str) -> str:
        return "FILE" if _is_files(takes) else listed(_words(takes))

    def at(path: tuple[str, ...]) -> str:
        return '"' + "".join(f" {word}" for word in path) + '"'

    known = "|".join(at(path) for path, _ in root.walk() if path)
    cases, values = [], []
    for path, command in root.walk():
        names = listed([option.name for option in command.options])
        takes = listed([each.name for each in command.commands]) if command.commands else taken(command.takes)
        cases.append(f"        {at(path)}) options={names} takes={takes} ;;")
        values += [
            f"        {at((*path, option.name))}) options= takes={taken(option.takes)} ;;"
            for option in command.options
            if option.takes
        ]
    return _BASH % {"known": known, "cases": "\n".join(cases), "values": "\n".join(values)}


_BASH: Final = r"""# Completes ledgerd in bash.
_ledgerd() {
    local IFS=$'\n' cur=${COMP_WORDS[COMP_CWORD]} path= options= takes= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$path ${COMP_WORDS[i]}" in
            %(known)s) path="$path ${COMP_WORDS[i]}" ;;
        esac
    done
    case "$path" in
%(cases)s
    esac
    case "$path ${COMP_WORDS[COMP_CWORD-1]}" in
%(values)s
    esac
    if [[ $cur == -* || -z $takes ]]; then takes=$options; fi
    case "$takes" in
        FILE) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")) ;;
        *) COMPREPLY=($(compgen -W "$takes" -- "$cur")) ;;
    esac
}
complete -F _ledgerd ledgerd
"""


def zsh(root: Command) -> str:
    """Return the script for zsh: a function for each group of commands."""

    def escaped(text: str) -> str:
        return text.translate({ord(mark): f"\\{mark}" for mark in "[]:"})

    def value(takes: str) -> str:
        if not takes:
            return ""
        words = escaped(" ".join(_words(takes)))
        return f":{escaped(takes)}:{'_files' if _is_files(takes) else f'({words})' if words else ' '}"

    def arguments(command: Command) -> str:
        specs = [f"{each.name}[{escaped(each.help)}]{value(each.takes)}" for each in command.options]
        if command.takes:
            specs.append(f"1{value(command.takes)}")
        return " ".join(map(_quoted, specs))

    functions = []
    for path, command in root.walk():
        if command.commands:
            named = [f"{each.name}:{each.help}" for each in command.commands]
            functions.append(
                _ZSH_GROUP
                % {
                    "function": "_".join(("_ledgerd", *path)),
                    "arguments": arguments(command),
                    "named": " ".join(map(_quoted, named)),
                    "cases": "\n".join(
                        f"                {each.name}) "
                        + (
                            "_".join(("_ledgerd", *path, each.name))
                            if each.commands
                            else f"_arguments {arguments(each)}"
                        )
                        + " ;;"
                        for each in command.commands
                    ),
                }
            )
    return "#compdef ledgerd\n" + "".join(functions) + _ZSH_END


_ZSH_GROUP: Final = """
%(function)s() {
    local line state
    local -a named=(%(named)s)
    _arguments -C %(arguments)s '1: :->command' '*:: :->rest' && return
    case $state in
        command) _describe command named ;;
        rest)
            case $line[1] in
%(cases)s
            esac ;;
    esac
}
"""
_ZSH_END: Final = """
if [[ $funcstack[1] == _ledgerd ]]; then _ledgerd "$@"; else compdef _ledgerd ledgerd; fi
"""


def fish(root: Command) -> str:
    """Return the script for fish."""

    def value(takes: str) -> str:
        if not takes:
            return ""
        return " -r -F" if _is_files(takes) else f" -x -a {_quoted(' '.join(_words(takes)))}"

    lines = ["# Completes ledgerd in fish.", "complete -c ledgerd -f"]
    for path, command in root.walk():
        seen = [f"__fish_seen_subcommand_from {word}" for word in path]
        below = " ".join(each.name for each in command.commands)
        if below:
            seen.append(f"not __fish_seen_subcommand_from {below}")
        start = f"complete -c ledgerd -n {_quoted('; and '.join(seen))}"
        lines += [f"{start} -a {each.name} -d {_quoted(each.help)}" for each in command.commands]
        lines += [
            f"{start} -l {option.name.removeprefix('--')} -d {_quoted(option.help)}{value(option.takes)}"
            for option in command.options
        ]
        if _is_files(command.takes):
            lines.append(f"{start} -F")
        elif words := _words(command.takes):
            lines.append(f"{start} -a {_quoted(' '.join(words))}")
    return "\n".join([*lines, ""])


SHELLS: Final[dict[str, Callable[[Command], str]]] = {"bash": bash, "zsh": zsh, "fish": fish}

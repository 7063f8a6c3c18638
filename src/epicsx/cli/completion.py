"""Print a script that completes the command line of `epicsx` in a shell.

source <(epicsx completion bash)                          in ~/.bashrc
source <(epicsx completion zsh)                           in ~/.zshrc, after compinit
epicsx completion fish > ~/.config/fish/completions/epicsx.fish
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Command", "Option", "arguments", "run", "script", "tree"]

SHELLS = ("bash", "zsh", "fish")
_FILES = re.compile(r"FILE|SNAPSHOT|SCRIPT|before|after", re.IGNORECASE)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the shell."""
    parser.add_argument("shell", choices=SHELLS)


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from . import command_parser

    print(script(options.shell, tree(command_parser())), end="")
    return 0


# ---------------------------------------------------------------------- what there is


@dataclass
class Option:
    """An option, by all its names."""

    names: list[str]
    help: str
    takes: bool
    choices: list[str]
    files: bool


@dataclass
class Command:
    """A command or subcommand: its options, its subcommands, and whether its arguments are files."""

    words: list[str]
    help: str
    options: list[Option] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)
    files: bool = False

    def all(self) -> Iterator[Command]:
        """The command itself and all below."""
        yield self
        for each in self.commands:
            yield from each.all()


def _is_file(action: argparse.Action) -> bool:
    return bool(_FILES.fullmatch(str(action.metavar or action.dest)))


def tree(parser: argparse.ArgumentParser, words: tuple[str, ...] = (), told: str = "") -> Command:
    """The commands and options of an argparse parser."""
    found = Command(list(words) or [parser.prog], told)
    for action in parser._actions:
        helped = str(action.help or "") % {**vars(action), "prog": parser.prog}
        helped = " ".join(helped.split())
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            for name, sub in action.choices.items():
                found.commands.append(tree(sub, (*found.words, name), helps.get(name, "")))
            continue
        choices = [str(choice) for choice in action.choices or ()]
        if action.option_strings:
            takes = action.nargs is None
            option = Option(list(action.option_strings), helped, takes, choices, _is_file(action))
            found.options.append(option)
        else:
            found.choices += choices
            found.files = found.files or _is_file(action)
    return found


def script(shell: str, command: Command) -> str:
    """The completion script for `shell`."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](command)


# ---------------------------------------------------------------------- bash


def _bash(root: Command) -> str:
    """A function that walks the words to the subcommand, then offers its options or what it takes."""
    walk, offers, values = [], [], []
    for each in root.all():
        path = "/".join(each.words)
        for sub in each.commands:
            walk.append(f"      {path}:{sub.words[-1]}) path={'/'.join(sub.words)} ;;")
        names = [name for option in each.options for name in option.names]
        words = [sub.words[-1] for sub in each.commands] + each.choices
        files = "files=1" if each.files else "files="
        offers.append(
            f"    {path}) options={shlex.quote(' '.join(names))}"
            f" words={shlex.quote(' '.join(words))} {files} ;;"
        )
        for option in each.options:
            if option.takes:
                case = "|".join(shlex.quote(f"{path}:{name}") for name in option.names)
                what = "__files" if option.files else " ".join(option.choices)
                values.append(f"    {case}) value={shlex.quote(what or '__none')} ;;")
    return f"""\
# bash completion for epicsx, made by: epicsx completion bash
_epicsx() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev= path=epicsx word i
  local options= words= files= value=
  [ "$COMP_CWORD" -gt 0 ] && prev=${{COMP_WORDS[COMP_CWORD-1]}}
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${{COMP_WORDS[i]}}
    case "$path:$word" in
{chr(10).join(walk)}
    esac
  done
  case "$path:$prev" in
{chr(10).join(values)}
  esac
  COMPREPLY=()
  case "$value" in
    __none) return ;;
    __files) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")); return ;;
    ?*) COMPREPLY=($(compgen -W "$value" -- "$cur")); return ;;
  esac
  case "$path" in
{chr(10).join(offers)}
  esac
  case "$cur" in
    -*) COMPREPLY=($(compgen -W "$options" -- "$cur")) ;;
    *)
      COMPREPLY=($(compgen -W "$words" -- "$cur"))
      if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY+=($(compgen -f -- "$cur"))
      fi ;;
  esac
}}
complete -F _epicsx epicsx
"""


# ---------------------------------------------------------------------- zsh


def _zsh_text(text: str) -> str:
    """A text inside of a specification of _arguments or _describe."""
    return re.sub(r"([\\:\[\]])", r"\\\1", text)


def _zsh(root: Command) -> str:
    functions = "\n".join(_zsh_function(each) for each in reversed(list(root.all())))
    return f"""\
#compdef epicsx
# zsh completion for epicsx, made by: epicsx completion zsh
{functions}
if [ "$funcstack[1]" = "_epicsx" ]; then
  _epicsx "$@"
else
  compdef _epicsx epicsx
fi
"""


def _zsh_function(command: Command) -> str:
    name = "_" + "_".join(command.words)
    lines = []
    for option in command.options:
        value = ""
        if option.takes:
            offered = (
                "_files"
                if option.files
                else f"({' '.join(option.choices)})"
                if option.choices
                else " "
            )
            value = f":value:{offered}"
        for each in option.names:
            # a value may also be attached: -f3, --output=FILE
            plus = ("=" if each.startswith("--") else "+") if option.takes else ""
            told = _zsh_text(option.help)
            lines.append("    " + shlex.quote(f"*{each}{plus}[{told}]{value}") + " \\")
    if command.commands:
        told = " ".join(
            shlex.quote(f"{sub.words[-1]}:{_zsh_text(sub.help)}") for sub in command.commands
        )
        cases = "\n".join(
            f"      {sub.words[-1]}) _{'_'.join(sub.words)} ;;" for sub in command.commands
        )
        return f"""\
{name}() {{
  local state line context
  typeset -A opt_args
  local -a commands=({told})
  _arguments -C \\
{chr(10).join(lines)}
    '1:command:->command' '*::argument:->argument'
  case $state in
    command) _describe command commands ;;
    argument) case $line[1] in
{cases}
    esac ;;
  esac
}}"""
    offered = (
        f"({' '.join(command.choices)})" if command.choices else "_files" if command.files else " "
    )
    lines.append("    " + shlex.quote(f"*:argument:{offered}"))
    body = "\n".join(lines)
    return f"{name}() {{\n  _arguments -s \\\n{body}\n}}"


# ---------------------------------------------------------------------- fish


def _fish(root: Command) -> str:
    lines = [
        "# fish completion for epicsx, made by: epicsx completion fish",
        "complete -c epicsx -f",
    ]
    for each in root.all():
        seen = [f"__fish_seen_subcommand_from {word}" for word in each.words[1:]]
        below = [sub.words[-1] for sub in each.commands]
        here = seen + ([f"not __fish_seen_subcommand_from {' '.join(below)}"] if below else [])
        condition = "; and ".join(here)
        begin = "complete -c epicsx" + (f" -n {_fish_text(condition)}" if condition else "")
        for sub in each.commands:
            lines.append(f"{begin} -a {sub.words[-1]} -d {_fish_text(sub.help)}")
        if each.choices:
            lines.append(f"{begin} -a {_fish_text(' '.join(each.choices))}")
        if each.files:
            lines.append(f"{begin} -F")
        for option in each.options:
            names = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {_fish_text(name[1:])}"
                for name in option.names
            )
            value = ""
            if option.takes:
                value = " -r -F" if option.files else " -x"
                if option.choices:
                    value += f" -a {_fish_text(' '.join(option.choices))}"
            lines.append(f"{begin} {names}{value} -d {_fish_text(option.help)}")
    return "\n".join(lines) + "\n"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

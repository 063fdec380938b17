"""How configurations are read: from a command line and YAML files, by a parser over their types."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ActionYesNo, ArgumentParser, Namespace, set_parsing_settings

from mowst.data.columns import Columns
from mowst.errors import InputError, meant
from mowst.experiment.checks import metadata, used
from mowst.experiment.config import Config
from mowst.experiment.expert import AUTO
from mowst.experiment.helping import help_asked, help_text
from mowst.system.documents import read_yaml

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parser(command: str, purpose: str, *, config: bool = True) -> ArgumentParser:
    """Return a parser for `mowst <command>`, with every field of `Config` as a flag if asked for."""
    made = ArgumentParser(prog=f"mowst {command}", description=purpose, exit_on_error=False, allow_abbrev=False)
    if config:
        made.add_argument("--config", action="config", help="YAML file with any of the fields below.")
        made.add_class_arguments(Config)
    return made


def add_switch(made: ArgumentParser, flag: str, default: bool, about: str) -> None:
    """Add an option that may stand alone (`--overwrite`), be denied (`--no-overwrite`), or have a value."""
    made.add_argument(flag, action=ActionYesNo(yes_prefix="", no_prefix="no_"), nargs="?", default=default, help=about)


def parse(made: ArgumentParser, arguments: Sequence[str] | None) -> Namespace:
    """Parse a command line, or print its help; raise `InputError` with one line where it is wrong."""
    words = [word for argument in (sys.argv[1:] if arguments is None else arguments) for word in spelled(argument)]
    if asked := help_asked(words):
        print(help_text(made, asked), end="")
        raise SystemExit(0)
    for flag, value in zip(words, [*words, ""][1:], strict=True):
        name, _, joined = flag.partition("=")
        if name == "--trust":
            from mowst.names import trust

            trust(joined or value)
    for word, before in zip(words, ["", *words], strict=False):
        flag, joined, value = word.partition("=")
        flag, path = (flag, value) if joined else (before, word)
        is_graph = flag in GRAPHS and path.endswith(".json")
        if path.endswith((".yaml", ".yml", ".json")) and not is_graph and Path(path).is_file():
            check_file(Path(path))
    try:
        read = made.parse_args(standing_alone(short_kinds(words)))
        check_parts(read)
        return made.instantiate(read)
    except (ArgumentError, TypeError) as error:
        raise InputError(said_plainly(str(error), made, words)) from None


def check_parts(read: Namespace) -> None:
    """Say of which part it is that a value is wrong."""
    for name, hint in get_type_hints(Config).items():
        if is_dataclass(hint) and isinstance(hint, type) and name in read:
            try:
                hint(**vars(read[name]))
            except InputError as error:
                raise InputError(f"{name}.{error}") from None


GRAPHS = {"--dataset", "--graph"}
"""Options whose value may be a graph in a JSON file."""
CODE = {
    "weak.kind": "expert",
    "strong.kind": "expert",
    "gate.kind": "gate",
    "gate.dispersions": "dispersion",
    "dataset": "loader",
    "regime": "regime",
    "objective": "objective",
    "optimizer": "optimizer",
    "signal": "signal",
}
"""Fields that name code, and the kind that it is of."""


def check_file(path: Path) -> None:
    """Refuse a configuration's file that is no plain YAML, or names code of others (`mowst.names.vet`)."""
    from mowst.names import vet  # which --help need not wait for

    found = read_yaml("configuration", path)
    if not isinstance(found, dict):
        shown = "empty" if found is None else repr(found)
        raise InputError(f"configuration {path}: must have fields, as in epochs: 100, and is {shown}")
    for field, kind in CODE.items():
        part, _, name = field.partition(".")
        held = found.get(part)
        if name:
            if isinstance(held, str):
                raise InputError(f"{path}: {part}: must have a kind and its options, is {held!r}")
            held = held.get(name) if isinstance(held, dict) else None
        for each in held if isinstance(held, list) else [held]:
            if field != "dataset" or not str(each).endswith((".yaml", ".yml")):
                vet(f"{path}: {field}", kind, each)
    for name in loss_names(found.get("kd")):
        vet(f"{path}: kd", "loss", name)


def loss_names(kd: Any) -> list[str]:
    """Return every name in a specification of losses, those of inner losses too."""
    if isinstance(kd, str):
        return re.findall(r"[A-Za-z_][\w.:]*", kd)
    if isinstance(kd, dict):
        return [*loss_names(kd.get("name")), *loss_names(kd.get("inner"))]
    return [name for each in kd for name in loss_names(each)] if isinstance(kd, list) else []


def add_trust(made: ArgumentParser) -> None:
    """Add the option that lets files name code of others."""
    about = "Package or module of yours that a card, a configuration or a run may name; may be repeated."
    made.add_argument("--trust", action="append", default=[], help=about)


def said_plainly(message: str, made: ArgumentParser, words: Sequence[str]) -> str:
    """Put an argument parser's message in our words: the field, the value, and what would be right."""
    message = re.sub(r"<class '(\w+)'>", r"\1", flattened(message))
    message = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", message)
    message = re.sub(r'^"([\w.]+)": Expected an? (.*?)\. Got value: ', r"\1: must be \2, got ", message)
    message = re.sub(r'^"([\w.]+)": Not of type \w+: (\S+) does not .* v(\S+)$', r"\1: must be \3, got \2", message)
    message = re.sub(r"argument (--[\w.]+)\S*: expected one argument", r"\1: needs a value", message)
    if found := re.match(
        r'"([\w.]+)": Does not validate .* Subtypes: \[(.*?)\] Errors: .* Given value: ?(.*)$', message
    ):
        return f"{found[1]}: must be {either(found[2])}, got {found[3] or repr('')}"
    flags = [flag for flag in made._option_string_actions if flag.startswith("--")]
    if found := re.match(r"unrecognized arguments: ([^\s=]+)", message):
        if not found[1].startswith("-") and "--dataset" in flags:
            return f"unknown argument {found[1]}; a graph is given by --dataset {found[1]}"
        return f"unknown argument {found[1]}; {meant_flag(found[1], flags)}--help all lists all"
    if found := re.match(r"Option '([\w.-]+)' is not accepted", message):
        files = " or ".join(word for word in words if word.endswith((".yaml", ".yml", ".json")))
        near = meant_flag(found[1], [flag[2:] for flag in flags])
        return f"{files}: unknown field {found[1]}; {near}--help all lists all"
    return message


KINDS = {"PositiveInt": "a whole number from 1", "int": "a whole number", "float": "a number", "bool": "true or false"}
"""What types that a value may have are called."""


def either(types: str) -> str:
    """Name the types of which a value must have one, as a parser lists them; that it may be left out goes unsaid."""
    types = re.sub(r"<class '([\w.]+\.)?(\w+)'>", r"\2", types)
    names = [name.removeprefix("one of ").strip("'") for name in types.split(", ") if name != "NoneType"]
    return " or ".join(KINDS.get(name, name) for name in names)


def meant_flag(word: str, flags: Sequence[str]) -> str:
    """Ask which flag was meant: those of which a word is a part, or the nearest, by its whole name or its last part."""
    whole = {flag: flag for flag in flags if flag.lstrip("-") != "help"}
    tails = {flag.rpartition(".")[2]: flag for flag in whole if "." in flag}
    parts = [flag for flag in whole if cut_short(word, flag)]
    parts = [flag for flag in parts if "." not in flag] or parts
    if 0 < len(parts) <= MEANT:
        return f"did you mean {' or '.join(parts)}? "
    near = meant(word, whole) or meant(word.lstrip("-"), tails)
    for tail, flag in tails.items():
        near = near.replace(f"mean {tail}?", f"mean {flag}?")
    return near


MEANT = 4
"""Flags at most that are offered for a word that was cut short."""


def cut_short(word: str, flag: str) -> bool:
    """Tell whether a word is the beginning of a flag or of its last part, or all its last words."""
    name, tail = word.lstrip("-"), flag.lstrip("-").rpartition(".")[2]
    return flag.lstrip("-").startswith(name) or tail.startswith(name) or tail.endswith(f"_{name}")


def spelled(argument: str) -> list[str]:
    """Let `--data-root` be `--data_root`, and `--no-x` be `--x false`."""
    if not argument.startswith("--") or argument == "--":
        return [argument]
    flag, equals, value = argument.partition("=")
    flag = "--" + flag[2:].replace("-", "_")
    return [f"--{flag[5:]}", "false"] if flag.startswith("--no_") else [flag + equals + value]


def short_kinds(words: Sequence[str]) -> list[str]:
    """Let `--strong gcn` be `--strong.kind gcn`, for every configuration with a kind; files stay files.

    What is what in a graph's files has flags of its own: `--label` is `--columns.label`.
    """
    columns = {f"--{entry.name}" for entry in fields(Columns)}
    kinds = {f"--{name}" for name, hint in get_type_hints(Config).items() if is_dataclass(hint) and has_kind(hint)}
    short = []
    for position, word in enumerate(words):
        flag, equals, value = word.partition("=")
        value = value if equals else (words[position + 1] if position + 1 < len(words) else "")
        is_kind = flag in kinds and not value.endswith((".yaml", ".yml", ".json"))
        long = f"--columns.{flag[2:]}" if flag in columns else f"{flag}.kind" if is_kind else flag
        short.append(f"{long}{equals}{value if equals else ''}")
    return short


def standing_alone(words: Sequence[str]) -> list[str]:
    """Let `--standardize` be `--standardize true`, and so every field of a configuration that is yes or no."""
    hints = get_type_hints(Config)
    parts = {f"{name}.": get_type_hints(hint) for name, hint in hints.items() if is_dataclass(hint)}
    switches = {f"--{head}{name}" for head, own in {"": hints, **parts}.items() for name in own if own[name] is bool}
    found = list[str]()
    for word, following in zip(words, [*words, "--"][1:], strict=True):
        found += [word, "true"] if word in switches and following.startswith("--") else [word]
    return found


def has_kind(configuration: Any) -> bool:
    """Tell whether a configuration chooses among kinds."""
    return any(entry.name == "kind" for entry in fields(configuration))


def flattened(message: str) -> str:
    """Put an argument parser's paragraph on one line, without its indentation."""
    return " ".join(message.replace("Parser key ", "").split())


def config_of(parsed: Namespace) -> Config:
    """Pick the configuration out of parsed arguments."""
    return Config(**{entry.name: getattr(parsed, entry.name) for entry in fields(Config)})


def asked_for(parsed: Namespace, arguments: Sequence[str] | None) -> Config:
    """Return the configuration of a command line, which says of what graph it speaks.

    Raises:
        InputError: it says what is what in the files of a graph, and not which graph.
    """
    config, given = config_of(parsed), given_options(arguments)
    said = [name.removeprefix("columns.") for name in given if name.startswith("columns.")]
    said += [entry.name for entry in fields(Columns) if getattr(config.columns, entry.name) != entry.default]
    trains = not any(parsed.get(other) for other in ("resume", "list"))
    if said and trains and config.dataset == Config().dataset and not config.own:
        which = f"{config.dataset} is none" if "dataset" in given else "--dataset is missing"
        raise InputError(f"--{said[0]} is for a graph of your own, and {which}; --dataset FOLDER names it")
    return config


def given_fields(arguments: Sequence[str]) -> list[str]:
    """Return the fields of the configuration that a command line names; of losses, what is left open stays open."""
    known = {entry.name for entry in fields(Config)} - {"kd"}
    return [name for name in given_options(arguments) if name.partition(".")[0] in known]


def given_options(arguments: Sequence[str] | None) -> list[str]:
    """Return the options that a command line names."""
    words = [word for argument in (sys.argv[1:] if arguments is None else arguments) for word in spelled(argument)]
    return [word[2:].partition("=")[0].removesuffix("+") for word in short_kinds(words) if word.startswith("--")]


def say_idle(config: Config, arguments: Sequence[str]) -> None:
    """Say which of the fields that a command line names change nothing in its configuration."""
    for path in given_fields(arguments):
        head, *rest = path.split(".")
        holder = getattr(config, head)
        idle = not used(config, config, head) or (is_dataclass(holder) and rest and not used(config, holder, rest[0]))
        beside = metadata(config, head).get("beside")
        if idle and head != "regime" and not (beside and beside(config)):
            print(f"note: --{path} changes nothing with {why_idle(config, head)}", file=sys.stderr)


def why_idle(config: Config, head: str) -> str:
    """Say with what else a field means nothing."""
    regime = f"regime {config.regime}" + " and kd" * (config.kd is not None) + " and no mixture" * (not config.mixture)
    given = f"strong {config.strong.kind}"
    if head == "budget" and config.preset != "best":
        given = f"preset {config.preset}"
    elif config.strong.kind == AUTO:
        given = regime
    sets = regime if config.coverage is not None else "no coverage"
    words = {"columns": "a graph that is no file", "preset": given, "budget": given}
    return (words | dict.fromkeys(("conformal", "diffusion", "mondrian"), sets)).get(head, regime)

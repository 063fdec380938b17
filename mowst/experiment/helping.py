"""What `--help` shows: the options that people use first; and `--help all`: every option, by what it is about.

It imports nothing that takes long.
"""

from __future__ import annotations

from argparse import Action
from collections.abc import Mapping, Sequence

from jsonargparse import ArgumentParser

FIRST = {
    "run": "dataset columns.label data_root preset budget strong.kind seeds epochs workers device config out list",
    "tune": "dataset columns.label data_root strong.kind search trials timeout study goals workers config out",
}
"""Options that people use first, by command, in their order; of a command without, all are shown."""
ABOUT = {
    "The graph": "dataset data_root split normalize_features standardize forget",
    "Who is trained": "preset budget regime mixture baselines kd teacher",
    "How it is trained": "optimizer lr gate_lr weight_decay epochs patience rounds eval_every eval_nodes ema_decay "
    "batch signal objective pretrain folds rehearsals use_validation device precision",
    "How often": "seeds first_seed",
    "How sure it is": "coverage conformal diffusion mondrian abstain_risk",
}
"""Fields of a configuration by what they are about; those of its parts stand together anyway."""


def help_asked(words: Sequence[str]) -> str | None:
    """Return what help a command line asks for: `first`, `all`, or none."""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word in ("-h", "--help", "--help=all"):
            return "all" if "all" in (following, word.partition("=")[2]) else "first"
    return None


def help_text(made: ArgumentParser, which: str) -> str:
    """Return a command's help, `first` or `all`. The parser is of no use afterwards."""
    actions = {each.dest: each for each in made._actions}
    places = [each for each in made._actions if not each.option_strings]
    made.usage = "%(prog)s [options]" + "".join(f" {each.dest.upper()}" for each in places)
    for dest, action in actions.items():
        if dest.startswith("columns."):  # which go by the last part of their name, too
            action.option_strings = [f"--{dest.removeprefix('columns.')}"]
    first = FIRST.get(made.prog.rpartition(" ")[2], "").split()
    if which == "all" or not first:
        arrange(made, ABOUT, actions)
        return str(made.format_help())
    actions["help"].help = "Show these options; --help all shows every one."
    actions["strong.kind"].option_strings = ["--strong"]
    for group in made._action_groups:
        group._group_actions.clear()
        group.description = None
    arrange(made, {"What people use first": " ".join([*first, "help"])}, actions)
    return f"{made.format_help()}\n--help all shows {len(actions) - len(first) - 1} more options.\n"


def arrange(made: ArgumentParser, groups: Mapping[str, str], actions: Mapping[str, Action]) -> None:
    """Put options into groups, in the order in which these name them."""
    for title, names in groups.items():
        there = [actions[name] for name in names.split() if name in actions]
        for group in made._action_groups:
            group._group_actions[:] = [action for action in group._group_actions if action not in there]
        if there:
            made.add_argument_group(title)._group_actions.extend(there)

"""The options of `mowst predict`, and which of them go together."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from mowst.errors import InputError
from mowst.experiment import reading

PURPOSE = """Load the mixture, or the student, that a run left, and predict nodes of the graph that it was trained on,
or all of another one; predictions go to a table by name (--out), what one rests on is told (--why), and labels are
forgotten (--forget)."""


def flags() -> ArgumentParser:
    """Return the parser of the command line."""
    parser = reading.parser("predict", PURPOSE, config=False)
    reading.add_trust(parser)
    parser.add_argument(
        "folder", type=str, help="Folder of a run, OUT, whose best seed is asked, or of one seed, OUT/seed-0."
    )
    about = "Another graph to predict: a folder or file of your own, a card; by default the one that was trained on."
    parser.add_argument("--graph", type=str | None, default=None, help=about)
    add_places(parser)
    for which in ("nodes", "edges"):
        about = f"File of the {which} of --graph within its folder, where it is called otherwise."
        parser.add_argument(f"--columns.{which}_file", type=str | None, default=None, help=about)
    parser.add_argument(
        "--data_root", type=str | None, default=None, help="Folder of the graphs; the run's by default."
    )
    parser.add_argument("--device", type=str | None, default=None, help="auto, cpu, cuda; the run's by default.")
    add_asked(parser)
    add_forgetting(parser)
    return parser


def add_asked(parser: ArgumentParser) -> None:
    """Add the options that say what is asked."""
    parser.add_argument(
        "--nodes",
        type=str | None,
        default=None,
        help="Nodes to predict: ids like 0,5,9, or a text file; by default all.",
    )
    about = "A node: print the training nodes whose labels spoke most for its prediction, in nats, and against it."
    parser.add_argument("--why", type=str | None, default=None, metavar="ID", help=about)
    about = "A node: print which neighbours and features spoke for what was answered, by PyG's GNNExplainer."
    parser.add_argument("--explain", type=str | None, default=None, metavar="ID", help=about)
    reading.add_switch(parser, "--layers", False, "Print what each layer knows of labels, degree and homophily.")
    parser.add_argument(
        "--model",
        type=str | None,
        default=None,
        help="Which model of the run: by default its mixture, else its student, else the only one.",
    )
    parser.add_argument("--how", type=str, default="pooled", help="pooled, sampled, or routed.")
    parser.add_argument(
        "--threshold",
        type=float | None,
        default=None,
        help="Confidence from which routed asks the weak expert; the model's own by default.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the draws of sampled.")


def add_places(parser: ArgumentParser) -> None:
    """Add the options that say where predictions go."""
    about = "A .csv or .parquet file for predictions by name; of the graph that was trained on, the unlabelled nodes."
    parser.add_argument("--out", type=str | None, default=None, help=about)
    reading.add_switch(parser, "--overwrite", False, "Let --out and --save replace a file that predict did not write.")
    parser.add_argument("--save", type=str | None, default=None, help="A .npz file for probabilities and classes.")


def add_forgetting(parser: ArgumentParser) -> None:
    """Add the options that let a run forget labels."""
    about = "Training nodes, ids like 0,5,9 or a text file: write a run as if their labels had not been there."
    parser.add_argument("--forget", type=str | None, default=None, metavar="IDS", help=about)
    about = "Folder for that run; by default runs/DATASET-TIME."
    parser.add_argument("--into", type=str | None, default=None, metavar="FOLDER", help=about)
    about = "auto: retrain what was trained within a minute; retrain; steps from the trained weights; last layers."
    parser.add_argument("--forget_by", type=str, default="auto", help=about)
    about = "Compare a model that was not retrained with one that is, which takes as long as that."
    reading.add_switch(parser, "--measure", True, about)


ALONE = {"folder", "forget", "into", "forget_by", "measure", "model", "data_root", "device", "trust"}
"""What counts where labels are forgotten, and nothing is predicted."""


def check_together(parsed: Namespace, given: Sequence[str]) -> None:
    """See that every option that was given counts beside the others.

    Args:
        parsed: the values of all of them.
        given: the names of those on the command line.

    Raises:
        InputError: one would change nothing; or the threshold is no confidence.
    """
    if parsed.forget is not None and (idle := [name for name in given if name not in ALONE]):
        raise InputError(f"--{idle[0]}: nothing is predicted with --forget; predict with the folder that it writes")
    predicts = any(each is not None for each in (parsed.nodes, parsed.out, parsed.save, parsed.explain))
    predicts = predicts or not (parsed.layers or parsed.why is not None)
    needed = {
        "how": ("--why and --layers alone do not predict: add --nodes, --out or --save", predicts),
        "threshold": ("only --how routed has one", parsed.how == "routed"),
        "seed": ("only --how sampled and --explain draw", parsed.how == "sampled" or parsed.explain is not None),
        **dict.fromkeys(FORGETTING, ("it is for --forget", parsed.forget is not None)),
        **dict.fromkeys(FILES, ("it is for --graph", parsed.graph is not None)),
    }
    for name in given:
        why, counts = needed.get(name, ("", True))
        if not counts:
            raise InputError(f"--{name.removeprefix('columns.')}: changes nothing here; {why}")
    if parsed.threshold is not None and not 0 <= parsed.threshold <= 1:
        raise InputError(f"--threshold {parsed.threshold:g}: must be a confidence from 0 to 1")


FORGETTING, FILES = ("into", "forget_by", "measure"), ("columns.nodes_file", "columns.edges_file")
"""Options that count beside another one only."""

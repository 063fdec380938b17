"""Model cards: `README.md` beside a run or a saved classifier, which says what it is, how good, and how to load it.

What stands in front is what the Hugging Face hub reads of a model. Nothing in a card is more than was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from mowst.errors import some
from mowst.reporting.comparison import score
from mowst.reporting.finished import Finished, words_of
from mowst.reporting.grids import Grid, markdown, markdown_words
from mowst.reporting.table import ordered, percent

CARD_MARK = "<!-- a model card, written by mowst -->"
TAGS = ["graph-neural-networks", "node-classification", "mixture-of-experts"]
FRONT = {"library_name": "mowst", "pipeline_tag": "graph-ml", "tags": TAGS}
LIMITS = (
    "It knows the classes that it was trained on and no other; a node of another class is given one of these.",
    "It takes graphs with the same features. On a graph that was made otherwise than the one it was trained on, the "
    "scores above promise nothing.",
)
LABELS_INSIDE = (
    "The expert `neighbours` keeps the labels of the training nodes: they are in the file of weights. It has them for "
    "nodes of the training graph only."
)
"""Said where a model has that expert."""
MISTAKEN = 20
"""Test nodes that a class must have, over all seeds, for its share of right answers to be said."""


def is_card(path: Path) -> bool:
    """Tell whether a file is a model card that was written here, and not somebody's own."""
    with suppress(OSError, UnicodeError):
        return CARD_MARK in path.read_text(encoding="utf-8")
    return False


def run_card(run: Finished, config: Mapping[str, Any]) -> str:
    """Return the model card of a finished run, in Markdown.

    Args:
        run: as its folder tells it.
        config: its configuration, with the experts that a preset chose.
    """
    result, seeds = run.result, len(run.result["seeds"])
    first = result["runs"][0]
    facts = {
        "graph": result["dataset"],
        "split": f"{result['split']}, {seeds} seed{'s' if seeds > 1 else ''}",
        "features and classes": f"{first['width']['features']:,} and {first['width']['classes']:,}",
    }
    if run.figures:
        facts["nodes"], facts["edges"] = (f"{run.figures[0]['counts'][part]:,}" for part in ("nodes", "edges"))
        facts["nodes of the split"] = counted(run.figures[0]["counts"])
    facts |= {"classes": some(first.get("class_names") or range(first["width"]["classes"]), 20)}
    facts |= experts_of(config) | {"trained by": f"mowst {result['versions']['mowst']}"}
    scores = [[words_of(name), *cells(run, name)] for name in ordered(result)]
    table = Grid(f"{result['metric']} in %, mean ± standard deviation over seeds", ["", "validation", "test"], scores)
    return card(
        f"{result['dataset']}: {run.judged}",
        facts,
        ["The test labels were looked at once, after training.", markdown(table), *result.get("notes", ())],
        [*LIMITS, *weakest(run), *labels_inside(config)],
        "`OUT` is this folder.\n\n"
        "```\npython -m mowst.predict OUT --out predictions.csv                # its unlabelled nodes\n"
        "python -m mowst.predict OUT --graph NEW --out predictions.csv    # another graph\n```\n"
        + ("\n```python\nfrom mowst import MowstClassifier\n\nclassifier = MowstClassifier.load('OUT')\n```\n")
        * (run.judged == "mixture")
        + f"\nIt is trained again by\n\n```\n{run.command}\n```",
    )


def model_card(kept: Mapping[str, Any], config: str) -> str:
    """Return the model card of a saved classifier, in Markdown.

    Args:
        kept: what its `config.json` says.
        config: its configuration, as YAML.
    """
    about, read = kept["about"], yaml.safe_load(config)
    facts = {"graph": about["dataset"]} if "dataset" in about else {}
    facts |= {name: f"{about[name]:,}" for name in ("nodes", "edges") if name in about}
    facts |= {"nodes of the split": counted(about)} if "train" in about else {}
    facts |= {"features": f"{kept['width']['features']:,}", "classes": some(kept["class_names"], 20)}
    facts |= experts_of(read) | {"trained by": f"mowst {kept['versions']['mowst']}"}
    said = ["It was not saved how good it is."]
    if about.get("validation") is not None:
        said = [
            f"On the validation nodes, which chose among epochs, its {about['metric']} is {about['validation']:.2f} %."
        ]
        said += ["Of test nodes nothing is known here: `classifier.score(data)` tells."]
    return card(
        "A mixture of a weak and a strong expert",
        facts,
        said,
        [*LIMITS, *labels_inside(read)],
        "`FOLDER` is this folder, or a name on the Hugging Face hub.\n\n"
        "```python\nfrom mowst import MowstClassifier\n\n"
        "classifier = MowstClassifier.from_pretrained('FOLDER')    # download=True from the hub\n"
        "classifier.predict(data)\n```",
    )


def card(title: str, facts: Mapping[str, str], scores: Sequence[str], limits: Sequence[str], loading: str) -> str:
    """Put a card together, in Markdown."""
    front = yaml.safe_dump(FRONT, sort_keys=False)
    said = [f"- {name}: {markdown_words(words)}" for name, words in facts.items()]
    parts = [
        f"---\n{front}---\n\n{CARD_MARK}\n\n# {markdown_words(title)}",
        "A classifier of the nodes of a graph. A small network sees a node's own features, a larger one its "
        "neighbourhood, and a gate weighs what they say (Mowst, arXiv 2311.05185).",
        "## Data and training\n\n" + "\n".join(said),
        "## How good it is\n\n" + "\n\n".join(each.strip() for each in scores),
        "## Limits\n\n" + "\n".join(f"- {each}" for each in limits),
        "## How to load it\n\n" + loading,
    ]
    return "\n\n".join(parts) + "\n"


def counted(counts: Mapping[str, int]) -> str:
    """Say how many nodes are for what."""
    return f"{counts['train']:,} to train on, {counts['val']:,} for validation, {counts['test']:,} to test"


def experts_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Say who the experts are, and how they were trained."""
    parts = {f"{role} expert": str(config[role]["kind"]).replace("+", ", ") for role in ("weak", "strong")}
    return parts | {"regime": str(config["regime"])}


def labels_inside(config: Mapping[str, Any]) -> list[str]:
    """Say where labels of nodes are among what a model keeps."""
    kinds = [kind for role in ("weak", "strong") for kind in str(config[role]["kind"]).split("+")]
    return [LABELS_INSIDE] if "neighbours" in kinds else []


def cells(run: Finished, name: str) -> list[str]:
    """Write the validation and the test score of a model."""
    alone = len(run.result["seeds"]) == 1
    return [percent(*score(run, name, split), alone=alone) for split in ("val", "test")]


def weakest(run: Finished) -> Iterator[str]:
    """Say which class is recognised least, where there are nodes enough to say so."""
    if not run.figures or any("confusion" not in each for each in run.figures):
        return
    names, tables = run.figures[0]["classes"], [each["confusion"] for each in run.figures]
    right = [sum(table[place][place] for table in tables) for place in range(len(names))]
    there = [sum(sum(table[place]) for table in tables) for place in range(len(names))]
    shares = {place: right[place] / there[place] for place in range(len(names)) if there[place] >= MISTAKEN}
    if shares:
        least = min(shares, key=lambda place: shares[place])
        yield (
            f"Of the classes, {markdown_words(names[least])} is recognised least: {100 * shares[least]:.1f} % of its "
            f"{run.where} nodes are."
        )

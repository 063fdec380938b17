"""`python -m mowst.predict OUT`: load a trained model again and predict nodes of its graph, or of another one."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mowst.errors import InputError
from mowst.system.main import imported, main

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from mowst.experiment import Config, Told
    from mowst.experiment.asking import Query
    from mowst.inference import Answer


def words_of(given: str | None, flag: str = "--nodes") -> list[str] | None:
    """Read what nodes are called, from a list with commas or from a text file of them, as a flag gave it.

    Raises:
        InputError: it names none.
    """
    if given is None:
        return None
    text = given
    with suppress(OSError, ValueError):  # no name of a file
        if Path(given).is_file():
            text = Path(given).read_text(encoding="utf-8")
    words = [word.strip() for line in text.splitlines() for word in line.split(",") if word.strip()]
    if not words:
        raise InputError(f"{flag} {given}: must be ids like 0,5,9, or a text file of ids")
    return words


def flags() -> ArgumentParser:
    """Return the parser of the command line."""
    from mowst.experiment.predicting import flags

    return flags()


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, predict, compare with what the run wrote, say what was read, and save if asked."""
    from mowst.experiment import reading
    from mowst.experiment.predicting import check_together

    parsed = reading.parse(flags(), arguments)
    check_together(parsed, reading.given_options(arguments))

    from mowst.experiment.asking import seed_folder
    from mowst.experiment.folder import read_config
    from mowst.experiment.reload import fitting, read_record
    from mowst.system import hush_libraries, products_in, take_threads

    imported()
    hush_libraries()
    if parsed.forget is not None:
        let_forget(parsed)
        return 0
    words = words_of(parsed.nodes)
    folder = seed_folder(Path(parsed.folder))
    check(parsed)
    config = read_config(folder)
    check_places(parsed, folder, config)
    config = fitting(dataclasses.replace(config, **place_of(parsed)))
    record = read_record(folder, parsed.model)
    take_threads(record.threads)
    with products_in(record.matmul):
        answer(parsed, folder, config, words)
    return 0


def answer(parsed: Namespace, folder: Path, config: Config, words: list[str] | None) -> None:
    """Predict, and print and write what was asked for."""
    import torch

    from mowst.experiment.answers import write_table
    from mowst.experiment.asking import asked, nodes_named, table_of, unlabelled

    query = opened(parsed, folder, config)
    if tell_more(parsed, folder, query, config) and (words, parsed.out, parsed.save) == (None, None, None):
        return
    nodes = None if words is None else nodes_named(query, words)
    if words is None and parsed.graph is None and parsed.out is not None:
        nodes = unlabelled(query.data)
    generator = torch.Generator().manual_seed(parsed.seed)
    found = asked(query, config, nodes, how=parsed.how, threshold=parsed.threshold, generator=generator)
    tell(parsed, folder, query, found, nodes)
    if parsed.out is not None:
        promised = promised_of(parsed, folder, query, config)
        of = "nodes without a label" if nodes is not None and words is None else "nodes"
        table = table_of(query, found, nodes, promised)
        write_table(Path(parsed.out), table)
        print(f"{len(table):,} {of} written to {parsed.out}")


def check(parsed: Namespace) -> None:
    """Look at what can be wrong before a graph is read.

    Raises:
        InputError: something is.
    """
    from mowst.experiment.reload import check_seed
    from mowst.inference import INFERENCE

    check_seed("--seed", parsed.seed)
    INFERENCE.lookup(parsed.how)


def check_places(parsed: Namespace, folder: Path, config: Config) -> None:
    """See that predictions can be written, and that nothing of anybody's is lost by it.

    Raises:
        InputError: they cannot, or something would be.
    """
    from mowst.experiment.answers import ARRAYS, TABLES, check_free, check_save, read_files

    for flag, endings in (("--save", ARRAYS), ("--out", TABLES)):
        if (given := parsed[flag[2:]]) is not None:
            check_save(flag, Path(given), folder, *endings)
            inputs = [*read_files(config, parsed.graph, files_of(parsed)), *([parsed.nodes] if parsed.nodes else ())]
            check_free(flag, Path(given), inputs, overwrite=parsed.overwrite)


def files_of(parsed: Namespace) -> dict[str, str]:
    """Return what the files of another graph are called, as far as it is said."""
    return {f"{which}_file": name for which in ("nodes", "edges") if (name := parsed.columns[f"{which}_file"])}


def opened(parsed: Namespace, folder: Path, config: Config) -> Query:
    """Load the mixture and the graph that it is asked of; of another graph, say what was found in it."""
    from mowst.data.assembling import own_of
    from mowst.experiment.asking import on_another, trained_on

    if parsed.graph is None:
        return trained_on(folder, config, parsed.model)
    query = on_another(folder, config, parsed.graph, parsed.model, **files_of(parsed))
    if (own := own_of(query.data)) is not None:
        print("\n".join(own.summary))
        for line in own.odd:
            print(f"note: {line}", file=sys.stderr)
    return query


def tell(parsed: Namespace, folder: Path, query: Query, found: Answer, nodes: list[int] | None) -> None:
    """Print what was predicted, and write the arrays where they were asked for."""
    import numpy as np
    from rich.console import Console

    from mowst.experiment.asking import right_of
    from mowst.experiment.reload import compared
    from mowst.models import Mowst
    from mowst.system import write_arrays

    console = Console(soft_wrap=True, highlight=False, markup=False)
    probs = found.probabilities.cpu().numpy()
    if folder != Path(parsed.folder):
        console.print(f"asks {folder}, the seed that validates best")
    if parsed.how == "pooled" and parsed.graph is None:
        console.print(f"{len(probs)} nodes predicted, {compared(probs, folder, nodes, query.name)}")
    console.print(f"the {'strong expert' if isinstance(query.model, Mowst) else query.name} read {found.touched}")
    names = query.class_names
    if nodes is not None and parsed.nodes is not None:
        for name, row in zip(query.names[nodes], probs, strict=True):
            console.print(f"node {name}: class {names[row.argmax()]}, probability {row.max():.3f}")
    classes, counts = np.unique(probs.argmax(axis=1), return_counts=True)
    per_class = {str(names[each]): count for each, count in zip(classes, counts.tolist(), strict=True)}
    console.print(json.dumps({"nodes": len(probs), "per_class": per_class}, ensure_ascii=False))
    if parsed.graph is not None and (right := right_of(query, found, nodes)):
        console.print(right)
    if parsed.save is not None:
        ids = np.arange(len(probs)) if nodes is None else np.array(nodes, dtype=np.int64)
        arrays = {"nodes": ids, "probabilities": probs, "prediction": probs.argmax(axis=1)}
        write_arrays(Path(parsed.save), arrays.items())


def let_forget(parsed: Namespace) -> None:
    """Write a run that forgot labels, and say how near it is to one that never saw them."""
    from mowst.experiment import forget
    from mowst.experiment.asking import seed_folder
    from mowst.experiment.reload import read_record
    from mowst.system import take_threads, tune_process

    record = read_record(seed_folder(Path(parsed.folder)), parsed.model)
    take_threads(record.threads)
    nodes, given = words_of(parsed.forget, "--forget") or [], place_of(parsed)
    with tune_process(matmul=record.matmul):
        found = forget(parsed.folder, nodes, parsed.into, how=parsed.forget_by, measure=parsed.measure, **given)
    print("\n".join(found.sentences()))


def place_of(parsed: Namespace) -> dict[str, Any]:
    """Return where the graph is, and the device, as far as they are given."""
    return {name: value for name in ("data_root", "device") if (value := getattr(parsed, name)) is not None}


def tell_more(parsed: Namespace, folder: Path, query: Query, config: Config) -> bool:
    """Print what predictions rest on, as far as that was asked for; false if nothing was."""
    from mowst.experiment.asking import trained_on
    from mowst.experiment.telling import show_layers, tell_grounds, tell_labels

    if parsed.why is not None:
        home = query if parsed.graph is None else trained_on(folder, config, parsed.model)
        tell_labels(query, home, config, parsed.why)
    if parsed.explain is not None:
        options = {"seed": parsed.seed, "how": parsed.how, "threshold": parsed.threshold}
        tell_grounds(query, config, parsed.explain, **options)
    if parsed.layers:
        show_layers(query)
    return bool(parsed.layers or parsed.why is not None or parsed.explain is not None)


def promised_of(parsed: Namespace, folder: Path, query: Query, config: Config) -> Told | None:
    """Return what the run promises of the predictions, if it does; on another graph, say that it may not hold."""
    from mowst.experiment.asking import promises_of

    promised = promises_of(query, folder, config) if parsed.how == "pooled" else None
    shown = promised is not None and any(each is not None for each in (promised.sets, promised.unsure))
    if shown and parsed.graph is not None:
        line = "set and unsure were calibrated on the run's own graph; coverage and risk may be others on this one"
        print(f"note: {line}", file=sys.stderr)
    return promised


if __name__ == "__main__":
    main(command)

"""`mowst run`, `python -m mowst.run`: train a weak and a strong expert, their mixture, and each alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mowst.errors import InputError
from mowst.system.group import Group
from mowst.system.main import imported, main

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from mowst.data.loading import Graph
    from mowst.experiment import Claimed, Config
    from mowst.experiment.checkpoint import Before
    from mowst.experiment.opening import Opened
    from mowst.experiment.runs import run as run
    from mowst.reporting import Display

PURPOSE = """Train a mixture of a weak and a strong expert on a graph by name, compare it with each expert alone, and
leave a folder with scores, predictions and weights."""


REPORTED = "; open report.html there in a browser"


def __getattr__(name: str) -> Any:
    """Import what takes long when it is asked for: `run`, for a library's user."""
    if name == "run":
        from mowst.experiment import run

        return run
    raise AttributeError(name)


@contextmanager
def told_of(claimed: Claimed, out: str | None) -> Iterator[None]:
    """Say, when somebody ends a run, where that is which was done, and how it goes on."""
    from mowst.experiment import begun

    try:
        yield
    except KeyboardInterrupt:
        if any(begun(claimed.place)):
            hint = "the same command goes on" if out else f"python -m mowst.run --resume {claimed.folder} goes on"
            print(f"what was done is in {claimed.folder}; {hint}", file=sys.stderr)
        raise


def flags() -> ArgumentParser:
    """Return the parser of the command line."""
    from jsonargparse.typing import PositiveInt

    from mowst.experiment import reading

    parser = reading.parser("run", PURPOSE)
    parser.add_argument("--out", type=str | None, default=None, help="Folder to write; by default runs/DATASET-TIME.")
    reading.add_switch(parser, "--overwrite", False, "Replace a run that OUT holds.")
    resume = "Folder of a run that did not end: it goes on with its own configuration. (The same command does so, too.)"
    parser.add_argument("--resume", type=str | None, default=None, help=resume)
    often = "Least minutes between two times that what is trained is saved in OUT; 0 after every epoch, inf never."
    parser.add_argument("--checkpoint_minutes", type=float, default=1.0, help=often)
    parser.add_argument("--checkpoint_epochs", type=PositiveInt | None, default=None, help="Likewise in epochs.")
    reading.add_switch(parser, "--fast", True, "Process-wide settings for speed (mowst.system.process).")
    reading.add_switch(
        parser, "--keep_memory", True, "Whether --fast keeps freed memory, for a peak up to twice as high."
    )
    matmul = "Precision of float32 products on a CUDA device: highest, high (TF32), or medium (bfloat16); auto is high."
    parser.add_argument("--matmul", type=Literal["auto", "highest", "high", "medium"], default="auto", help=matmul)
    capture = (
        "Record an epoch as a CUDA graph and replay it, on a CUDA device only: true or false; auto is false for now."
    )
    parser.add_argument("--capture", type=bool | Literal["auto"], default="auto", help=capture)
    about = "On a CUDA device, take Triton kernels in place of torch's where they are measured to be 1.2 times as fast."
    reading.add_switch(parser, "--measure", False, about)
    workers = (
        "Processes that share the seeds, each with its share of the cores and, of several GPUs, one. auto, the default "
        "on a CPU: others join once training has lasted as long as they take to start, where the graph is small and "
        "memory allows; on one GPU as long as they bring something. Else the default is 1."
    )
    parser.add_argument("--workers", type=PositiveInt | Literal["auto"] | None, default=None, help=workers)
    devices = (
        "Devices of this machine that train every seed together, each with its part of a step (--batch parts(10) or "
        "neighbors(15,10)); of the CPU's, processes. By default one, or as many as torchrun has started processes."
    )
    parser.add_argument("--devices", type=PositiveInt | None, default=None, help=devices)
    reading.add_switch(parser, "--report", True, "Write OUT/report.html, and what it draws into each seed's folder.")
    about = "Log scores by phase and epoch in OUT: tensorboard, or wandb (WANDB_MODE=online sends them); if installed."
    parser.add_argument("--logger", type=Literal["tensorboard", "wandb"] | None, default=None, help=about)
    about = "Train on parts of the labels, too (ten trainings more), and say what twice as many labels would bring."
    reading.add_switch(parser, "--advise", False, about)
    reading.add_trust(parser)
    parser.add_argument("--quiet", action="store_true", help="Print the results only.")
    parser.add_argument("--list", action="store_true", help="List the graphs by name and exit.")
    return parser


def display_of(parsed: Namespace, config: Config, done: int) -> Display:
    """Return what shows the training of the seeds that are left, on standard error."""
    from rich.console import Console

    from mowst.reporting import Display

    left = config.seeds - done
    workers = max(1, min(parsed.workers, left)) if isinstance(parsed.workers, int) else 1
    return Display(Console(quiet=parsed.quiet, stderr=True), config.epochs, workers=workers, seeds=left)


class Shares(NamedTuple):
    """By whom the seeds of a run are trained."""

    devices: int
    """That train every seed together."""
    workers: int | Literal["auto"]
    """Processes that share the seeds."""
    threads: int
    """Of each process."""


def shares_of(parsed: Namespace, claimed: Claimed, there: Before, graph: Graph) -> Shares:
    """Say by whom the seeds are trained, and take that many threads.

    Raises:
        InputError: it cannot be done here, or contradicts itself.
    """
    from mowst.experiment import devices_here, fabric_of
    from mowst.experiment.building import check_devices
    from mowst.experiment.sizing import sharing
    from mowst.system import take_threads

    device = fabric_of(there.config).device
    devices = devices_here(parsed.devices, (there.devices or claimed.devices) if parsed.resume else None)
    here = devices if Group.here() is None else parsed.devices or 1
    check_devices(device, here)
    if devices > 1 and (parsed.workers not in (None, 1) or parsed.advise):
        raise InputError(f"devices: {devices} train every seed together; leave out --workers and --advise")
    workers: int | Literal["auto"] = parsed.workers or ("auto" if device.type == "cpu" and devices == 1 else 1)
    sides = 1 if workers == "auto" else workers
    if workers == "auto" and there.threads is None:
        sides = sharing(there.config, graph.data, device)
    return Shares(devices, workers, take_threads(there.threads, max(sides, here)))


class Trained(NamedTuple):
    """What a run came to."""

    opened: Opened
    result: dict[str, Any]


def trained(parsed: Namespace, claimed: Claimed, config: Config, console: Console, given: Sequence[str]) -> Trained:
    """Open the graph, say what there is to say, and train what is left of a run in its place."""
    from mowst.experiment import Followed, Saving, SharedGraph, before, fabric_of, reading, run, settled
    from mowst.experiment.labels import check
    from mowst.experiment.opening import graph_of
    from mowst.names import trusted
    from mowst.system import Settings

    there = before(config, claimed.place, claimed.done)
    graph = graph_of(there.config, fabric_of(config).device)
    devices, workers, threads = shares_of(parsed, claimed, there, graph)
    shown = display_of(parsed, config, len(claimed.done))
    of_process = parsed.fast, parsed.keep_memory, parsed.matmul, parsed.capture, parsed.measure
    saving = Saving(parsed.checkpoint_minutes, parsed.checkpoint_epochs, {"fast": parsed.fast, "matmul": parsed.matmul})
    shared = SharedGraph(devices, graph)
    del graph
    plain = settled(there.config, claimed.place, partial(print, file=sys.stderr, flush=True), saving, shared)
    opened = shared.open(plain)
    for line in opened.graph.summary:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if opened.graph.count_mismatch:
        console.print(f"note: {opened.graph.count_mismatch}")
    for seed in config.all_seeds if config.teacher is not None else ():
        opened.seed(seed)  # a teacher that does not fit is said before anything is trained
    if parsed.advise:
        check(opened.seed(config.first_seed).ready)
    reading.say_idle(config, given)
    if there.said:
        console.print(f"goes on: {there.said}")
    followed = Followed(shown, parsed.logger, claimed.place, plain)
    with shown, followed:
        options: dict[str, Any] = {"workers": workers, "devices": devices, "joined": shown.share, "done": claimed.done}
        options |= {"settings": Settings(*of_process, trusted(), threads), "saving": saving, "report": parsed.report}
        return Trained(opened, run(plain, claimed.place, hook=followed, opened=opened, **options))


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, print the table; of processes that torchrun has started, the first one does so."""
    if (group := Group.here()) is not None and group.rank:
        from mowst.system import follow

        return follow(group)
    from mowst.experiment import reading

    parsed = reading.parse(flags(), arguments)
    config, out = reading.asked_for(parsed, arguments), parsed.out
    if parsed.resume is not None:
        from mowst.experiment import resumed

        config, out = resumed(parsed, arguments), parsed.resume

    from rich.console import Console

    from mowst.experiment import check_logger, claim, fabric_of
    from mowst.kernels import measuring
    from mowst.reporting import catalogue_table
    from mowst.system import check_products, epochs_recorded, hush_libraries, tune_process

    imported()
    hush_libraries()
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    if parsed.list:
        console.print(catalogue_table(config.data_root))
        return 0
    check_logger(parsed.logger)
    device = fabric_of(config).device
    check_products(parsed.matmul, device)
    graphs = epochs_recorded(parsed.capture, device)
    tuned = tune_process(parsed.fast, keep_memory=parsed.keep_memory, matmul=parsed.matmul)
    asked = parsed.devices if group is None else group.size
    claiming = claim(out, config, overwrite=parsed.overwrite, logger=parsed.logger, devices=asked)
    with claiming as claimed, told_of(claimed, out), tuned, graphs, measuring(parsed.measure):
        found = trained(parsed, claimed, config, console, sys.argv[1:] if arguments is None else arguments)
    tell(parsed, claimed, config, console, found)
    return 0


def tell(parsed: Namespace, claimed: Claimed, config: Config, console: Console, found: Trained) -> None:
    """Print what a run came to, and where it is."""
    from mowst.experiment import card_name
    from mowst.experiment.labels import needed
    from mowst.reporting import closing, scores_table

    console.print(scores_table(found.result))
    for part in closing(found.result):
        console.print(part)
    console.print(f"written to {claimed.folder}{REPORTED * parsed.report}")
    if parsed.advise:
        console.print(" ".join(needed(found.opened, config.first_seed).sentences()), soft_wrap=True)
    if config.own:
        console.print(f"from now on the graph is --dataset {claimed.folder / card_name(config)}", soft_wrap=True)


if __name__ == "__main__":
    main(command)

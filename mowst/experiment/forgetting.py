"""Labels that a finished run forgets: a new run, as if they had not been there, and how near to that it is."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.errors import InputError, some, unknown
from mowst.evaluation import apart, membership
from mowst.experiment.asking import Query, seed_folder, trained_on
from mowst.experiment.bench import Fitted
from mowst.experiment.building import fabric_of, seeded
from mowst.experiment.config import Config
from mowst.experiment.folder import claim, read_config, read_json
from mowst.experiment.nodes import names_of, numbers_of, without
from mowst.experiment.opening import Opened, graph_of
from mowst.experiment.plan import regime_of, schedule_of
from mowst.experiment.record import write_seed
from mowst.experiment.reload import fitting
from mowst.experiment.runs import run
from mowst.experiment.seed import SeedRun, judged, run_seed
from mowst.models import ROLES, Mowst, as_output, reads_of, run_module
from mowst.system import check_type_of
from mowst.training import OBJECTIVES, WAYS, Gone, joint
from mowst.training import forget as forget_in

AUTO, RETRAIN = "auto", "retrain"
HOWS = (AUTO, RETRAIN, *WAYS)
QUICK = 60.0
"""Seconds of training up to which a run is trained anew where nobody says how."""


class Forgotten(NamedTuple):
    """A run that forgot labels."""

    folder: Path
    """Where it is; it is a run like any other."""
    nodes: list[str | int]
    """What the nodes are called, those that it had forgotten before among them."""
    how: str
    """retrain, steps or last."""
    measured: dict[str, Any] | None
    """Mean over seeds of how far the model of before, and that of now, are from one that was trained without the
    labels: `kl` in nats on `forgotten`, `kept` (training) and `other` nodes; and `membership`, the area under the ROC
    curve by which the likelihood of its label tells a forgotten node from a validation node. None: nothing was."""
    left_out: bool = False
    """Whether the run had a mixture that was trained again for use (`final`), and this one has not."""

    def sentences(self) -> list[str]:
        """Say it."""
        said = [f"written to {self.folder}: {len(self.nodes):,} labels forgotten ({self.how})"]
        if self.left_out:
            said.append(f"without the mixture trained again on validation labels: only {RETRAIN} makes one that forgot")
        if self.measured is None:
            return said
        for name, kl in self.measured["kl"].items():
            far = ", ".join(f"{value:.3g} on {where}" for where, value in kl.items() if value is not None)
            said.append(f"{name}: nats from a model trained without them: {far} nodes")
        told = ", ".join(f"{name} {area:.3f}" for name, area in self.measured["membership"].items() if area is not None)
        what = "forgotten nodes told from validation nodes by the likelihood of their label (0.5: not at all)"
        return [*said, f"{what}: {told}"]


def forget(
    folder: str | Path,
    nodes: Sequence[Hashable],
    out: str | Path | None = None,
    *,
    how: str = AUTO,
    measure: bool = True,
    **changed: Any,
) -> Forgotten:
    """Write a run as if the labels of some training nodes had not been there; the nodes stay in the graph.

    Args:
        folder: of a run, all of whose seeds forget, or of one seed.
        nodes: what they are called; with `use_validation`, validation nodes, too, which are forgotten by retraining.
        out: folder to write; none: a new one in runs/.
        how: retrain; `steps` from the trained weights, or the `last` layers alone, which is quick and for mixtures
            of experts that are trained apart (`mowst.training.forget`); auto: retrain what was trained in a minute.
        measure: whether what was not retrained is compared with a retrained model, which takes as long as that.
        changed: fields of the run's configuration that are of the place, such as `data_root` and `device`.

    Raises:
        InputError: there is no such run, node or way; a node's label was not learned in a seed; a class would have no
            label left; a teacher from outside the run may know the labels.
    """
    check(folder, nodes, out, how, measure)
    runs = seeds_of(Path(folder))
    seed, first = next(iter(runs.items()))
    config = fitting(replace(read_config(first), first_seed=seed, seeds=len(runs), **changed))
    home = trained_on(first, config, trained_in(first).judged)
    called = named(home, nodes)
    whole, learned = graph_of(config, fabric_of(config).device), True
    gone = numbers_of(home.names, [*config.forget, *called], "forget")
    graphs = {each: (home if place == first else trained_on(place, config)).data for each, place in runs.items()}
    check_learned(runs, graphs, called, validation=config.use_validation)
    for each in runs:
        without(graphs[each], called, each, validation=config.use_validation)
        learned = learned and not bool(whole.of_seed(each).val_mask[gone].any())
    how = chosen_way(config, how, runs, learned=learned)
    after = replace(config, forget=[*config.forget, *dict.fromkeys(called)])
    after = after if how == RETRAIN else replace(after, baselines=False, use_validation=False)
    with claim(None if out is None else str(out), after) as claimed:
        opened, done = Opened(after), dict(claimed.done)
        for each, place in runs.items():
            if each not in done:
                found = forgotten_seed(opened, trained_on(place, config, home.name), each, how, measure=measure)
                done[each] = write_seed(claimed.place / f"seed-{each}", opened.config, found)
        result = run(after, claimed.place, opened=opened, done=done)
    left_out = config.use_validation and not after.use_validation
    return Forgotten(claimed.folder, after.forget, how, result["forgotten"].get("measured"), left_out)


def check(folder: Any, nodes: Any, out: Any, how: Any, measure: Any) -> None:
    """Raise an `InputError` for what is no folder, no list of nodes, or no way."""
    check_type_of("folder", folder, str | Path)
    check_type_of("out", out, str | Path | None)
    check_type_of("measure", measure, bool)
    if not isinstance(how, str) or how not in HOWS:
        raise unknown("forget: how", how, HOWS)
    if not isinstance(nodes, list | tuple) or not nodes:
        raise InputError(f"forget: nodes must be a list of what nodes are called, got {nodes!r}")


def check_learned(
    runs: Mapping[int, Path], graphs: Mapping[int, Data], called: Sequence[Hashable], *, validation: bool
) -> None:
    """See that seeds do not differ in whether they have learned the labels of some nodes.

    Args:
        runs: folders by seed.
        graphs: with the masks of each seed.
        called: what the nodes are called.
        validation: whether labels of validation nodes are learned, too.

    Raises:
        InputError: they do; the message says which seed can be asked.
    """
    have = []
    for seed, data in graphs.items():
        known = data.train_mask | data.val_mask if validation else data.train_mask
        have += [seed] * bool(known[numbers_of(names_of(data), called, "forget")].all())
    if 0 < len(have) < len(runs):
        which = f"not learned by every seed, but by {some(have)} of {len(runs)}"
        raise InputError(f"forget: {some(called)}: {which}; give the folder of such a seed, {runs[have[0]]}")


def named(home: Query, nodes: Sequence[Hashable]) -> list[str | int]:
    """Return what nodes are called as a configuration can say it."""
    names = home.names[numbers_of(home.names, nodes, "forget")].tolist()
    return [name if isinstance(name, int) else str(name) for name in names]


def seeds_of(folder: Path) -> dict[int, Path]:
    """Return the folders of a run's seeds, or the one that is given, by seed.

    Raises:
        InputError: there is none.
    """
    one = seed_folder(folder)
    if one == folder:
        held = read_json(folder / "result.json")
        if not isinstance(held, dict) or not isinstance(held.get("seed"), int):
            raise InputError(f"{folder / 'result.json'}: not the record of a run, or damaged")
        return {held["seed"]: folder}
    seeds = sorted(int(each["seed"]) for each in read_json(folder / "result.json")["runs"])
    return {seed: folder / f"seed-{seed}" for seed in seeds}


class Trained(NamedTuple):
    """What the record of a seed says of its training."""

    judged: str
    """The model that the run is about: the last one that it trained."""
    seconds: float


def trained_in(folder: Path) -> Trained:
    """Read what was trained in the folder of a seed.

    Raises:
        InputError: its record is damaged.
    """
    found = read_json(folder / "result.json")
    try:
        return Trained(str(list(found["parameters"])[-1]), float(found["seconds_together"]))
    except (KeyError, TypeError, ValueError, IndexError):
        raise InputError(f"{folder / 'result.json'}: not the record of a seed, or damaged") from None


def chosen_way(config: Config, how: str, runs: dict[int, Path], *, learned: bool = True) -> str:
    """Return how a run forgets.

    Args:
        config: of the run.
        how: as somebody said.
        runs: folders of its seeds, by seed.
        learned: whether all labels that are gone then are of training nodes; some may be of validation nodes.

    Raises:
        InputError: it was taught from outside, or the way is not for it.
    """
    if config.teacher not in (None, *ROLES):
        raise InputError(
            f"forget: teacher {config.teacher} may know these labels; let it forget them first, then train with it"
        )
    took = sum(trained_in(folder).seconds for folder in runs.values())
    can = regime_of(config).apart and config.kd is None and config.mixture and config.batch == "full" and learned
    if how in WAYS and not can:
        raise InputError(
            f"forget: how {how}: is for training labels of mixtures whose experts were trained apart, on the whole "
            f"graph and without a teacher; take {RETRAIN}"
        )
    return how if how != AUTO else RETRAIN if took <= QUICK or not can else "steps"


def forgotten_seed(opened: Opened, before: Query, seed: int, how: str, *, measure: bool) -> SeedRun:
    """Forget in one seed, and measure how far that is from training anew.

    Args:
        opened: the new run.
        before: the model that knows the labels, on the graph that has them.
        seed: of the run.
        how: retrain, or one of `WAYS`.
        measure: whether a model is trained anew to compare with, where that is not the way.
    """
    start = time.perf_counter()
    data = opened.seed(seed).data
    known = before.data
    gone = (known.train_mask & ~data.train_mask) | (known.val_mask & ~data.val_mask)
    found = run_seed(opened.config, seed, opened=opened) if how == RETRAIN else quick(opened, before, gone, seed, how)
    now = found.fitted[before.name]
    told: dict[str, Any] = {"how": how, "seconds": round(time.perf_counter() - start, 3)}
    if how == RETRAIN:
        told["measured"] = measured(before, now, now, gone, data)
    elif measure:
        anew = opened.bench(seed).train(before.name)
        told["measured"] = measured(before, now, anew, gone, data) | {"seconds_retraining": round(anew.seconds, 3)}
    return replace(found, forgotten=told)


def quick(opened: Opened, before: Query, gone: Tensor, seed: int, way: str) -> SeedRun:
    """Let a trained mixture forget without being trained anew."""
    start, bench, config = time.perf_counter(), opened.bench(seed), opened.config
    device, nodes = opened.fabric.device, gone.nonzero().squeeze(-1)
    with seeded(seed, device):
        trainer = bench.trainer(before.name)
        trainer.model.load_state_dict(before.model.state_dict())
        trainer.restart()
        objective = joint if config.objective is None else OBJECTIVES.lookup(config.objective)
        labels = Gone(nodes.to(device), before.data.y[nodes].to(device), trainer.val, trainer.val_y)
        forget_in(trainer, schedule_of(config, seed, before.name), labels, way, objective)
    model, out = trainer.model, trainer.output()
    if isinstance(model, Mowst) and model.router is None and len(trainer.val):
        bench.set_threshold(model, out)
    seconds = time.perf_counter() - start
    fitted = Fitted(before.name, model, out, trainer.history, seconds, own_seconds=seconds)
    return judged(opened, bench, {before.name: fitted})


@torch.no_grad()
def measured(before: Query, now: Fitted, anew: Fitted, gone: Tensor, data: Data) -> dict[str, Any]:
    """Compare the model of before and that of now with one that was trained anew."""
    known, graph = before.data, before.ready.adj_t
    nodes = {"forgotten": gone, "kept": data.train_mask, "other": ~(known.train_mask | gone)}
    said = {
        "before": as_output(run_module(before.model, reads_of(before.model), before.ready.x, graph)).log_probs().cpu(),
        "after": now.output.log_probs().cpu(),
        "retrained": anew.output.log_probs().cpu(),
    }
    kl = {
        name: {where: apart(said["retrained"][mask], said[name][mask]) for where, mask in nodes.items()}
        for name in ("before", "after")
    }
    found = {name: membership(log_p, known.y, gone, data.val_mask) for name, log_p in said.items()}
    return {"kl": kl, "membership": found}

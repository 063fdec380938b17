"""From a trained mixture to one prediction per node.

| name    | probabilities at a node                                                                    |
|---------|--------------------------------------------------------------------------------------------|
| pooled  | the pool of both experts (the default)                                                     |
| sampled | the weak expert's with probability c, else the strong one's (arXiv 2311.05185, algorithm 1) |
| routed  | the weak expert's where c >= threshold, else the strong one's                              |

The weak expert speaks first. `sampled` and `routed` then ask the strong one only about the nodes left to it, and
`mowst.inference.frontier` runs it on their neighbourhood where that is the cheaper. A gate that needs the strong expert
has it run for every node that is asked for, unless the mixture has a `router`: a second gate, which sees the weak
expert alone and chooses in its place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mowst.errors import InputError
from mowst.inference.checks import (
    check_answer,
    check_generator,
    check_ids,
    check_mode,
    check_parts,
    check_question,
    threshold_of,
)
from mowst.inference.frontier import Touched, at_nodes, untouched
from mowst.kernels import rows_of
from mowst.models import ROLES, Gated, Mixture, Mowst, probabilities, shown
from mowst.names import Names

Nodes = Tensor | Sequence[int]
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""What ids may be kept as."""
Expert = Callable[[Tensor | None], tuple[Tensor, Touched]]
"""An expert on a graph: `(distinct ids [n] | None) -> (logits [n, C], touched)`; none: all nodes."""


def expert_on(model: Mowst, role: str, x: Tensor, graph: Tensor) -> Expert:
    """Return the `weak` or the `strong` expert on a graph, calibrated, run on no more than is needed."""

    def at(nodes: Tensor | None) -> tuple[Tensor, Touched]:
        logits, touched = at_nodes(model.of(role), model.experts_read[role], x, graph, nodes)
        return model.calibrated(role, logits), touched

    return at


class Question:
    """The nodes that are asked for, and what the experts say of them: each is run when it is first needed.

    Args:
        model: in evaluation mode; its gate judges each node by that node alone.
        x: features of all nodes, [N, F].
        nodes: distinct ids `[n]`; none: all nodes.
        weak, strong: the experts on the graph (`expert_on`).
        touched: what the strong expert has touched before it is run.
    """

    def __init__(self, model: Mowst, x: Tensor, nodes: Tensor | None, weak: Expert, strong: Expert, touched: Touched):
        check_parts(model, x)
        check_ids(nodes, len(x))
        self.model, self.nodes, self.touched = model, nodes, touched
        self.x = x if nodes is None else rows_of(x, nodes)
        self.ask_weak, self.ask_strong = weak, strong
        self.chosen: Tensor | None = None

    @cached_property
    def weak(self) -> Tensor:
        """Logits of the weak expert, [n, C]."""
        return self.ask_weak(self.nodes)[0]

    @cached_property
    def strong(self) -> Tensor:
        """Logits of the strong expert, [n, C]."""
        logits, self.touched = self.ask_strong(self.nodes)
        return logits

    @cached_property
    def gated(self) -> Gated:
        """What the gate says of the nodes."""
        return self.model.weighed(self.weak, self.x, self.strong if self.model.asks.strong else None)

    @cached_property
    def confidence(self) -> Tensor:
        """Confidence [n] by which a node is given to one expert: the router's, where the model has one."""
        routed = self.model.routed(self.weak, self.x)
        return self.gated.confidence if routed is None else routed.confidence

    def spoken(self) -> tuple[Tensor, Tensor]:
        """Return the confidence [n], and where the weak expert answered, or in a pool weighs more, [n] bool."""
        confidence = self.gated.confidence if self.chosen is None else self.confidence
        return confidence, confidence >= 0.5 if self.chosen is None else self.chosen

    def choose(self, weak: Tensor) -> Tensor:
        """Probabilities [n, C]: the weak expert's where the mask [n] is true; the strong one is run for the rest."""
        self.chosen = weak
        probs, left = probabilities(self.weak), (~weak).nonzero().squeeze(-1)
        if "strong" in vars(self) or len(left) == len(weak):
            return torch.where(weak.unsqueeze(-1), probs, probabilities(self.strong))
        if len(left):
            logits, self.touched = self.ask_strong(left if self.nodes is None else self.nodes[left])
            probs[left] = probabilities(logits).to(probs.dtype)
        return probs


def pooled(ask: Question, *, threshold: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Probabilities of the pool, [n, C]."""
    return Mixture(ask.weak, ask.strong, *ask.gated).probs()


def sampled(ask: Question, *, threshold: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Probabilities of one expert per node, drawn with the confidence, [n, C]."""
    draws = torch.rand(ask.confidence.shape, generator=generator).to(ask.confidence.device)
    return ask.choose(draws < ask.confidence)


def routed(ask: Question, *, threshold: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Probabilities of the weak expert where its confidence reaches the threshold, else of the strong one, [n, C]."""
    return ask.choose(ask.confidence >= threshold)


Inference = Callable[..., Tensor]
"""A mode: `(question, *, threshold, generator) -> probabilities [n, C]`."""
INFERENCE: Names[Inference] = Names("inference", {"pooled": pooled, "sampled": sampled, "routed": routed})


def say(ask: Question, how: str | Inference, threshold: float | None, generator: torch.Generator | None) -> Tensor:
    """Let a mode answer a question, at the model's own threshold if none is asked for: probabilities [n, C].

    Raises:
        InputError: there is no such mode, it answers something else, or an option is not what it must be.
    """
    check_generator(generator)
    mode, chosen = INFERENCE.lookup(how), threshold_of(ask.model, threshold)
    check_mode(mode)
    probs = mode(ask, threshold=chosen, generator=generator)
    check_answer(probs, len(ask.x))
    return probs


class Answer(NamedTuple):
    """A prediction, and what it took."""

    probabilities: Tensor
    """[N, C], or [n, C] for n nodes."""
    touched: Touched
    """What the strong expert read, beside a full forward."""
    confidence: Tensor | None = None
    """[n], where it was asked for: the weak expert's share of the weight."""
    weak: Tensor | None = None
    """[n] bool, where it was asked for: whether the weak expert answered, or in a pool has the greater weight."""


@torch.no_grad()
def answer(
    model: Mowst,
    x: Tensor,
    graph: Tensor,
    *,
    nodes: Nodes | None = None,
    how: str | Inference = "pooled",
    threshold: float | None = None,
    generator: torch.Generator | None = None,
    whose: bool = False,
) -> Answer:
    """Predict with a mixture in evaluation mode, and say what of the graph the strong expert read.

    Args:
        model: a trained mixture.
        x: features of all nodes, [N, F].
        graph: an `Adjacency`, made once per graph, or a plain `edge_index` [2, E].
        nodes: ids `[n]` of the nodes to predict, in any order, repeated or not; none: all of them.
        how: a mode by name, or one's own.
        threshold: confidence from which `routed` asks the weak expert; by default the model's own.
        generator: of the draws of `sampled`.
        whose: whether to say, too, which expert answered.

    Raises:
        InputError: a node id is not one of the graph, or an argument is not what it must be.
    """
    check_question(model, x, graph)
    distinct, place = distinct_ids(nodes, len(x), x.device)
    with evaluating(model):
        weak, strong = (expert_on(model, role, x, graph) for role in ROLES)
        ask = Question(model, x, distinct, weak, strong, untouched(model.experts_read["strong"], x, graph))
        probs = say(ask, how, threshold, generator)
        spoken = ask.spoken() if whose else ()
    rows = slice(None) if place is None else place
    return Answer(probs[rows], ask.touched, *(part[rows] for part in spoken))


def predict(
    model: Mowst,
    x: Tensor,
    edge_index: Tensor,
    *,
    nodes: Nodes | None = None,
    how: str | Inference = "pooled",
    threshold: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Probabilities of a mixture in evaluation mode, [N, C], or `[n, C]` for node ids `[n]`; arguments as in `answer`.

    For some nodes only what is within reach of them is run, where that is cheaper than a forward on the whole graph.
    """
    return answer(model, x, edge_index, nodes=nodes, how=how, threshold=threshold, generator=generator).probabilities


class Kept:
    """A trained mixture on a graph that stays as it is: the strong expert is run once, a query is one gather.

    Its logits are kept, C numbers per node; the weak expert and the gate are run for what is asked. Exact for every
    strong expert. Model, features and edges are copied: what is trained or written later does not reach them.

        kept = Kept(model, data.x, data.adj_t)
        kept.query([17])                     # [1, C]
    """

    def __init__(self, model: Mowst, x: Tensor, graph: Tensor):
        check_question(model, x, graph)
        self.model, self.x, self.graph = copy.deepcopy(model).eval(), x.clone(), graph.clone()
        kind = x.device.type
        self.precision: dict[str, Any] = {"dtype": torch.get_autocast_dtype(kind)}
        self.precision["enabled"] = torch.is_autocast_enabled(kind)
        self.logits = expert_on(self.model, "strong", x, graph)(None)[0]
        self.touched = untouched(self.model.experts_read["strong"], x, graph)

    @torch.no_grad()
    def query(
        self,
        nodes: Nodes | None,
        *,
        how: str | Inference = "pooled",
        threshold: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Probabilities [n, C] for node ids `[n]`, none: all nodes; options as in `answer`.

        Raises:
            InputError: as `answer`.
        """
        distinct, place = distinct_ids(nodes, len(self.x), self.x.device)
        ask = Question(
            self.model,
            self.x,
            distinct,
            expert_on(self.model, "weak", self.x, self.graph),
            lambda some: (self.logits if some is None else self.logits.index_select(0, some), self.touched),
            self.touched,
        )
        with torch.autocast(self.x.device.type, **self.precision):  # as the strong expert was run
            probs = say(ask, how, threshold, generator)
        return probs if place is None else probs[place]


def distinct_ids(nodes: Nodes | None, num_nodes: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Return the distinct ids among `nodes`, none for all nodes, and the place of each in them, none if in order.

    Raises:
        InputError: an id is no whole number, or not a node of the graph.
    """
    if nodes is None:
        return None, None
    try:
        ids = torch.as_tensor(nodes, device=device)
    except Exception as error:  # of whatever was handed in: anything
        raise InputError(f"nodes: must be a list of ids: {shown(error)}") from None
    if (ids.numel() and ids.dtype not in WHOLE) or ids.dim() != 1 or ids.layout != torch.strided:
        raise InputError(f"nodes: must be a list of ids, got {ids.dtype} of shape {list(ids.shape)}")
    ids = ids.long()
    wrong = ids[(ids < 0) | (ids >= num_nodes)]
    if len(wrong):
        raise InputError(f"nodes: {int(wrong[0])} is no node of the graph, which has 0 to {num_nodes - 1}")
    if len(ids) == 0:
        return ids.new_zeros(1), ids  # Rows without a node give warnings on their way: one is asked, none is taken.
    distinct, place = torch.unique(ids, return_inverse=True)
    return (None, ids) if len(distinct) == num_nodes else (distinct, place)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode inside, and every part of it back into its own mode afterwards."""
    training = [part for part in model.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True

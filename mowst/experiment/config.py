"""The configuration of one experiment: frozen, typed, every field explained; nothing below the commands sees it whole.

The same types serve the library, the command line (`--strong gcn --strong.hidden_channels 256`), YAML files and
studies; the range a study may search stands beside the field (`metadata={"search": ...}`): a list of choices, or
`(low, high)` with `"log"` as third entry for a logarithmic scale. `when` says of which configurations it is a part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mowst.data.columns import Columns
from mowst.errors import InputError, unknown
from mowst.experiment.checks import Checked, Says, setting
from mowst.experiment.expert import AUTO, ExpertConfig
from mowst.experiment.predictions import PredictionsConfig

# What names stand for is imported where it is asked for: --help need not wait for it.


def has_mixture(config: Config) -> bool:
    """Tell whether a mixture is trained, and not an expert alone."""
    return config.mixture and not trains_alone(config)


def trains_alone(config: Config) -> bool:
    """Tell whether the regime trains one expert without the other."""
    from mowst.training import REGIMES

    return REGIMES.lookup(config.regime).alone is not None


def has_weak(config: Config) -> bool:
    """Tell whether what is judged has the weak expert in it: the mixture, or a student."""
    return config.mixture or trains_alone(config)


def has_strong(config: Config) -> bool:
    """Tell whether the strong expert is trained: in the mixture, alone, or as a teacher."""
    return not trains_alone(config) or config.teacher == "strong"


def unless(*regimes: str) -> Says:
    """Return what tells whether a mixture is trained by any regime but these, to which a field means nothing."""

    def says(config: Config) -> bool:
        from mowst.training import REGIMES

        return has_mixture(config) and REGIMES.lookup(config.regime) not in map(REGIMES.lookup, regimes)

    return says


def has_sets(config: Config) -> bool:
    """Tell whether sets of classes are made."""
    return config.coverage is not None and has_mixture(config)


def linear_pool(config: Config) -> bool:
    """Tell whether a mixture's pool is linear, so that its objective may be another one than joint."""
    from mowst.models import GATES, asks_of

    return has_mixture(config) and not asks_of(GATES.lookup(config.gate_kind)).scale


def sees_features(config: Config) -> bool:
    """Tell whether the gate may see the node features."""
    from mowst.models import GATES, LearnedGate

    return GATES.lookup(config.gate_kind) is LearnedGate


def has_candidates(config: Config) -> bool:
    """Tell whether a preset says who the strong expert is, with several to choose among.

    A regime that trains both experts together, a student, and an expert that is taught have one GCN.
    """
    from mowst.training import REGIMES

    regime = REGIMES.lookup(config.regime)
    return config.strong.kind == AUTO and regime.apart and regime.alone is None and config.kd is None


def refits(config: Config) -> bool:
    """Tell whether each expert of a mixture is trained on its own, so that it may be again, on more labels."""
    from mowst.training import REGIMES

    regime = REGIMES.lookup(config.regime)
    return has_mixture(config) and regime.apart and config.kd is None


WEAK = {"when": has_weak, "beside": lambda config: config.baselines}


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def seconds(budget: str) -> float:
    """Return how long `90s`, `20m` or `2h` is.

    Raises:
        InputError: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smh])", budget)
    if not found or not float(found[1]):
        raise InputError(f"budget: must be a time such as 90s, 20m or 2h, got {budget!r}")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@dataclass(frozen=True)
class GateConfig(Checked):
    """The gate that turns the weak expert's dispersion into its confidence."""

    kind: str | None = setting(None, ["learned", "logistic", "monotone", "power", "fused"])
    """Gate by short name (learned, logistic, monotone, power, fused), or a dotted path; by default the regime's own."""
    dispersions: list[str] = field(default_factory=lambda: ["variance", "negentropy"])
    """Dispersions that the gate sees: variance, negentropy, max, margin, or dotted paths."""
    features: bool = setting(False, [False, True], when=sees_features)
    """Whether a learned gate sees the node features too."""
    detach: bool = setting(False, [False, True], when=unless("held-out", "fine-tuned"))
    """Whether to stop the gradient of the confidence at the weak expert (as the authors' code does)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the gate's constructor (hidden_channels, num_layers, dropout, alpha)."""


@dataclass(frozen=True)
class Config(Checked):
    """One experiment."""

    dataset: str = "digits"
    """A graph of your own by its folder or file (nodes.csv and edges.csv, .graphml, .gexf, .gml, .json, .pt, .npz), the
    name of a card in datasets/, the path of a card, or the dotted path of a function that returns a PyG Data."""
    columns: Columns = field(default_factory=Columns, metadata={"when": lambda config: config.own})
    """What is what in the files of a graph of your own; its fields are flags by themselves, too, such as --label."""
    data_root: str = "data"
    """Folder that holds the graphs."""
    split: str | None = None
    """Split protocol, one of the card's; by default the card's first."""
    weak: ExpertConfig = field(default_factory=lambda: ExpertConfig(kind="mlp"), metadata=WEAK)
    """The weak expert."""
    strong: ExpertConfig = field(default_factory=lambda: ExpertConfig(kind=AUTO), metadata={"when": has_strong})
    """The strong expert: by default, auto, the preset says who that is."""
    preset: Literal["fast", "good", "best"] = setting("good", when=has_candidates)
    """Who the strong expert is where none is named: fast, a GCN; good, a panel of one expert of each kind; best, a
    longer list of candidates, for as long as the budget lasts. More time, better predictions."""
    budget: str = setting("20m", when=lambda config: config.preset == "best" and has_candidates(config))
    """Time for best to try candidates and train the first seed, such as 90s, 20m or 2h; who is tried within it may
    differ from time to time, what comes of the same candidates does not."""
    gate: GateConfig = field(default_factory=GateConfig, metadata={"when": has_mixture})
    """The gate between them."""
    regime: str = setting("held-out", ["held-out", "joint", "alternate"], when=lambda config: config.mixture)
    """How the parts are trained: held-out, fine-tuned (held-out, then both experts together, kept if that validates
    better), joint (Mowst*), alternate (Mowst), solo (the weak expert without the strong one, a student where there is
    kd), or the dotted path of a regime."""
    objective: str | None = setting(
        None, [None, "separate", "joint"], when=linear_pool, beside=lambda config: config.kd is not None
    )
    """What is minimised: separate, joint, joint-logits, a dotted path; by default the regime's own. With a gate that
    gives a logarithmic pool (fused) it is joint: the others do not mean its scale."""
    pretrain: str = setting("strong", ["none", "weak", "strong", "both"], when=unless("held-out", "fine-tuned"))
    """Experts trained alone before joint and alternate begin: none, weak, strong, both. held-out trains both alone."""
    folds: int = setting(5, when=unless("joint", "alternate"), at_least=2, at_most=100_000)
    """Parts that held-out divides the training nodes into; one of them is held out at a time."""
    rehearsals: int = setting(1, when=unless("joint", "alternate"), at_least=1)
    """How many of these parts are held out in turn; as many as there are is cross-fitting."""
    kd: list[str | dict[str, Any]] | str | None = None
    """Distillation losses that the weak expert learns from, e.g. gld(k=5,weight=0.5)+nkd, or in YAML a list
    [{name: gld, k: 5, weight: 0.5}, nkd]; each takes weight, warmup (epochs) and on (all or train) beside its own
    options."""
    teacher: str | None = None
    """Who teaches: a run's folder (OUT, OUT/seed-0; OUT:strong names one of its models) trained on the same split, all
    its seeds (ensemble(OUT)), its strong expert taken further from its weak one (extrapolate(OUT, beta=1)), a file of
    logits (.npz or .safetensors), one of these told how frequent the classes are (rebalance(OUT)), strong (the strong
    expert of this run; with regime held-out, no other), or, with regime solo, weak (the student, trained once before);
    none for losses that need no teacher, such as uskd."""
    optimizer: str = "adamw"
    """adamw (decoupled weight decay), adam (L2 penalty), or the dotted path of an optimiser."""
    lr: float = setting(0.01, (1e-3, 1e-1, "log"), above=0)
    """Learning rate of the experts."""
    gate_lr: float = setting(0.01, (1e-3, 1e-1, "log"), when=unless("held-out", "fine-tuned"), above=0)
    """Learning rate of the gate."""
    weight_decay: float = setting(5e-4, (1e-6, 1e-2, "log"), at_least=0)
    """Weight decay, or L2 penalty, as the optimiser means it."""
    epochs: int = setting(500, at_least=1)
    """Most epochs a phase may take."""
    patience: int = setting(100, at_least=1)
    """Epochs without a better validation score after which a phase ends."""
    rounds: int = setting(10, when=unless("held-out", "fine-tuned", "joint"), at_least=1)
    """Most rounds of turns of the alternate regime."""
    eval_every: int = setting(1, at_least=1)
    """Epochs between two validations."""
    eval_nodes: int | None = setting(None, at_least=2)
    """By how many validation nodes, drawn by the seed, training stops; the standard error of their score is said, and
    what is reported is of all. None: by all."""
    ema_decay: float = setting(0.0, [0.0, 0.9, 0.98], at_least=0, below=1)
    """Decay of a moving average of the weights over epochs, which is validated and kept instead of them; 0: none."""
    batch: str = "auto"
    """What a step is taken on: full (the whole graph), parts(10) (its nodes in ten random parts), neighbors(15,10,5)
    (1,024 nodes with so many neighbours, hop by hop; neighbors(15,10,size=512,kind=labor)), hops (1,024 nodes, with
    averages of the features over hops, made once and kept in DATA_ROOT/averages; for experts such as sign, mlp, trees);
    auto: full where memory allows."""
    signal: str = "metric"
    """The one early-stopping signal, on validation nodes: metric (of the pool), expected (of random routing), loss."""
    normalize_features: bool = False
    """Whether every node's features are scaled to sum to one first (PyG's NormalizeFeatures)."""
    standardize: bool = False
    """Whether every column of the features is brought to mean 0 and deviation 1 first, as measured on the graph that is
    trained on; worth it where some columns are far wider than others."""
    mixture: bool = True
    """Whether the mixture is trained; without it only the experts alone are."""
    baselines: bool = True
    """Whether each expert is also trained alone, with the same budget, to compare with."""
    coverage: float | None = None
    """Chance with which the set of classes of a node shall hold its label, such as 0.9; half of the validation nodes
    then calibrate these sets and select nothing; none: no sets."""
    conformal: Literal["lac", "aps", "raps"] = setting("aps", when=has_sets)
    """The score that sets are made by: lac (the smallest), aps or raps (as likely right where the label is hard)."""
    diffusion: float = setting(0.0, when=has_sets, at_least=0, at_most=1)
    """Weight of the neighbours in that score; it helps where neighbours are of one class."""
    mondrian: bool = setting(False, when=has_sets)
    """Whether sets are calibrated for the nodes of either expert apart, so that coverage holds for both."""
    abstain_risk: float | None = None
    """Share of answers that may be wrong, such as 0.05; the same half of the validation nodes then finds the confidence
    below which a node is said to be unsure; none: every node is answered."""
    use_validation: bool = setting(False, when=refits)
    """Whether the experts are trained once more at the end, on training and validation labels, for as many epochs as
    served them best: a model for use, which predict then asks; tables are of the one before."""
    forget: list[str | int] = field(default_factory=list)
    """Training nodes, by what they are called, such as [5, 9], that are taken as nodes without a label."""
    seeds: int = setting(3, at_least=1, at_most=100_000)
    """Number of runs; the k-th uses seed first_seed + k, and of several masks the one of that number, modulo theirs."""
    first_seed: int = setting(0, at_least=0, at_most=2**32 - 100_001)
    """Seed of the first run."""
    predictions: PredictionsConfig = field(default_factory=PredictionsConfig)
    """What is written of the predictions; of a large graph all of it is much."""
    device: str = "auto"
    """auto, cpu, cuda, or mps."""
    precision: str = "32-true"
    """32-true, bf16-mixed, or, on CUDA devices, 16-mixed (Lightning Fabric's names)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from mowst.training import agreement, feed_of

        members = [member for part in (self.weak, self.strong) for member in part.members.values()]
        seconds(self.budget)
        if self.weak.kind == AUTO:
            raise InputError("weak.kind: auto is for the strong expert; give an expert, such as mlp")
        given = self.signal, self.optimizer, self.pretrain
        agreement.check_names([member.kind for member in members], self.gate_kind, self.gate.dispersions, *given)
        for each in (member for member in members if member.training or member.seed):
            agreement.check_apart(self.regime)
            try:
                replace(self, weak=ExpertConfig("mlp"), strong=ExpertConfig("gcn"), **each.pace)
            except InputError as error:
                raise InputError(f"{each.kind}: pace: {error}") from None
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if not (self.mixture or self.baselines):
            raise InputError("mixture and baselines: both are off, so there is nothing to train")
        if self.batch != "auto":
            feed_of(self.batch)
        if self.rehearsals > self.folds:
            raise InputError(f"rehearsals: must be at most folds ({self.folds}), got {self.rehearsals}")
        if not (self.coverage is self.abstain_risk is None or has_mixture(self)):
            raise InputError("coverage and abstain_risk: are for a mixture, and none is trained")
        if self.coverage is not None:
            from mowst.evaluation import fewest

            fewest(self.coverage)
        if self.abstain_risk is not None and not 0 < self.abstain_risk < 1:
            raise InputError(f"abstain_risk: must be above 0 and below 1, got {self.abstain_risk}")
        if self.use_validation and not refits(self):
            raise InputError(
                "use_validation: trains the experts of a mixture again, each on its own; it goes with the "
                "regime held-out, without kd"
            )
        agreement.check_objective(self.objective, self.regime, self.gate_kind)
        agreement.check_distillation(self.kd, self.teacher, self.regime, mixture=self.mixture)

    @property
    def own(self) -> bool:
        """Tell whether the dataset is a file or folder of a person's own."""
        from mowst.data.own import is_own

        return is_own(self.dataset)

    @property
    def all_seeds(self) -> range:
        """The seed of each run."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @property
    def gate_kind(self) -> str:
        """The gate's kind, where none is named the regime's own."""
        from mowst.training import REGIMES

        return self.gate.kind or REGIMES.lookup(self.regime).gate

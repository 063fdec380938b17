"""Distillation losses on logits for node classification.

Notation. N nodes, E edges, C classes. s, t: logits of student and teacher [N, C]; q, p: their softmax; y: the target
class, p_y its probability; p̂: the softmax over the C - 1 other classes; T a temperature, p_T = softmax(t / T). A loss
is given `Signals` of both models and returns one number per node, [N], which the caller masks and averages; a loss
whose rows depend on each other says so (`scope = Scope.ALL`) and returns a scalar over the rows it is given.

    student, teacher = Signals(model(x, edge_index)), Signals(teacher_logits)
    loss = F.cross_entropy(student.logits[train], y[train]) + NKD()(student, teacher, target=y_train).mean()

A target is -100 where training may not see a label; there the teacher's argmax stands in. The teacher is detached,
half precision becomes float32, and logits of ±1e4 are finite with a finite gradient in every loss. A teacher may mask
classes of a row by -inf: they count as 2e4 below its largest logit. What is none of what an argument must be (one logit
a node, a teacher's NaN, labels [N, 1] or of classes that are not there, a mask of numbers, a negative weight) is
refused by a `ValueError` of one line (`graphkd.checks`); of the student's own numbers nothing is asked.

Losses on a row of logits (`graphkd.logit`)
    KD            T² KL(p_T ‖ q_T). As T grows: (1 / 2C) Σ_c (d_c - mean d)², d = s - t.       Hinton 2015, 1503.02531
    GLNN          KD at T = 1 on all nodes; the authors' default adds no label term. They step
                  on labels and on soft labels in turn, in batches of 512.                        Zhang 2022, 2110.08727
    DKD           T² (α KL(b^t ‖ b^s) + β KL(p̂_T ‖ q̂_T)), b = (p_y, 1 - p_y) at T. KD is α = 1,
                  β = 1 - p_y. The authors warm the weight up over 20 epochs (`warmup=19`).       Zhao 2022, 2203.08679
    NKD           -p_y log q_y - γ T² Σ_{c≠y} p̂_c log q̂_c = p_y CE + γ T² (NCKD + H(p̂)): DKD's
                  second part by gradient, another first; not zero at s = t.                      Yang 2023, 2303.13005
    Standardized  a loss on (z - mean z) / std z of both rows: blind to scale and offset. Unbiased
                  std as in the authors' code; the paper divides by C.                            Sun 2024, 2403.01427

Losses with heads of their own on hidden layers (`graphkd.feature`)
    OFA           -Σ_c w_c log q_c, w_c = (p_c + [c = y])^γ - [c = y], on the output and on a linear
                  exit at each layer; cross-entropy at γ = 1. The paper leaves w_c = p_c off the
                  target: `gamma_on="target"`.                                                    Hao 2023, 2310.19444
    DualHead      T² Σ_c log cosh((z_c - t_c) / 2T), z from an auxiliary head. The authors' clamped
                  form overflows where z is far above t.                                          Yang 2024, 2411.08937
    USKD          no teacher: α P CE + β CE(Zipf ranks, q̂) + μ CE(weak head). Scope ALL, labelled
                  rows only; `author_code` ranks as their code does.                              Yang 2023, 2303.13005

Graphs of classes (`graphkd.graph`)
    GLD           Distance of the node features of two co-activation graphs of top-k probabilities, class
                  by class; global, per class or per neighbourhood. `matching="sorted"` is the paper's, W₁,
                  a lower bound of their Gromov-Wasserstein distance for vocabularies that are not aligned;
                  `certificate` brackets that distance, `gromov_wasserstein` estimates it. Our reading: no
                  code was published.                                                             Wang 2025, 2505.13893

Relations between nodes (`graphkd.relation`)
    LSP           KL of softmax_i exp(-‖h_i - h_j‖₁ / width) over incoming edges. The authors use it
                  for the first 30 epochs only.                                                   Yang 2020, 2003.10477
    RKD           smooth-L1 of relative distances and of angles, over samples or edges.           Park 2019, 1904.05068

What a teacher says of neighbours (`graphkd.neighbours`): each node the same say, draws replaced by expectations
    KRD           KL to the teacher's rows of reliable neighbours; `refit` fits their
                  power to the student as it learns.                                              Wu 2023, 2306.05628
    HGMD          the same, weighted by how hard a node is for teacher and student;
                  `mixup` mixes the rows of a node and its neighbour.                             Wu 2024, 2407.14768
    FFG2M         KL to the rows of all neighbours, and of the softmaxes of |z_i - z_j| on edges.   Wu 2023, 2305.10758

Similarities, and hidden layers (`graphkd.similarity`)
    SP            ‖G_t - G_s‖² / N², G = HH' with rows of length 1; as they are with `normalize=False`,
                  NOSMOG's (Tian 2023, 2208.10010). O(N H H'), no Gram matrix is formed.          Tung 2019, 1907.09682
    DIST          T² (β (1 - ρ) over each node's classes + γ (1 - ρ) over each class's nodes).    Huang 2022, 2205.10536
    Hint          ½ ‖W h + b - h_t‖² / H' of the last hidden layers.                              Romero 2015, 1412.6550

Codes for what surrounds a node (`graphkd.codes`)
    VQGraph       KL of softmax(cos(h, e) / τ) over codes e of the teacher's hidden layer, more than
                  there are classes; `codebook` finds them, or a
                  `Tokenizer` learns them with the teacher.                                      Yang 2024, 2308.02117

Teachers (`graphkd.teacher`): `extrapolate` goes from a weak expert's logits through a strong one's and beyond
(Zhang 2025, 2503.02832, there with reverse KL on tokens); `reliability` says how far each node can be believed;
`rebalance` tells a teacher of equally many labels a class how frequent the classes are (Saerens et al., 2002).

Beside a teacher (`graphkd.positions`), from NOSMOG (Tian 2023, 2208.10010): `positions`, features of where a node lies
(its DeepWalk in the closed form of Qiu 2018, 1710.02971), and `worst_noise`, which raises a student's loss.

What cannot work is said: two classes leave NKD's, DKD's and USKD's non-target parts and all of Standardized empty;
GLD of all classes is nothing but their marginals, and of standardized rows it is 0.
"""

from graphkd.catalogue import LOSSES, Weighted, build, find, make, parse
from graphkd.certificate import Certificate
from graphkd.codes import Tokenizer, Tokens, VQGraph
from graphkd.contract import DistillationLoss, Scope, on_rows, scope_of
from graphkd.feature import OFA, USKD, DualHead
from graphkd.functions import (
    binary_kl,
    certificate,
    codebook,
    dist,
    dkd,
    extrapolate,
    gromov_wasserstein,
    hgmd,
    high_frequency,
    kd,
    krd,
    lsp,
    nkd,
    ofa,
    rebalance,
    reliability,
    rkd_angle,
    rkd_distance,
    sp,
    standardize,
    uskd,
)
from graphkd.graph import GLD
from graphkd.hidden import hidden_of
from graphkd.logit import DKD, GLNN, KD, NKD, Standardized
from graphkd.neighbours import FFG2M, HGMD, KRD
from graphkd.positions import positions, worst_noise
from graphkd.relation import LSP, RKD
from graphkd.signals import Signals, fill_target, take
from graphkd.similarity import DIST, SP, Hint
from graphkd.teacher import Extrapolated, Extrapolation

__all__ = [
    "DIST", "DKD", "FFG2M", "GLD", "GLNN", "HGMD", "KD", "KRD", "LOSSES", "LSP", "NKD", "OFA", "RKD", "SP", "USKD",
    "Certificate", "DistillationLoss", "DualHead", "Extrapolated", "Extrapolation", "Hint", "Scope", "Signals",
    "Standardized", "Tokenizer", "Tokens", "VQGraph", "Weighted", "binary_kl", "build", "certificate", "codebook",
    "dist", "dkd", "extrapolate", "fill_target", "find", "gromov_wasserstein", "hgmd", "hidden_of",
    "high_frequency", "kd", "krd", "lsp", "make", "nkd", "ofa", "on_rows", "parse", "positions", "rebalance",
    "reliability", "rkd_angle", "rkd_distance", "scope_of", "sp", "standardize", "take", "uskd", "worst_noise",
]  # fmt: skip

"""Node classification by a mixture of a weak and a strong expert.

A small MLP sees a node's own features, a GNN its neighbourhood; how peaked the MLP's prediction is says how far to
trust it (Mowst; Zeng et al., ICLR 2024, arXiv 2311.05185).
"""

from mowst.classifier import MowstClassifier
from mowst.data import from_networkx, load
from mowst.errors import InputError
from mowst.experiment.config import Config, ExpertConfig, GateConfig
from mowst.models.experts import expert
from mowst.models.gates import FusedGate, LearnedGate, LogisticGate, MonotoneGate, PowerGate
from mowst.models.mixture import Mixture, Mowst

__all__ = [
    "Config",
    "ExpertConfig",
    "FusedGate",
    "GateConfig",
    "InputError",
    "LearnedGate",
    "LogisticGate",
    "Mixture",
    "MonotoneGate",
    "Mowst",
    "MowstClassifier",
    "PowerGate",
    "expert",
    "from_networkx",
    "load",
]

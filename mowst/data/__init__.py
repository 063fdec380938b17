"""Graphs by name, as one PyG `Data` each: features, a tidy `edge_index`, labels, three disjoint masks.

A dataset is a card, one YAML file (`datasets/<name>.yaml`), that says which class or function loads it and with what,
how it is split, how it is scored and where it comes from. Whatever PyG loads already needs a card and no code.

Notation: `x [N, F]` float, dense or sparse CSR; `edge_index [2, E]`; `y [N]`, -1 where a node has no label;
`train_mask, val_mask, test_mask [N]` bool.
"""

from mowst.data.built_in import digits, sbm
from mowst.data.cards import Card, card, catalogue, names
from mowst.data.loading import load
from mowst.data.networks import from_networkx
from mowst.data.validation import check

__all__ = ["Card", "card", "catalogue", "check", "digits", "from_networkx", "load", "names", "sbm"]

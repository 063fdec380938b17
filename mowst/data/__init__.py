"""Graphs by name, as one PyG `Data` each: features, a tidy `edge_index`, labels, three disjoint masks.

A dataset is a card, one YAML file (`datasets/<name>.yaml`), that says which class or function loads it and with what,
how it is split, how it is scored and where it comes from. Whatever PyG loads already needs a card and no code.

Notation: `x [N, F]` float, dense or sparse CSR; `edge_index [2, E]`; `y [N]`, -1 where a node has no label;
`train_mask, val_mask, test_mask [N]` bool.

It imports `mowst.system` and `mowst.names`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

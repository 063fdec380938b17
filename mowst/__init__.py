"""Node classification by a mixture of a weak and a strong expert.

A small MLP sees a node's own features, a GNN its neighbourhood; how peaked the MLP's prediction is says how far to
trust it (Mowst; Zeng et al., ICLR 2024, arXiv 2311.05185). The rooms, from the ground up; each imports from those
above it in this list, never the other way:

    kernels      sparse matrices, adjacency, sparse features, attention, dropout
    system       processes, files, being a program
    data         graphs by name
    models       experts, gates, the mixture, and what they say
    evaluation   metrics, fusions, calibration, routing, diagnosis
    inference    from a trained mixture to predictions
    reporting    tables, progress, pages
    training     phases, batches, the trainer, regimes, distillation
    experiment   configuration, plan, seeds, records
    tuning       studies
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

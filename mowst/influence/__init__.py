"""Which labels spoke: the training nodes whose labels moved a prediction, by their influence on a node's logits.

`LastLayer` refits the last layer of an expert on what the layers below give, and says in closed form what happens to
every logit when a label is taken away; `Network` does so through all weights, by products with the Gauss-Newton matrix;
`Counts` counts the neighbours again, which is exact; `why` asks them about an expert, a panel or a mixture. It imports
`mowst.models`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

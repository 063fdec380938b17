"""Studies: what may be searched, how it is drawn, where trials are kept, how they are judged, who wins.

It imports everything but the commands.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Where a process stands among those that torchrun, or a program of ours, has started; imports nothing long."""

from __future__ import annotations

import os
from typing import NamedTuple


class Group(NamedTuple):
    """The place of a process among those that train together."""

    rank: int
    size: int
    local_size: int
    """Processes on this machine."""

    @classmethod
    def here(cls) -> Group | None:
        """Return the place that torchrun has given this process; none if it has not, or to one alone."""
        if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE") in (None, "1"):
            return None
        return cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")))

    @property
    def hosts(self) -> int:
        """Return the number of machines, which have as many processes each."""
        return self.size // self.local_size

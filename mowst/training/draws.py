"""Where torch's generators stand."""

from __future__ import annotations

from typing import Any

import torch


def random_states() -> dict[str, Any]:
    """Return the states of torch's generators."""
    cuda = [state.clone() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_states(states: dict[str, Any]) -> None:
    """Put torch's generators into the states of before."""
    torch.set_rng_state(states["cpu"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])

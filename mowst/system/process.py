"""Settings of a whole process, for the command line programs: no library function ever touches them.

What they bring is measured by `benchmarks/speed.py`; results differ from the plain settings by the draw of the
dropout masks, whose probability is rounded to a 256th, and on a CUDA device by products in TF32, at most.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from mowst.errors import InputError
from mowst.kernels import CudaGraphs, draw_bits, measuring, recording
from mowst.names import trust

Capture = bool | Literal["auto"]
Matmul = Literal["auto", "highest", "high", "medium"]
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # Names of glibc's malloc.h, which has them as numbers.
NEVER = -1  # As a threshold; any other is an int, and two gigabytes are soon free at once.


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory in the process, and answer whether it did; other systems are left as they are.

    A large tensor is otherwise given back to the system when freed, and the next one pays for fresh pages: more than
    the arithmetic on it costs. The price is that the process stays as large as its largest moment, and that moment is
    about twice as large: not every hole that a tensor leaves can be used again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all([mallopt(MMAP_THRESHOLD, 1 << 30), mallopt(TRIM_THRESHOLD, NEVER)])


def check_products(precision: Matmul, device: torch.device) -> None:
    """Refuse less than the highest precision of float32 products on a device other than a CUDA one.

    Raises:
        InputError: it is asked for.
    """
    if precision not in ("auto", "highest") and device.type != "cuda":
        raise InputError(f"--matmul {precision}: needs a CUDA device, this is {device.type}; choose from auto, highest")


def epochs_recorded(capture: Capture, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Run a command whose epochs are recorded as CUDA graphs (`mowst.kernels.recording`) if it is asked for.

    `auto` is no, as long as nobody has seen it run on a GPU.

    Raises:
        InputError: at once, if it is asked of a device other than a CUDA one.
    """
    if capture is True and device.type != "cuda":
        raise InputError(
            f"--capture: needs a CUDA device, this is {device.type}; leave it out, or take --capture false"
        )
    return recording(CudaGraphs() if capture is True else None)


@contextlib.contextmanager
def products_in(precision: Matmul) -> Iterator[None]:
    """Multiply float32 matrices in torch's `highest`, `high` (TF32) or `medium` (bfloat16) precision.

    `auto` is `high` on CUDA devices, and what it was elsewhere.
    """
    before = torch.get_float32_matmul_precision()
    if precision == "auto":
        torch.backends.cuda.matmul.allow_tf32 = True  # of CUDA devices alone, as the others are not
    else:
        torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def hush_libraries() -> None:
    """Leave out what Lightning says of itself; it sets its own level when it is imported, so it is imported here."""
    import lightning_fabric

    logging.getLogger(lightning_fabric.__name__).setLevel(logging.WARNING)


@contextlib.contextmanager
def tune_process(enabled: bool = True, *, keep_memory: bool = True, matmul: Matmul = "auto") -> Iterator[None]:
    """Run a command with what makes it fast: dropout draws bits, freed memory stays, and a GPU multiplies in TF32."""
    if not enabled:
        with products_in("highest" if matmul == "auto" else matmul):
            yield
        return
    if keep_memory:
        keep_freed_memory()
    with draw_bits(), products_in(matmul):
        yield


@dataclass(frozen=True)
class Settings:
    """The settings of a command's process, to be applied in another one, too."""

    fast: bool = True
    keep_memory: bool = True
    matmul: Matmul = "auto"
    capture: Capture = "auto"
    measure: bool = False
    """Whether our own kernels are taken on a CUDA device where they were measured to pay (`mowst.kernels.choosing`)."""
    trusted: tuple[str, ...] = ()
    """Packages that files may name (`mowst.names.trust`)."""
    threads: int | None = None
    """Of torch; none: the process's share of the CPUs (`mowst.system.threads`)."""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Run with them."""
        trust(*self.trusted)
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        graphs = recording(CudaGraphs() if self.capture is True else None)
        tuned = tune_process(self.fast, keep_memory=self.keep_memory, matmul=self.matmul)
        with tuned, graphs, measuring(self.measure):
            yield

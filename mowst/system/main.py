"""Being a program: errors become one line on standard error, and what libraries say of themselves is left out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence

from mowst.errors import InputError


def main(command: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> None:
    """Run a command as a program.

    Exit codes: 2 for wrong input, 1 for training that diverged, 130 where it was interrupted.
    """
    try:
        speak_plainly()
        sys.exit(command(arguments))
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"error: training diverged: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def speak_plainly() -> None:
    """Say a warning in a line of our own, and leave out what a library says of torch."""
    warnings.filterwarnings("ignore", message=".*torch.jit.*is deprecated", category=DeprecationWarning)
    warnings.formatwarning = lambda message, *_, **__: f"note: {' '.join(str(message).split())}\n"

"""Being a program: errors become one line on standard error, and what libraries say of themselves is left out."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence

from mowst.errors import InputError


def main(command: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> None:
    """Run a command as a program.

    Exit codes: 2 for wrong input, 1 for training that diverged, 130 where it was interrupted.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, leave)
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
    finally:
        signal.signal(signal.SIGINT, before)


def leave(*_: object) -> None:
    """End at once: an exception in the midst of a library's import may be swallowed there, or become another one."""
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(130)


def imported() -> None:
    """Say that a command has imported what it needs: from now on an interrupt is an exception."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def speak_plainly() -> None:
    """Say a warning in a line of our own, and leave out what a library says of torch."""
    warnings.filterwarnings("ignore", message=".*torch.jit.*is deprecated", category=DeprecationWarning)
    warnings.formatwarning = lambda message, *_, **__: f"note: {' '.join(str(message).split())}\n"

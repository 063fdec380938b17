"""Being a program: errors become one line on standard error, signals end it in good order, and any text can be printed.

What libraries say of themselves is left out. It imports nothing that takes long.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

from mowst.errors import InputError
from mowst.system.memory import out_of_memory, too_large

STOPPING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
"""Signals that end a program in good order, and what it then says."""
BROKEN_PIPE = 128 + 13
"""Exit code where nobody reads the output any more, as shells have it for SIGPIPE."""
SPELLED = {"±": "+-", "×": "x", "…": "...", "–": "-", "—": "-", "−": "-", "·": "*", "²": "^2", "½": "1/2"}
"""How to write what a terminal's encoding lacks."""


SPINS = "10000"
"""How often a thread of OpenMP (GNU's) looks for work before it sleeps, unless somebody has said it: on a busy machine
those that look keep those that have some from doing it. It counts where torch is not loaded yet."""


class Stopped(KeyboardInterrupt):
    """A signal asks the program to end; its `number` says which."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def main(command: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None) -> None:
    """Run a command as a program.

    Exit codes: 2 for wrong input, and where a file, a disk or memory failed; 1 for training that diverged; 128 and the
    signal's number where one ended it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    before = {each: handler for each in STOPPING if (handler := signal.getsignal(each)) in UNTOUCHED}
    try:
        for each in before:
            signal.signal(each, leave)
        speak_plainly()
        write_anything()
        with written_out():
            sys.exit(command(arguments))
    except InputError as error:
        fail(f"error: {flat(error)}", 2)
    except FloatingPointError as error:
        fail(f"error: training diverged: {error}", 1)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        fail(STOPPING[signal.Signals(number)], 128 + number)
    except BrokenPipeError:
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if out_of_memory(error):
            fail(f"error: {too_large(error)}", 2)
        what = f"{error.filename}: " if error.filename is not None else ""
        fail(f"error: {what}{error.strerror or flat(error)}", 2)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        fail(f"error: {too_large(error)}", 2)
    finally:
        with suppress(OSError):
            write_out()
        for each, handler in before.items():
            signal.signal(each, handler)


UNTOUCHED = (signal.default_int_handler, signal.SIG_DFL)
"""Handlers of a signal that nobody else handles; in a shell's background job SIGINT is ignored, and stays so."""


def leave(number: int, _: object) -> NoReturn:
    """End at once: an exception in the midst of a library's import may be swallowed there, or become another one."""
    with suppress(OSError):
        print(STOPPING[signal.Signals(number)], file=sys.stderr, flush=True)
    os._exit(128 + number)


def stop(number: int, _: object) -> NoReturn:
    """End by an exception, so that what is half done is undone."""
    raise Stopped(number)


def imported() -> None:
    """Say that a command has imported what it needs: from now on a signal is an exception."""
    for number in STOPPING:
        if signal.getsignal(number) is leave:
            signal.signal(number, stop)


def fail(line: str, code: int) -> NoReturn:
    """Say in a line why the program ends, and end it."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    sys.exit(code)


def flat(error: BaseException) -> str:
    """Put what an error says on one line."""
    return " ".join(str(error).split())


def speak_plainly() -> None:
    """Say a warning in a line of our own, and leave out what a library says of torch."""
    warnings.filterwarnings("ignore", message=".*torch.jit.*is deprecated", category=DeprecationWarning)
    warnings.formatwarning = lambda message, *_, **__: f"note: {' '.join(str(message).split())}\n"


def write_anything() -> None:
    """Let standard output and error take any text: what their encoding lacks is spelled, or a question mark."""
    codecs.register_error("mowst", spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in CARELESS:
            stream.reconfigure(errors="mowst")


CARELESS = ("strict", "surrogateescape", "backslashreplace")
"""What Python makes of text that cannot be written, where nobody has said anything else (PYTHONIOENCODING)."""


def spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write a character that an encoding lacks; bytes of a file's name that are no text are written as they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    is_byte = "\udc80" <= character <= "\udcff"
    return bytes([ord(character) - 0xDC00]) if is_byte else SPELLED.get(character, "?"), error.start + 1


@contextmanager
def written_out() -> Iterator[None]:
    """Write out what is waiting when the program ends as it wants to, so that a failure is seen here."""
    try:
        yield
    except SystemExit as end:
        write_out()
        if isinstance(end.__context__, BrokenPipeError):  # of which rich has made an exit code of its own
            sys.exit(BROKEN_PIPE)
        raise


def write_out() -> None:
    """Write out what is waiting; where that fails it is dropped, for Python would try again, and say so at length.

    Raises:
        OSError: that it fails, with the stream's name.
    """
    for stream, name in ((sys.stdout, "standard output"), (sys.stderr, "standard error")):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            with suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
                stream.flush()
            raise OSError(error.errno, error.strerror, name) from None

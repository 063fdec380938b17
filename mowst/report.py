"""`python -m mowst.report RUN...`: write a run's page again, or compare several runs, without their graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mowst.system.main import imported, main

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

PURPOSE = """Show runs side by side, from what they left in their folders: tables here, and with --out a page, Markdown
and LaTeX. Of one run without --out the page in its folder is written again."""


def flags() -> ArgumentParser:
    """Return the parser of the command line."""
    from mowst.experiment import reading

    parser = reading.parser("report", PURPOSE, config=False)
    parser.add_argument("runs", type=str, nargs="+", help="Folders of whole runs, as --out of mowst.run named them.")
    about = "Folder for report.html, table.md and table.tex."
    parser.add_argument("--out", type=str | None, default=None, help=about)
    reading.add_switch(parser, "--overwrite", False, "Replace a comparison that OUT holds.")
    return parser


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, read the runs, print the tables, write what is asked for."""
    from mowst.experiment import reading

    parsed = reading.parse(flags(), arguments)

    from rich.console import Console

    from mowst.experiment.reports import rewrite_report, tables_of, write_comparison

    imported()
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    folders = [Path(run) for run in parsed.runs]
    if parsed.out is not None:
        place = write_comparison(folders, Path(parsed.out), overwrite=parsed.overwrite)
    elif len(folders) == 1:
        place = rewrite_report(folders[0])
    else:
        place = None
    for table in tables_of(folders):
        console.print(table)
    console.print(f"written to {place}" if place else "--out DIR writes a page, Markdown and LaTeX", soft_wrap=True)
    return 0


if __name__ == "__main__":
    main(command)

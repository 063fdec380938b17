"""Tables that go to the terminal, a page, a README or a paper: one grid of words, written in each way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text


class Grid(NamedTuple):
    """A table of words with what stands out in it."""

    caption: str
    heads: list[str]
    rows: list[list[str]]
    bold: frozenset[tuple[int, int]] = frozenset()
    """Rows and columns of cells, counted from 0."""

    def stands_out(self, row: int, column: int) -> bool:
        """Whether a cell does."""
        return (row, column) in self.bold


def terminal(grid: Grid) -> Table:
    """Return a table for the terminal."""
    table = Table(title=Text(grid.caption), title_justify="left")
    for head in grid.heads:
        table.add_column(Text(head))
    for row, cells in enumerate(grid.rows):
        styles = ("bold" if grid.stands_out(row, column) else "" for column in range(len(cells)))
        table.add_row(*(Text(cell, style) for cell, style in zip(cells, styles, strict=True)))
    return table


def markdown(grid: Grid) -> str:
    """Write a table in Markdown, best in bold."""
    rows = [
        [
            f"**{markdown_words(cell)}**" if grid.stands_out(row, column) else markdown_words(cell)
            for column, cell in enumerate(cells)
        ]
        for row, cells in enumerate(grid.rows)
    ]
    heads = [markdown_words(head) for head in grid.heads]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{markdown_words(grid.caption)}\n\n{table}\n"


def markdown_words(words: str) -> str:
    """Escape what Markdown would take for markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", words).replace("\n", " ")


def latex(grid: Grid) -> str:
    """Write a table in LaTeX with the rules of booktabs, best in bold."""
    rows = [
        [
            rf"\textbf{{{latex_words(cell)}}}" if grid.stands_out(row, column) else latex_words(cell)
            for column, cell in enumerate(cells)
        ]
        for row, cells in enumerate(grid.rows)
    ]
    head = latex_row([latex_words(head) for head in grid.heads])
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_words(grid.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.heads) - 1)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *map(latex_row, rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex_row(cells: Sequence[str]) -> str:
    """Put the cells of a row together."""
    return rf"{' & '.join(cells)} \\"


SPELLED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": "$-$",
    "\n": " ",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
"""How LaTeX has what it would take for markup."""


def latex_words(words: str) -> str:
    """Escape what LaTeX would take for markup."""
    return "".join(SPELLED.get(sign, sign) for sign in words)

"""A page in one file that needs nothing else: text, tables, and charts that its own script draws."""

from __future__ import annotations

import html
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from mowst.reporting.charts import Chart
from mowst.reporting.grids import Grid
from mowst.system import finite

NOTHING_ELSE = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for the page: nothing from anywhere."""
GENERATED = "<meta name=generator content=mowst>"
"""Says whose page it is."""


class Page:
    """A page that grows by its parts, whose words are escaped."""

    def __init__(self, title: str):
        self.title, self.parts, self.charts = title, list[str](), list[Chart]()

    def add(self, tag: str, words: str, kind: str = "") -> None:
        """Add an element of text, of a class of the style sheet."""
        self.parts.append(element(tag, words, kind))

    def add_list(self, items: Iterable[str]) -> None:
        """Add a list."""
        self.parts.append(f"<ul>{''.join(element('li', item) for item in items)}</ul>")

    def add_grid(self, grid: Grid) -> None:
        """Add a table of numbers in which the best stand out."""
        self.add_table(grid.heads, grid.rows, caption=grid.caption, bold=grid.bold)

    def add_table(
        self,
        heads: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        caption: str = "",
        bold: Collection[tuple[int, int]] = (),
        words: bool = False,
    ) -> None:
        """Add a table.

        Args:
            heads: of the columns.
            rows: of cells.
            caption: what it is.
            bold: rows and columns of the cells that stand out.
            words: whether its columns are words, not numbers.
        """
        body = []
        for place, row in enumerate(rows):
            inside = ""
            for column, (head, cell) in enumerate(zip(heads, row, strict=True)):
                kind = " class=best" if (place, column) in bold else ""
                inside += f'<td data-head="{html.escape(head)}"{kind}>{html.escape(cell)}</td>'
            body.append(f"<tr>{inside}</tr>")
        top = "".join(element("th", head) for head in heads)
        about = element("caption", caption) if caption else ""
        kind = " class=words" if words else ""
        self.parts.append(f"<table{kind}>{about}<thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table>")

    def add_charts(self, charts: Iterable[Chart | None]) -> None:
        """Add charts side by side, where there is room; what is none is left out."""
        figures = []
        for chart in charts:
            if chart is not None:
                place = f'<div class=chart data-chart="{len(self.charts)}"></div>'
                figures.append(
                    f"<figure>{element('h3', chart.title)}{place}{element('figcaption', chart.says)}</figure>"
                )
                self.charts.append(chart)
        if figures:
            self.parts.append(f"<div class=charts>{''.join(figures)}</div>")

    def html(self) -> str:
        """Return the page."""
        from plotly.offline import get_plotlyjs

        here = Path(__file__).parent
        style, script = (here.joinpath(f"page.{end}").read_text(encoding="utf-8") for end in ("css", "js"))
        head = [
            "<!doctype html><html lang=en><head><meta charset=utf-8>",
            GENERATED,
            '<meta name=viewport content="width=device-width, initial-scale=1">',
            f'<meta http-equiv=Content-Security-Policy content="{NOTHING_ELSE}">',
            f"{element('title', self.title)}<style>{style}</style></head><body>",
        ]
        tail = []
        if self.charts:
            drawn = json.dumps(finite([{"data": chart.data, "layout": chart.layout} for chart in self.charts]))
            tail = [
                f'<script type="application/json" id=charts>{drawn.replace("<", chr(92) + "u003c")}</script>',
                f"<script>{get_plotlyjs()}</script><script>{script}</script>",
            ]
        return "\n".join([*head, *self.parts, *tail, "</body></html>\n"])


def element(tag: str, words: str, kind: str = "") -> str:
    """Return an element of text, escaped."""
    return f"<{tag}{f' class={kind}' if kind else ''}>{html.escape(words)}</{tag}>"

"""Charts of where in the graph a run is right: by degree and homophily, by class, and around single nodes."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mowst.reporting.charts import COLORS, CYCLE, GREY, Chart, Trace, axes, line
from mowst.reporting.finished import Finished, added_bins, expert_words

MOST_CLASSES, LONGEST = 30, 16
"""Classes of a confusion matrix, and characters of a name there."""


def short(name: str) -> str:
    """Cut a name, for a chart, in which markup has no meaning."""
    return html.escape(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…")


def by_degree(run: Finished) -> Chart | None:
    """Draw who is asked and who is right by the number of neighbours."""
    found = added_bins([each["degree"] for each in run.figures])
    names = [f"{b['low']:.0f}" if b["high"] <= b["low"] else f"{b['low']:.0f}–{b['high']:.0f}" for b in found]
    return binned(run, "By degree", "edges that lead to a node", names, found)


def by_homophily(run: Finished) -> Chart | None:
    """Draw who is asked and who is right by the share of neighbours that are of a node's class."""
    found = added_bins([each["homophily"] for each in run.figures])
    middles = [50 * (each["low"] + each["high"]) for each in found]
    return binned(run, "By local homophily", "% of neighbours of the node's class", middles, found)


def binned(
    run: Finished, title: str, what: str, x: Sequence[Any], found: Sequence[Mapping[str, float]]
) -> Chart | None:
    """Draw bins: bars of the share that is routed to the strong expert, and lines of what is right."""
    if not found:
        return None
    said = [f"{each['nodes']:,.0f} nodes" for each in found]
    data = list[Trace]()
    if run.routes:
        y = [100 * each["routed"] / each["nodes"] for each in found]
        bar = {"type": "bar", "marker": {"color": f"{GREY}66"}, "text": said, "textposition": "none"}
        data.append({**bar, "x": list(x), "y": y, "name": "sent to the strong expert"})
    for place, name in enumerate(run.figures[0]["models"]):
        y = [100 * each[name] / each["nodes"] for each in found]
        color = COLORS.get(name, CYCLE[place % len(CYCLE)])
        data.append(line(x, y, f"{expert_words(name)} right", color, mode="lines+markers", text=said))
    layout = axes(what, f"% of {run.where} nodes", hovermode="x unified")
    layout["xaxis"]["type"] = "category" if isinstance(x[0], str) else "linear"
    layout["yaxis"]["range"] = [0, 105]
    counts = [each["nodes"] for each in found]
    says = f"A bin has from {min(counts):,.0f} to {max(counts):,.0f} nodes, all seeds together; few tell little."
    return Chart(title, says, data, layout)


def confusion(run: Finished) -> Chart | None:
    """Draw which classes are taken for which, in percent of each class."""
    classes = run.figures[0]["classes"]
    size = len(classes)
    counts = [[sum(each["confusion"][i][j] for each in run.figures) for j in range(size)] for i in range(size)]
    often = sorted(sorted(range(size), key=lambda i: -sum(counts[i]))[:MOST_CLASSES])
    totals = {i: sum(counts[i]) or 1 for i in often}
    shares = [[round(100 * counts[i][j] / totals[i], 2) for j in often] for i in often]
    names = [short(classes[i]) for i in often]
    says = "Each row is a class, and adds up to 100 %: what its nodes are taken for."
    if size > MOST_CLASSES:
        says += f" The {MOST_CLASSES} most frequent of {size} classes."
    scale = [[0, f"{COLORS['strong']}0d"], [1, COLORS["strong"]]]
    places = list(range(len(often)))
    heat = {"type": "heatmap", "x": places, "y": places, "z": shares, "colorscale": scale, "showscale": False}
    heat |= {"hovertemplate": "%{y} taken for %{x}: %{z} %<extra></extra>", "zmin": 0, "zmax": 100}
    if len(often) <= 12:
        heat |= {"texttemplate": "%{z:.0f}"}
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": names}
    layout = axes("predicted", "class", height=max(380, 60 + 22 * len(often)))
    layout["xaxis"] |= ticks
    layout["yaxis"] |= {**ticks, "autorange": "reversed"}
    return Chart("Confusion of classes", says, [heat], layout)


def around(run: Finished) -> Iterator[Chart]:
    """Draw some nodes of the first seed with their neighbours."""
    classes = run.figures[0]["classes"]
    for each in run.figures[0].get("around", []):
        first = each["nodes"][0]
        shown = len(each["nodes"]) - 1
        some = (
            f"{shown} of its {each['neighbours']} neighbours" if shown < each["neighbours"] else f"{shown} neighbours"
        )
        name = {role: classes[first[role]] for role in ("weak", "strong", "class")}
        says = (
            f"Node {first['node']} is of class {name['class']}; the weak expert says {name['weak']}, the strong one "
            f"{name['strong']}. With {some}; colours are classes, squares are nodes sent to the strong expert."
        )
        words = each["words"][0].upper() + each["words"][1:]
        yield Chart(words, says, list(drawn(each, classes)), picture())


def picture() -> dict[str, Any]:
    """Return a layout without axes."""
    hidden = {"visible": False, "showgrid": False, "zeroline": False}
    return {"xaxis": dict(hidden), "yaxis": dict(hidden), "height": 340}


def drawn(each: Mapping[str, Any], classes: Sequence[str]) -> Iterator[Trace]:
    """Yield the edges, then the nodes of each class."""
    import networkx

    graph = networkx.Graph(each["edges"])
    graph.add_nodes_from(range(len(each["nodes"])))
    found = networkx.spring_layout(graph, seed=0)
    place = {number: (round(float(x), 3), round(float(y), 3)) for number, (x, y) in found.items()}
    ends = [end for one, other in each["edges"] for end in (place[one], place[other], (None, None))]
    x, y = zip(*ends, strict=True) if ends else ((), ())
    quiet = {"hoverinfo": "skip", "showlegend": False, "mode": "lines"}
    yield line(x, y, "edges", f"{GREY}88", line={"width": 1}, **quiet)
    labels = sorted({node["class"] for node in each["nodes"]})
    for number, label in enumerate(labels):
        own = [number for number, node in enumerate(each["nodes"]) if node["class"] == label]
        marker = {
            "size": [22 if number == 0 else 11 for number in own],
            "symbol": ["square" if each["nodes"][number]["routed"] else "circle" for number in own],
            "color": CYCLE[number % len(CYCLE)],
            "line": {"width": 1, "color": GREY},
            "opacity": 1,
        }
        said = [f"node {each['nodes'][number]['node']}" for number in own]
        x, y = zip(*(place[number] for number in own), strict=True)
        name = short(classes[label]) if label >= 0 else "no label"
        yield {"type": "scatter", "mode": "markers", "x": x, "y": y, "text": said, "name": name, "marker": marker}

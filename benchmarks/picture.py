"""Draw the picture of the README, docs/picture.svg, from the folder of a run.

    mowst run --preset fast --out runs/picture && python benchmarks/picture.py runs/picture

Left: how often each expert is right on test nodes, over how sure the weak one is, in bins of equally many nodes, all
seeds together. Right: accuracy of each expert alone, of their plain average and of the mixture, with the deviation over
seeds. Nothing but the run's own records is read; the colours follow the reader's dark or light theme.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, LOW = 840, 330, 64, 62, 268
PLOT, BARS, STEP = 372, 520, 78
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; font-size: 15px; }
.small { font-size: 12px; fill: #59636e; }
.line { fill: none; stroke-width: 2.5; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.weak { stroke: #b35900; fill: #b35900; } .strong { stroke: #0969da; fill: #0969da; }
.both { stroke: #6e7781; fill: #6e7781; } .mixture { stroke: #1a7f37; fill: #1a7f37; }
.line.weak, .line.strong { fill: none; } text.weak, text.strong { stroke: none; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .small { fill: #9198a1; } .grid { stroke: #3d444d; }
  .weak { stroke: #f0a35e; fill: #f0a35e; } .strong { stroke: #58a6ff; fill: #58a6ff; }
  .both { stroke: #9198a1; fill: #9198a1; } .mixture { stroke: #3fb950; fill: #3fb950; }
}
"""


def right_by_confidence(folder: Path, seeds: list[int]) -> dict[str, list[float]]:
    """Return the mean over seeds of what each bin says: `confidence`, and percent right of `weak` and `strong`."""
    bins = [json.loads((folder / f"seed-{seed}" / "figures.json").read_text())["routing"]["bins"] for seed in seeds]
    count = min(len(each["confidence"]) for each in bins)
    scale = {"confidence": 1, "weak": 100, "strong": 100}
    return {
        name: [scale[name] * sum(each[name][place] for each in bins) / len(bins) for place in range(count)]
        for name in scale
    }


def height_of(percent: float, least: float) -> float:
    """Return where a percentage stands in the picture."""
    return LOW - (LOW - TOP) * (percent - least) / (100 - least)


def grid(start: float, end: float, least: int) -> list[str]:
    """Draw lines at round percentages."""
    return [
        f'<line class="grid" x1="{start}" x2="{end}" y1="{height_of(at, least):.1f}" y2="{height_of(at, least):.1f}"/>'
        f'<text class="small" x="{start - 6}" y="{height_of(at, least) + 4:.1f}" text-anchor="end">{at} %</text>'
        for at in range(least, 101, 10 if least >= 60 else 20)
    ]


def curves(found: dict[str, list[float]], names: dict[str, str]) -> list[str]:
    """Draw who is right where."""
    least, count = int(min(*found["weak"], *found["strong"]) // 20 * 20), len(found["weak"])
    across = [LEFT + PLOT * (place + 0.5) / count for place in range(count)]
    drawn = ['<text class="title" x="20" y="28">Right on test nodes, by how sure the MLP is</text>']
    drawn += grid(LEFT, LEFT + PLOT, least)
    for role, place in (("weak", 0), ("strong", 0)):
        points = " ".join(
            f"{x:.1f},{height_of(value, least):.1f}" for x, value in zip(across, found[role], strict=True)
        )
        drawn.append(f'<polyline class="line {role}" points="{points}"/>')
        below = 22 if role == "weak" else -12
        drawn.append(
            f'<text class="{role}" x="{across[place] + 12:.1f}" '
            f'y="{height_of(found[role][place], least) + below:.1f}">{names[role]}</text>'
        )
    drawn.append(f'<text class="small" x="{LEFT}" y="{LOW + 20}">unsure</text>')
    drawn.append(f'<text class="small" x="{LEFT + PLOT}" y="{LOW + 20}" text-anchor="end">sure</text>')
    return drawn


def dots(scores: dict[str, Any], names: dict[str, str]) -> list[str]:
    """Draw how good each is."""
    shown = {role: scores[role]["test"] for role in names}
    least = int(min(mean - deviation for mean, deviation in shown.values()) // 10 * 10)
    drawn = [f'<text class="title" x="{BARS - 44}" y="28">Accuracy on all test nodes</text>']
    drawn += grid(BARS, BARS + STEP * len(shown) - 8, least)
    for place, (role, (mean, deviation)) in enumerate(shown.items()):
        x, top = BARS + STEP * place + 10, height_of(mean, least)
        style = {"average": "both"}.get(role, role)
        ends = [height_of(mean + sign * deviation, least) for sign in (1, -1)]
        drawn.append(
            f'<line class="{style}" stroke-width="2" x1="{x + 26}" x2="{x + 26}" '
            f'y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>'
        )
        drawn.append(f'<circle class="{style}" cx="{x + 26}" cy="{top:.1f}" r="7"/>')
        drawn.append(f'<text x="{x + 26}" y="{min(top, ends[0]) - 12:.1f}" text-anchor="middle">{mean:.1f}</text>')
        drawn.append(f'<text class="small" x="{x + 26}" y="{LOW + 20}" text-anchor="middle">{names[role]}</text>')
    return drawn


def main() -> None:
    """Read a run, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "picture.svg")
    given = parser.parse_args()
    result = json.loads((given.run / "result.json").read_text())
    names = {"weak": "MLP", "strong": "GCN", "average": "average", "mixture": "mixture"}
    drawn = curves(right_by_confidence(given.run, result["seeds"]), names) + dots(result["scores"], names)
    foot = f"dataset {result['dataset']}, {len(result['seeds'])} seeds; mowst run --preset fast"
    words = "How often an MLP and a GCN are right, by how sure the MLP is; and what their mixture reaches."
    given.out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">\n'
        f"<style>{STYLE}</style>\n"
        + "\n".join(drawn)
        + f'\n<text class="small" x="20" y="{HEIGHT - 10}">{foot}</text>\n</svg>\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()

"""Plot a run's learning curve, by episode and by wall time (needs the [plot] extra).

    python scripts/plot_run.py runs/NAME/metrics.jsonl --out curve.png

``--thin N`` with ``--write FILE`` also writes every Nth line of the metrics, and the last.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

LINE, FAINT, GRID = "#1f5fa8", "#9db9d8", "#d9d9d9"


def main() -> None:
    """Read the metrics, draw, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("metrics", type=Path, help="a run's metrics.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write")
    parser.add_argument("--title", default="", help="printed above the curves")
    parser.add_argument("--thin", type=int, default=1, help="keep every Nth line of the metrics")
    parser.add_argument("--write", type=Path, help="where to write the lines kept")
    arguments = parser.parse_args()

    lines = arguments.metrics.read_text().splitlines()
    draw([json.loads(line) for line in lines], arguments.title, arguments.out)
    if arguments.write:
        kept = lines[:: arguments.thin]
        if kept[-1] != lines[-1]:
            kept.append(lines[-1])
        arguments.write.write_text("\n".join(kept) + "\n")


def draw(records: list[dict[str, Any]], title: str, out: Path) -> None:
    """Two panels: the reward by episode and by minute."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    mean = [record["running_mean"] for record in records]
    per_update = [sum(record["rewards"]) / len(record["rewards"]) for record in records]
    for axis, key, scale, label in (
        (axes[0], "episodes", 1.0, "episodes"),
        (axes[1], "wall_seconds", 60.0, "minutes"),
    ):
        x = [record[key] / scale for record in records]
        axis.plot(x, per_update, ".", color=FAINT, markersize=2, label="mean of one update")
        axis.plot(x, mean, color=LINE, linewidth=2, label="running mean")
        axis.axhline(0.0, color="black", linewidth=0.8)
        axis.set_xlabel(label)
        axis.set_xlim(0, x[-1])
        axis.grid(color=GRID, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("reward: points won minus points lost")
    axes[0].set_ylim(-21.5, 21.5)
    axes[0].set_yticks(range(-20, 21, 5))
    axes[1].legend(loc="lower right", frameon=False)
    figure.suptitle(title)
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main()

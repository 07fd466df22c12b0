"""Draw the figures of README and docs from committed files, for light pages and dark ones.

    make figures        python -m benchmarks.figures

Reads metrics/*.csv and benchmarks/results/*.json; writes docs/assets/NAME-light.svg and -dark.svg.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results_file import RESULTS, ROOT

ASSETS = ROOT / "docs" / "assets"
INK = {"light": "#24292f", "dark": "#e6edf3"}
BLUE, ORANGE, GREEN = "#3b82f6", "#f59e0b", "#10b981"
PHASES = {"warmup": ORANGE, "flat": GREEN, "decay": BLUE}


def draw_loss(axes: Axes) -> None:
    """Draw the loss of the committed training over its phases, the best checkpoint marked."""
    history = pd.read_csv(ROOT / "metrics" / "history.csv")
    start = 0
    for phase, rows in history.groupby("phase", sort=False):
        end = rows["step"].max()
        axes.axvspan(start, end, color=PHASES[str(phase)], alpha=0.12, label=str(phase))
        start = end
    axes.plot(history["step"], history["train_loss"], color=ORANGE, label="training loss")
    axes.plot(history["step"], history["validation_loss"], color=BLUE, label="validation loss")
    best = history[history["best"] == 1].iloc[0]
    axes.plot(best["step"], best["validation_loss"], "o", color=BLUE)
    axes.annotate("best", (best["step"], best["validation_loss"]), ha="right", va="bottom")
    axes.set(yscale="log", xlabel="step", ylabel="loss of an answer token")
    axes.legend(frameon=False, ncols=2)


def draw_grpo(axes: Axes) -> None:
    """Draw wrong validation answers over seconds: GRPO and supervised steps from one start."""
    for seed, row in json.loads((RESULTS / "grpo.json").read_text())["seeds"].items():
        for name, color in (("grpo", BLUE), ("supervised", ORANGE)):
            curve = pd.DataFrame(row[name]["curve"])
            seconds = curve["step"] / row[name]["steps"] * row[name]["seconds"]
            label = f"{'GRPO' if name == 'grpo' else name} steps" if seed == "1" else None
            wrong = 100 * (1 - curve["exact_match"])
            axes.plot(seconds, wrong, color=color, alpha=0.8, label=label)
    axes.set(xlabel="seconds after the start", ylabel="wrong validation answers, %")
    axes.set_yscale("symlog", linthresh=0.02)
    axes.set_ylim(0)
    axes.legend(frameon=False)


FIGURES: dict[str, Callable[[Axes], None]] = {"loss": draw_loss, "grpo": draw_grpo}


def draw(name: str, theme: str) -> Path:
    """Write one figure for one theme; the same bytes every time."""
    ink = INK[theme]
    settings: dict[Any, Any] = {
        "svg.hashsalt": name,
        "svg.fonttype": "none",  # text stays text: small files
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
    path = ASSETS / f"{name}-{theme}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(settings):
        figure = Figure(figsize=(7, 3.4))
        FIGURES[name](figure.subplots())
        figure.savefig(path, transparent=True, metadata={"Date": None})
    return path


def main() -> None:
    """Draw all figures."""
    for name in FIGURES:
        for theme in INK:
            print(draw(name, theme).relative_to(ROOT))


if __name__ == "__main__":
    main()

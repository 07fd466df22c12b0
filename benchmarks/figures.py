"""Draw the figures of README and docs, for light pages and dark ones.

    make figures        python -m benchmarks.figures

Reads metrics/*.csv, benchmarks/results/*.json and the registered versions of the MLflow store;
writes docs/assets/NAME-light.svg and -dark.svg. Without versions their figure stays as it is.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arithmetic.errors import cli_errors
from benchmarks.results_file import RESULTS, ROOT
from registry import MODEL_NAME
from registry.client import open_client, registry_errors

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


def draw_margin(axes: Axes) -> None:
    """Draw the minimum margin by the longest chain of carries or borrows."""
    rows = pd.read_csv(ROOT / "metrics" / "margin_by_carry_chain.csv")
    rows["operation"] = rows["operation"].map({"+": "a + b", "-": "a − b"})
    table = rows.pivot(index="carry_chain", columns="operation", values="minimum_margin")
    table.plot.bar(ax=axes, color=[BLUE, ORANGE], width=0.8, rot=0)
    for bars in axes.containers:
        axes.bar_label(bars, fmt="{:.4g}")  # type: ignore[arg-type]
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    axes.set(xlabel="consecutive places with a carry", ylabel="minimum logit margin")


def draw_versions(axes: Axes) -> None:
    """Draw the errors and the exact match of the registered versions."""
    versions = read_versions()
    bars = axes.bar(versions["name"], versions["errors"], 0.5, color=BLUE)
    labels = [f"{row.errors:,}\n{row.exact_match:.4%}" for row in versions.itertuples()]
    axes.bar_label(bars, labels)
    axes.set_yscale("symlog", linthresh=1)
    axes.set(ylabel="wrong answers, and exact match", ylim=(0, 30 * versions["errors"].max() + 1))


@registry_errors()
def read_versions() -> pd.DataFrame:
    """Return name, errors and exact match of each registered version, the oldest first."""
    client = open_client()
    versions = client.search_model_versions(f"name = '{MODEL_NAME}'")
    rows = []
    for version in sorted(versions, key=lambda version: int(version.version)):
        errors, equations = (int(version.tags[key]) for key in ("errors", "equations"))
        name = f"{version.version}\n{client.get_run(str(version.run_id)).info.run_name}"
        rows.append({"name": name, "errors": errors, "exact_match": 1 - errors / equations})
    return pd.DataFrame(rows)


FIGURES: dict[str, Callable[[Axes], None]] = {
    "loss": draw_loss,
    "grpo": draw_grpo,
    "margin": draw_margin,
    "versions": draw_versions,
}


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
    with cli_errors():
        for name in FIGURES:
            if name == "versions" and read_versions().empty:
                continue
            for theme in INK:
                print(draw(name, theme).relative_to(ROOT))


if __name__ == "__main__":
    main()

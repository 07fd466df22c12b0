"""The pictures of a run: how it learned, and what it gets right. Drawn without a display."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

_PHASE_COLOURS = ("#fde9d0", "#e3f1e0", "#dfe9f5", "#f0e4f2")


def loss_curve(history: pd.DataFrame) -> Figure:
    """Losses over steps, the learning-rate phases as bands, the best checkpoint as a line.

    Args:
        history: columns step, phase, learning_rate, train_loss, validation_loss, best.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    start = 0
    phases = history.groupby((history["phase"] != history["phase"].shift()).cumsum(), sort=True)
    for index, (_, rows) in enumerate(phases):
        end = int(rows["step"].iloc[-1])
        colour = _PHASE_COLOURS[index % len(_PHASE_COLOURS)]
        axes.axvspan(start, end, color=colour, label=str(rows["phase"].iloc[0]), zorder=0)
        start = end
    axes.plot(history["step"], history["train_loss"], color="#7f7f7f", label="train loss")
    axes.plot(history["step"], history["validation_loss"], color="#1f77b4", label="validation loss")
    best = history[history["best"].astype(str).str.lower().isin(("1", "1.0", "true"))]
    for _, row in best.tail(1).iterrows():
        axes.axvline(row["step"], color="#d62728", linestyle="--", label="best checkpoint")
        axes.plot(row["step"], row["validation_loss"], "o", color="#d62728")
    if history[["train_loss", "validation_loss"]].min(axis=None) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss of an answer token")
    rate = axes.twinx()
    rate.plot(history["step"], history["learning_rate"], color="#2ca02c", linewidth=0.8)
    rate.set_ylabel("learning rate", color="#2ca02c")
    rate.set_ylim(bottom=0)
    axes.legend(loc="upper right", fontsize="small")
    axes.set_title("Loss over the learning-rate phases")
    return figure


def exact_match_by_length(table: pd.DataFrame) -> Figure:
    """Exact match over the answer's digits, bars side by side for what was asked.

    Args:
        table: columns answer_length, exact_match, errors, equations, equations_of (domain, test).
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    groups = list(dict.fromkeys(table["equations_of"]))
    width = 0.8 / max(len(groups), 1)
    for index, group in enumerate(groups):
        rows = table[table["equations_of"] == group]
        places = rows["answer_length"] + (index - (len(groups) - 1) / 2) * width
        bars = axes.bar(places, rows["exact_match"], width, label=group)
        counts = zip(rows["errors"], rows["equations"], strict=True)
        labels = [f"{errors:,} wrong\nof {equations:,}" for errors, equations in counts]
        axes.bar_label(bars, labels, fontsize="x-small")
    axes.set_xticks(sorted(set(table["answer_length"])))
    axes.set_xlabel("digits of the answer")
    axes.set_ylabel("exact match")
    axes.set_ylim(0, 1.15)
    axes.legend(loc="lower right")
    axes.set_title("Exact match by answer length")
    return figure


def draw(metrics: Path, into: Path) -> None:
    """Write both pictures as PNGs to `into`, from the CSVs in `metrics`."""
    into.mkdir(parents=True, exist_ok=True)
    loss_curve(pd.read_csv(metrics / "history.csv")).savefig(into / "loss_curve.png", dpi=110)
    table = metrics / "exact_match_by_length.csv"
    if table.is_file():
        exact_match_by_length(pd.read_csv(table)).savefig(
            into / "exact_match_by_length.png", dpi=110
        )

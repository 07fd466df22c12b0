"""Write the tables of README.md and docs/ from the committed results.

    make tables       python -m benchmarks.tables

Each table lies between `<!-- table: NAME -->` and `<!-- end -->`. CI checks that nothing changes.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import RESULTS, ROOT
from benchmarks.serving import SERVERS
from scripts.reference import Rows, render


def read(path: str | Path) -> dict[str, Any]:
    """Read a JSON file of the repository."""
    content: dict[str, Any] = json.loads((ROOT / path).read_text("utf-8"))
    return content


def headline() -> Rows:
    """Return the rows of the README."""
    evaluation, training = read("metrics/evaluation.json"), read("metrics/training.json")
    seeds = read(RESULTS / "seeds.json")["seeds"]
    exact = sum(row["errors"] == 0 for row in seeds)
    four = read("docs/certificates/four-operations.json")
    return [
        ("", "measured", "by"),
        (
            "wrong answers over **all** equations a+b and a−b, 0-999",
            f"**{evaluation['errors']:,} of {evaluation['equations']:,}**",
            "`dvc repro`",
        ),
        ("minimum logit margin of the correct token", f"{evaluation['minimum_margin']}", "same"),
        ("parameters", f"{training['parameters']:,}", "same"),
        ("fresh seeds that are exact", f"{exact} of {len(seeds)}", "`make seeds`"),
        (
            "wrong answers with + − × ÷",
            f"{four['errors']:,} of {four['equations']:,}",
            "`make experiment NAME=four-operations`",
        ),
    ]


def seeds() -> Rows:
    """Return a row for each seed."""
    header = ("seed", "errors", "of", "minimum margin", "training, s on one core")
    rows = sorted(read(RESULTS / "seeds.json")["seeds"], key=lambda row: row["seed"])
    return [header] + [
        (
            str(row["seed"]),
            f"{row['errors']:,}",
            f"{row['equations']:,}",
            f"{row['minimum_margin']}",
            f"{row['seconds']['train']:.0f}",
        )
        for row in rows
    ]


def exactness() -> Rows:
    """Return a row for each proof that the answers are exact."""
    evaluation, seeds = read("metrics/evaluation.json"), read(RESULTS / "seeds.json")["seeds"]
    decoded = read(RESULTS / "certify-full.json")
    four = read("docs/certificates/four-operations.json")
    rows = [
        ("certified, params.yaml", "`dvc repro`", "metrics/evaluation.json", [evaluation]),
        ("decoded", "`make certify-full`", "benchmarks/results/certify-full.json", [decoded]),
        (f"{len(seeds)} fresh seeds", "`make seeds`", "benchmarks/results/seeds.json", seeds),
        (
            "certified, + − × ÷",
            "`make experiment NAME=four-operations`",
            "docs/certificates/four-operations.json",
            [four],
        ),
    ]
    header = ("what", "wrong answers", "of", "minimum margin", "command", "file")
    return [header] + [
        (
            what,
            f"{sum(part['errors'] for part in parts):,}",
            f"{sum(part['equations'] for part in parts):,}",
            str(min(part.get("minimum_margin", "–") for part in parts)),
            command,
            f"`{file}`",
        )
        for what, command, file, parts in rows
    ]


def grpo() -> Rows:
    """Return a row for each seed: errors at the start, after GRPO, after supervised steps."""
    header = ["seed", "errors at the start", "after GRPO", "new", "s"]
    rows: list[Sequence[str]] = [[*header, "after supervised steps", "new", "s"]]
    for seed, row in read(RESULTS / "grpo.json")["seeds"].items():
        parts = [f"{row['start']['errors']:,} of {row['equations']:,}"]
        for name in ("grpo", "supervised"):
            parts += [f"{row[name][key]:,}" for key in ("errors", "new_errors")]
            parts.append(f"{row[name]['seconds']:.0f}")
        rows.append((seed, *parts))
    return rows


def grpo_chains() -> Rows:
    """Return wrong answers by the longest run of carries or borrows, over all seeds."""
    rows: list[Sequence[str]] = [("longest chain", "at the start", "after GRPO", "supervised")]
    seeds = read(RESULTS / "grpo.json")["seeds"].values()
    for length in range(len(next(iter(seeds))["errors_by_chain"]["start"])):
        sums = [
            sum(row["errors_by_chain"][name][length] for row in seeds)
            for name in ("start", "grpo", "supervised")
        ]
        rows.append((str(length), *(f"{count:,}" for count in sums)))
    return rows


def serving() -> Rows:
    """Return a row for each server, the fastest first."""
    times = ("requests/s, 64 connections", "of the constant answer's", "p50, one client")
    servers = read(RESULTS / "serving.json")["servers"]
    ordered = sorted(servers, key=lambda name: -servers[name]["per_second_64"])
    return [("server", *times, "failures")] + [
        (
            SERVERS[name].title,
            f"{servers[name]['per_second_64']:,.0f}",
            f"{servers[name]['throughput_of_constant']:.2f}",
            f"{servers[name]['p50_ms_1']:.2f} ms",
            f"{servers[name]['failures']:,}",
        )
        for name in ordered
    ]


def serving_profile() -> Rows:
    """Return the packages with at least 2 % of the samples."""
    shares = read(RESULTS / "serving-profile.json")["packages"]
    rows = [(f"`{name}`", f"{share:.0%}") for name, share in shares.items() if share >= 0.02]
    return [("package", "share of the core"), *rows]


def faults() -> Rows:
    """Return a row for each trial: what happened, and how many requests failed."""
    trials = read(RESULTS / "faults.json")["trials"]
    rows: list[Sequence[str]] = [("trial", "figures", "failures")]
    for name, row in trials.items():
        figures = ", ".join(
            f"{key.replace('_', ' ')} {value:,}"
            for key, value in row.items()
            if key != "failures" and not isinstance(value, list)
        )
        rows.append((name.replace("_", " "), figures, f"{row['failures']:,}"))
    return rows


def replicas() -> Rows:
    """Return a row for each arrangement of processes, with the shares of the CPU time."""
    parts = ("services", "nginx", "wrk")
    header = ("processes", "requests/s", "p99", *(f"CPU time of {part}" for part in parts))
    return [header] + [
        (
            row["processes"],
            f"{row['per_second']:,.0f}",
            f"{row['p99_ms']:.0f} ms",
            *(f"{row[f'{part}_share']:.0%}" for part in parts),
        )
        for row in read(RESULTS / "replicas.json")["arrangements"]
    ]


def ray() -> Rows:
    """Return a row for each number of workers of joblib's and of Ray's."""
    return [("workers", "", "s", "efficiency")] + [
        (row["backend"], f"{row['workers']}", f"{row['seconds']:.0f}", f"{row['efficiency']:.2f}")
        for row in read(RESULTS / "ray.json")["rows"]
    ]


def restarts() -> Rows:
    """Return a row for each part of the team's stack that was restarted."""
    keys = ("requests", "failed", "refused", "registered", "registrations_failed")
    header = ("restarted", "s", *(key.replace("_", " ") for key in keys), "runs and versions lost")
    return [header] + [
        (
            row["restarted"],
            f"{row['seconds']:.0f}",
            *(f"{row[key]:,}" for key in keys),
            f"{row['lost_runs'] + row['lost_versions']}",
        )
        for row in read(RESULTS / "restarts.json")["restarts"]
    ]


TABLES = {
    "exactness": exactness,
    "headline": headline,
    "seeds": seeds,
    "grpo": grpo,
    "grpo-chains": grpo_chains,
    "serving": serving,
    "serving-profile": serving_profile,
    "faults": faults,
    "replicas": replicas,
    "ray": ray,
    "restarts": restarts,
}
BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def update(text: str) -> str:
    """Return a document with its tables written anew; raise UserError on an unknown name."""

    def replace(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            known = ", ".join(TABLES)
            raise UserError(f"there is no table {match[2]!r}", f"choose from {known}")
        return match[1] + render(TABLES[match[2]]()) + match[4]

    return BLOCK.sub(replace, text)


def main() -> None:
    """Write the tables of all documents."""
    with cli_errors():
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
            text = path.read_text("utf-8")
            if (new := update(text)) != text:
                path.write_text(new, "utf-8")
                print(f"{path.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()

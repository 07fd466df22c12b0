"""Write the tables of README.md and docs/ from the committed results.

    make tables       python -m benchmarks.tables

Each table lies between `<!-- table: NAME -->` and `<!-- end -->`. CI checks that nothing changes.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT
from benchmarks.serving import SERVERS
from scripts.reference import render

BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
EVALUATION = "metrics/evaluation.json"
FOUR_OPERATIONS = "docs/certificates/four-operations.json"

Values = Iterable[Mapping[str, Any]]


class Table(NamedTuple):
    """Describe a table: its header, the format of a row, and the values that fill it."""

    header: str
    row: str
    values: Callable[[], Values]

    def __str__(self) -> str:
        lines = [self.header, *map(self.row.format_map, self.values())]
        return render([line.split(" | ") for line in lines])


def read(path: str) -> dict[str, Any]:
    """Read a JSON file of the repository, or the result of a benchmark by its name."""
    name = path if path.endswith(".json") else f"benchmarks/results/{path}.json"
    content: dict[str, Any] = json.loads((ROOT / name).read_text("utf-8"))
    return content


def headline() -> Values:
    """Return the rows of the README."""
    wrong, seeds = "{errors:,} of {equations:,}", read("seeds")
    experiment = "`make experiment NAME=four-operations`"
    rows = {
        "wrong answers over **all** equations a+b and a−b, 0-999": (f"**{wrong}**", "`dvc repro`"),
        "minimum logit margin of the correct token": ("{minimum_margin}", "same"),
        "parameters": (f"{read('metrics/training.json')['parameters']:,}", "same"),
        "fresh seeds that are exact": ("{exact} of {seeds}", "`make seeds`"),
        "wrong answers with + − × ÷": (wrong.format_map(read(FOUR_OPERATIONS)), experiment),
    }
    figures = read(EVALUATION) | {"exact": seeds["exact"], "seeds": len(seeds["seeds"])}
    for what, (text, command) in rows.items():
        yield {"what": what, "measured": text.format_map(figures), "by": command}


def exactness() -> Values:
    """Return a row for each proof that the answers are exact."""
    seeds = read("seeds")["seeds"]
    sums = {key: sum(row[key] for row in seeds) for key in ("errors", "equations")}
    margin = min(row["minimum_margin"] for row in seeds)
    decoded, ten_seeds = (f"benchmarks/results/{name}.json" for name in ("certify-full", "seeds"))
    proofs: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("certified, params.yaml", "dvc repro", EVALUATION, {}),
        ("decoded", "make certify-full", decoded, {"minimum_margin": "–"}),
        (f"{len(seeds)} fresh seeds", "make seeds", ten_seeds, {**sums, "minimum_margin": margin}),
        ("certified, + − × ÷", "make experiment NAME=four-operations", FOUR_OPERATIONS, {}),
    )
    for what, command, file, figures in proofs:
        yield read(file) | {"what": what, "command": command, "file": file} | figures


def grpo_chains() -> Values:
    """Return wrong answers by the longest run of carries or borrows, over all seeds."""
    by_chain = [row["errors_by_chain"] for row in read("grpo")["seeds"].values()]
    first = by_chain[0]
    return [
        {"length": length, **{name: sum(row[name][length] for row in by_chain) for name in first}}
        for length in range(len(first["start"]))
    ]


def serving() -> Values:
    """Return a row for each server, the fastest first."""
    servers = read("serving")["servers"]
    rows = [{"title": SERVERS[name].title, **row} for name, row in servers.items()]
    return sorted(rows, key=lambda row: -row["per_second_64"])


def faults() -> Values:
    """Return a row for each trial: what happened, and how many requests failed."""
    for name, row in read("faults")["trials"].items():
        figures = [f"{key} {value:,}" for key, value in row.items() if key != "failures"]
        text = f"{name} | {', '.join(figures)}".replace("_", " ")
        yield {"text": text, "failures": row["failures"]}


TABLES = {
    "headline": Table(" | measured | by", "{what} | {measured} | {by}", headline),
    "exactness": Table(
        "what | wrong answers | of | minimum margin | command | file",
        "{what} | {errors:,} | {equations:,} | {minimum_margin} | `{command}` | `{file}`",
        exactness,
    ),
    "seeds": Table(
        "seed | errors | of | minimum margin | training, s on one core",
        "{seed} | {errors:,} | {equations:,} | {minimum_margin} | {seconds[train]:.0f}",
        lambda: read("seeds")["seeds"],
    ),
    "grpo": Table(
        "seed | errors at the start | after GRPO | new | s | after supervised steps | new | s",
        "{seed} | {start[errors]:,} of {equations:,}"
        " | {grpo[errors]:,} | {grpo[new_errors]:,} | {grpo[seconds]:.0f}"
        " | {supervised[errors]:,} | {supervised[new_errors]:,} | {supervised[seconds]:.0f}",
        lambda: [{"seed": seed, **row} for seed, row in read("grpo")["seeds"].items()],
    ),
    "grpo-chains": Table(
        "longest chain | at the start | after GRPO | supervised",
        "{length} | {start:,} | {grpo:,} | {supervised:,}",
        grpo_chains,
    ),
    "serving": Table(
        "server | requests/s, 64 connections | of the constant answer's | p50, one client"
        " | failures",
        "{title} | {per_second_64:,.0f} | {throughput_of_constant:.2f} | {p50_ms_1:.2f} ms"
        " | {failures:,}",
        serving,
    ),
    "serving-profile": Table(
        "package | share of the core",
        "`{package}` | {share:.0%}",
        lambda: [
            {"package": package, "share": share}
            for package, share in read("serving-profile")["packages"].items()
            if share >= 0.02
        ],
    ),
    "faults": Table("trial | figures | failures", "{text} | {failures:,}", faults),
    "replicas": Table(
        "processes | requests/s | p99 | CPU time of services | CPU time of nginx | CPU time of wrk",
        "{processes} | {per_second:,.0f} | {p99_ms:.0f} ms | {services_share:.0%}"
        " | {nginx_share:.0%} | {wrk_share:.0%}",
        lambda: read("replicas")["arrangements"],
    ),
    "ray": Table(
        "workers |  | s | efficiency",
        "{backend} | {workers} | {seconds:.0f} | {efficiency:.2f}",
        lambda: read("ray")["rows"],
    ),
    "restarts": Table(
        "restarted | s | requests | failed | refused | registered | registrations failed"
        " | runs and versions lost",
        "{restarted} | {seconds:.0f} | {requests:,} | {failed:,} | {refused:,} | {registered:,}"
        " | {registrations_failed:,} | {lost}",
        lambda: [
            {**row, "lost": row["lost_runs"] + row["lost_versions"]}
            for row in read("restarts")["restarts"]
        ],
    ),
}


def update(text: str) -> str:
    """Return a document with its tables written anew; raise UserError on an unknown name."""

    def replace(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            known = ", ".join(TABLES)
            raise UserError(f"there is no table {match[2]!r}", f"choose from {known}")
        return match[1] + str(TABLES[match[2]]) + match[4]

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

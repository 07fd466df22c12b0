"""Write the tables of README.md and docs/ from the committed results.

    make tables       python -m benchmarks.tables

Each table lies between `<!-- table: NAME -->` and `<!-- end -->`. CI checks that nothing changes.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from arithmetic.errors import UserError, cli_errors
from benchmarks.results_file import ROOT
from benchmarks.serving import SERVERS
from scripts.reference import Rows, render

BLOCK = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def read(path: str) -> dict[str, Any]:
    """Read a JSON file of the repository, or the result of a benchmark by its name."""
    name = path if path.endswith(".json") else f"benchmarks/results/{path}.json"
    content: dict[str, Any] = json.loads((ROOT / name).read_text("utf-8"))
    return content


def fill(header: str, row: str, values: Iterable[Mapping[str, Any]]) -> Rows:
    """Return a header and a row for each of the values, which fill its format."""
    return [header.split(" | "), *(row.format_map(value).split(" | ") for value in values)]


def headline() -> Rows:
    """Return the rows of the README."""
    evaluation = read("metrics/evaluation.json")
    seeds = read("seeds")["seeds"]
    four = read("docs/certificates/four-operations.json")
    exact = sum(row["errors"] == 0 for row in seeds)
    return [
        ("", "measured", "by"),
        (
            "wrong answers over **all** equations a+b and a−b, 0-999",
            "**{errors:,} of {equations:,}**".format_map(evaluation),
            "`dvc repro`",
        ),
        ("minimum logit margin of the correct token", str(evaluation["minimum_margin"]), "same"),
        ("parameters", f"{read('metrics/training.json')['parameters']:,}", "same"),
        ("fresh seeds that are exact", f"{exact} of {len(seeds)}", "`make seeds`"),
        (
            "wrong answers with + − × ÷",
            "{errors:,} of {equations:,}".format_map(four),
            "`make experiment NAME=four-operations`",
        ),
    ]


def seeds() -> Rows:
    """Return a row for each seed."""
    return fill(
        "seed | errors | of | minimum margin | training, s on one core",
        "{seed} | {errors:,} | {equations:,} | {minimum_margin} | {seconds[train]:.0f}",
        read("seeds")["seeds"],
    )


def exactness() -> Rows:
    """Return a row for each proof that the answers are exact."""
    seeds = read("seeds")["seeds"]
    all_seeds = {key: sum(row[key] for row in seeds) for key in ("errors", "equations")}
    all_seeds["minimum_margin"] = min(row["minimum_margin"] for row in seeds)
    evaluation, certificate = "metrics/evaluation.json", "docs/certificates/four-operations.json"
    decoded, ten_seeds = (f"benchmarks/results/{name}.json" for name in ("certify-full", "seeds"))
    experiment = "make experiment NAME=four-operations"
    proofs = [
        ("certified, params.yaml", read(evaluation), "dvc repro", evaluation),
        ("decoded", read(decoded) | {"minimum_margin": "–"}, "make certify-full", decoded),
        (f"{len(seeds)} fresh seeds", all_seeds, "make seeds", ten_seeds),
        ("certified, + − × ÷", read(certificate), experiment, certificate),
    ]
    return fill(
        "what | wrong answers | of | minimum margin | command | file",
        "{what} | {errors:,} | {equations:,} | {minimum_margin} | `{command}` | `{file}`",
        [
            {"what": what, **figures, "command": command, "file": file}
            for what, figures, command, file in proofs
        ],
    )


def grpo() -> Rows:
    """Return a row for each seed: errors at the start, after GRPO, after supervised steps."""
    return fill(
        "seed | errors at the start | after GRPO | new | s | after supervised steps | new | s",
        "{seed} | {start[errors]:,} of {equations:,}"
        " | {grpo[errors]:,} | {grpo[new_errors]:,} | {grpo[seconds]:.0f}"
        " | {supervised[errors]:,} | {supervised[new_errors]:,} | {supervised[seconds]:.0f}",
        [{"seed": seed, **row} for seed, row in read("grpo")["seeds"].items()],
    )


def grpo_chains() -> Rows:
    """Return wrong answers by the longest run of carries or borrows, over all seeds."""
    by_chain = [row["errors_by_chain"] for row in read("grpo")["seeds"].values()]
    sums = {
        name: [sum(counts) for counts in zip(*(row[name] for row in by_chain), strict=True)]
        for name in by_chain[0]
    }
    return fill(
        "longest chain | at the start | after GRPO | supervised",
        "{length} | {start:,} | {grpo:,} | {supervised:,}",
        [
            {"length": length, **{name: counts[length] for name, counts in sums.items()}}
            for length in range(len(sums["start"]))
        ],
    )


def serving() -> Rows:
    """Return a row for each server, the fastest first."""
    servers = read("serving")["servers"]
    return fill(
        "server | requests/s, 64 connections | of the constant answer's | p50, one client"
        " | failures",
        "{title} | {per_second_64:,.0f} | {throughput_of_constant:.2f} | {p50_ms_1:.2f} ms"
        " | {failures:,}",
        [
            {"title": SERVERS[name].title, **servers[name]}
            for name in sorted(servers, key=lambda name: -servers[name]["per_second_64"])
        ],
    )


def serving_profile() -> Rows:
    """Return the packages with at least 2 % of the samples."""
    shares = read("serving-profile")["packages"].items()
    values = [{"package": name, "share": share} for name, share in shares if share >= 0.02]
    return fill("package | share of the core", "`{package}` | {share:.0%}", values)


def faults() -> Rows:
    """Return a row for each trial: what happened, and how many requests failed."""
    values = []
    for name, row in read("faults")["trials"].items():
        figures = [
            f"{key} {value:,}"
            for key, value in row.items()
            if key != "failures" and not isinstance(value, list)
        ]
        text = f"{name} | {', '.join(figures)}".replace("_", " ")
        values.append({"text": text, "failures": row["failures"]})
    return fill("trial | figures | failures", "{text} | {failures:,}", values)


def replicas() -> Rows:
    """Return a row for each arrangement of processes, with the shares of the CPU time."""
    return fill(
        "processes | requests/s | p99 | CPU time of services | CPU time of nginx | CPU time of wrk",
        "{processes} | {per_second:,.0f} | {p99_ms:.0f} ms | {services_share:.0%}"
        " | {nginx_share:.0%} | {wrk_share:.0%}",
        read("replicas")["arrangements"],
    )


def ray() -> Rows:
    """Return a row for each number of workers of joblib's and of Ray's."""
    return fill(
        "workers |  | s | efficiency",
        "{backend} | {workers} | {seconds:.0f} | {efficiency:.2f}",
        read("ray")["rows"],
    )


def restarts() -> Rows:
    """Return a row for each part of the team's stack that was restarted."""
    rows = read("restarts")["restarts"]
    return fill(
        "restarted | s | requests | failed | refused | registered | registrations failed"
        " | runs and versions lost",
        "{restarted} | {seconds:.0f} | {requests:,} | {failed:,} | {refused:,} | {registered:,}"
        " | {registrations_failed:,} | {lost}",
        [{**row, "lost": row["lost_runs"] + row["lost_versions"]} for row in rows],
    )


TABLES = {
    table.__name__.replace("_", "-"): table
    for table in (
        *(exactness, headline, seeds, grpo, grpo_chains, serving, serving_profile, faults),
        *(replicas, ray, restarts),
    )
}


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

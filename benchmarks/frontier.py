"""make frontier: the smallest models that are exact, by parameters.

Each line is the default recipe with another shape, one seed, certified on the whole domain. The
neighbour is the AdderBoard challenge (smallest Transformers for ten-digit addition), whose models
start at 36 parameters, many with weights set by hand; these are trained, and subtract as well.
"""

import tempfile
from pathlib import Path

import yaml

from arithmetic.errors import reported
from benchmarks.results_file import write
from benchmarks.seeds import ROOT, one_seed

SEED = 101
# Changes of `model` in params.yaml, largest first.
SHAPES = (
    {"d_model": 16, "heads": 4, "attention": "content"},
    {"d_model": 16, "heads": 4},
    {"d_model": 12, "heads": 4},
    {"d_model": 12, "heads": 2},
    {"d_model": 8, "heads": 4},
    {"d_model": 8, "heads": 2},
    {"d_model": 8, "heads": 2, "mlp_ratio": 2},
)


def main() -> None:
    rows = []
    with reported(), tempfile.TemporaryDirectory() as scratch:
        print(f"{'params':>8} {'errors':>9} {'margin':>7} {'train s':>8}  shape")
        for shape in SHAPES:
            params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
            params["model"] |= shape
            path = Path(scratch) / "params.yaml"
            path.write_text(yaml.safe_dump(params), encoding="utf-8")
            row = one_seed(path, SEED)
            rows.append({"shape": params["model"], **row})
            print(
                f"{row['parameters']:8,d} {row['errors']:9,d} {row['smallest_margin']:7.2f} "
                f"{row['train_seconds']:8.1f}  {params['model']}",
                flush=True,
            )
        write("frontier", {"models": rows})


if __name__ == "__main__":
    main()

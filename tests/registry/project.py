"""Fabricate a small finished project: what `dvc repro` leaves, written in milliseconds."""

import json
from pathlib import Path
from typing import Any

from arithmetic import artifacts
from registry.dvc_lock import md5
from tests.serving.model_directories import make_model

PARAMS: dict[str, Any] = {
    "generate": {"seed": 1, "operations": ["+", "-"], "max_operand": 9},
    "model": {"d_model": 4, "attention": "dot_product"},
    "train": {"seed": 1, "adamw_learning_rate": 0.00001},
    "evaluate": {"seed": 1},
    "promote": {"max_errors": 0, "min_margin": 0.5},
}
# The outputs of each stage, and the params that it uses.
STAGES = {
    "generate": (["data/train.csv", "data/test.csv", "metrics/data_summary.csv"], ["generate"]),
    "train": (
        [f"model/{name}" for name in ("config.json", "model.safetensors", "input_profile.json")]
        + ["metrics/history.csv", "metrics/grpo.csv", "reports/training.json"],
        ["model", "train"],
    ),
    "export": (["model/decoders"], []),
    "evaluate": (["reports/evaluation.json"], ["evaluate"]),
}
TABLES = {
    "data/train.csv": "equation,answer\n1+1=,2\n7-9=,-2\n",
    "data/test.csv": "equation,answer\n3+4=,7\n",
    "metrics/data_summary.csv": "split,equations\ntrain,2\n",
    "metrics/history.csv": (
        "step,learning_rate,train_loss,validation_loss,validation_token_accuracy,"
        "validation_exact_match\n0,0.01,2.5,,,\n100,0.001,0.5,0.4,1.0,1.0\n"
    ),
    "metrics/grpo.csv": "step,operation,reward\n",
}
TRAINING = {"parameters": 123, "steps": 100, "stopped_early": False, "best_step": 100}


def make_project(root: Path, seed: int = 1, **report: Any) -> Path:
    """Write a project whose model is determined by `seed` and whose evaluation by `report`."""
    make_model(root / "model", max_operand=9, seed=seed)
    for path, text in TABLES.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
    (root / "reports").mkdir()
    write_json(root / "reports/training.json", TRAINING)
    write_json(root / "params.yaml", {**PARAMS, "train": {**PARAMS["train"], "seed": seed}})
    write_evaluation(root, **report)
    return root


def write_evaluation(root: Path, **changes: Any) -> None:
    """Write the evaluation's report, and the dvc.lock of the project as it is now."""
    counts = {"errors": 0, "equations": 200, "exact_match": 1.0, "minimum_margin": 4.5}
    report = {
        "model_digest": artifacts.digest(root / "model"),
        "domain": {"operations": ["+", "-"], "max_operand": 9},
        "complete": True,
        **counts,
        **dict.fromkeys(("hallucinations", "infinite_generation", "out_of_range"), 0),
        "by_operation": {"+": counts, "-": counts},
        **dict.fromkeys(("decoding_differs_from_pass", "graph_differs_from_decoding"), 0),
        "never_trained_on": {"errors": 0, "equations": 190, "exact_match": 1.0},
        "test": {"errors": 0, "equations": 1, "exact_match": 1.0},
        "first_failures": [],
    }
    write_json(root / "reports/evaluation.json", report | changes)
    params = json.loads((root / "params.yaml").read_text())
    stages: dict[str, Any] = {"register": {"cmd": "python -m stages.register"}}
    for name, (outs, used) in STAGES.items():
        deps = ["hard_cases.csv"] if (root / "hard_cases.csv").exists() else []
        stages[name] = {
            "deps": [{"path": path, "md5": md5(root / path)} for path in deps],
            "params": {"params.yaml": {key: params[key] for key in used}},
            "outs": [{"path": path, "md5": md5(root / path)} for path in outs],
        }
    write_json(root / "dvc.lock", {"schema": "2.0", "stages": stages})


def write_json(path: Path, content: Any) -> None:
    """Write JSON as the stages do; it is YAML, too."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that is in a file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))

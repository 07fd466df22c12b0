"""Imports point one way, and the lists that must agree with them do."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from arithmetic import config, model
from stages import params

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("arithmetic", "stages", "registry", "serving", "scripts")
MAY_IMPORT = {
    "arithmetic": set(),
    "stages": {"arithmetic"},
    "registry": {"arithmetic"},
    "serving": {"arithmetic", "registry"},
    "scripts": {"arithmetic", "registry", "scripts"},
}
# The service's environment has neither; see requirements/serving.lock.
TRAINING_ONLY = ("torch", "dvc", "mlflow", "pandas", "safetensors", "onnx")


def imports(path: Path) -> set[str]:
    """Every dotted module that a file imports, at the top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_one_way(room):
    for path in modules(room):
        seen = {name.split(".")[0] for name in imports(path)} & {*ROOMS, "benchmarks", "tests"}
        assert seen <= MAY_IMPORT[room] | {room}, path


def test_only_the_registry_knows_mlflow():
    for room in set(ROOMS) - {"registry"}:
        for path in modules(room):
            assert not any(name.split(".")[0] == "mlflow" for name in imports(path)), path


def test_the_service_loads_nothing_of_training():
    code = f"import sys, serving.__main__;print([m for m in {TRAINING_ONLY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def reachable(module: str) -> set[str]:
    """Files of this repository that a stage's module needs, params.yaml's reader left out."""
    todo, found = [ROOT / f"{module.replace('.', '/')}.py"], set()
    while todo:
        path = todo.pop()
        name = path.relative_to(ROOT).as_posix()
        if name in found or not path.is_file() or path.name == "params.py":
            continue
        found.add(name)
        todo += [ROOT / f"{imported.replace('.', '/')}.py" for imported in imports(path)]
    return found


# What no result depends on: exceptions with their texts, the noting of times.
NEUTRAL = {"arithmetic/errors.py", "stages/timing.py"}


@pytest.mark.parametrize("stage", ["generate", "train", "export", "evaluate"])
def test_dvc_yaml_lists_exactly_the_modules_that_a_stage_uses(stage):
    """A module left out would leave a stale result after an edit; one too many would retrain."""
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]
    listed = {dep for dep in definition["deps"] if dep.endswith(".py")}
    used = reachable(f"stages.{stage}") - NEUTRAL | {"stages/__init__.py"}
    assert listed == used


def test_the_second_configuration_has_the_same_dag():
    """four-operations/dvc.yaml is the root's, with the code one folder up."""
    second = (ROOT / "four-operations" / "dvc.yaml").read_text(encoding="utf-8")
    same = second.replace("PYTHONPATH=.. ", "").replace("- ../", "- ")
    first = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(same) == yaml.safe_load(first)


def test_the_kinds_of_attention_are_the_same_wherever_they_are_listed():
    """params.yaml takes what there is, and a bundle's config is refused for any other."""
    taken = get_args(params.Model.model_fields["attention"].annotation)
    assert set(taken) == set(config.ATTENTIONS) == set(model.ATTENTIONS)

"""Imports point one way, names are unique, and dvc.yaml lists what a stage's result depends on."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("arithmetic", "stages", "registry", "serving", "scripts", "benchmarks")
MAY_IMPORT = {
    "arithmetic": set(),
    "registry": {"arithmetic"},
    "stages": {"arithmetic", "registry"},
    "serving": {"arithmetic", "registry"},
    "scripts": {"arithmetic", "registry", "stages", "serving"},
    "benchmarks": {"arithmetic", "registry", "stages", "scripts", "serving"},
}
# Absent from the service's environment (see requirements/serving.lock), or slow to start with.
NOT_LOADED = {"torch", "dvc", "pandas", "safetensors", "onnx", "scipy", "ruamel.yaml", "stages"}
NOT_LOADED |= {"mlflow"}

# No result depends on these: params are dependencies by their values, errors only stop a stage.
NEUTRAL = frozenset(
    {"arithmetic/__init__.py", "arithmetic/errors.py", "stages/params.py", "stages/progress.py"}
)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return every dotted module that a file imports, at the top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def reachable(module: str, excluded: frozenset[str] = frozenset()) -> set[str]:
    """Return the files of this repository that a module needs, itself included."""
    pending, files = [module], set[str]()
    while pending:
        name = pending.pop().replace(".", "/")
        for path in (ROOT / f"{name}.py", ROOT / name / "__init__.py"):
            relative = path.relative_to(ROOT).as_posix()
            if path.is_file() and relative not in files | excluded:
                files.add(relative)
                pending += imports(path)
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_one_way(package):
    for path in modules(package):
        packages = {name.split(".")[0] for name in imports(path)} & {*PACKAGES, "tests"}
        assert packages <= MAY_IMPORT[package] | {package}, path


def test_the_service_needs_only_download_of_the_registry():
    names = {name for path in modules("serving") for name in imports(path)}
    used = {file for name in names for file in reachable(name) if file.startswith("registry/")}
    assert used <= reachable("registry.download")


def test_only_the_registry_and_the_scripts_import_mlflow():
    for package in ("arithmetic", "stages", "serving"):
        for path in modules(package):
            assert not any(name.split(".")[0] == "mlflow" for name in imports(path)), path


def test_the_service_starts_without_training_and_mlflow():
    code = f"import sys, serving.__main__; print({NOT_LOADED} & {{*sys.modules}})"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT) == b"set()\n"


def test_module_names_are_unique_and_not_of_the_standard_library():
    names = [path.stem for package in PACKAGES for path in modules(package)]
    named = [name for name in names if name not in ("__init__", "__main__")]
    assert [name for name, count in Counter(named).items() if count > 1] == []
    assert set(named) & sys.stdlib_module_names == set()


@pytest.mark.parametrize("stage", ["generate", "train", "export", "evaluate"])
def test_dvc_yaml_lists_exactly_the_modules_that_a_stage_uses(stage):
    # A module left out would leave a stale result after an edit; one too many would retrain.
    definition = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    listed = {dep for dep in definition["deps"] if dep.endswith(".py")}
    used = reachable(f"stages.{stage}", NEUTRAL) | {"stages/__init__.py"}
    assert listed == used

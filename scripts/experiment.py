"""Run the pipeline with the params of an experiment file, in a copy of the workspace.

    python -m scripts.experiment four-operations

Passes every key of experiments/NAME.yaml to `dvc exp run --temp --name NAME` and prints the result.
The same name replaces the earlier experiment. An existing docs/certificates/NAME.json is written
again from the experiment's reports/evaluation.json.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dvc.utils.flatten import flatten

from arithmetic.errors import UserError, cli_errors
from registry.commits import git, head
from registry.dvc_lock import read_yaml
from stages.params import validate_params

ROOT = Path(__file__).resolve().parents[1]


def overrides(content: dict[str, Any]) -> list[str]:
    """Return one `key=value` for each param; JSON is quoted as Hydra's grammar needs it."""
    flat = flatten(content)
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flat.items()]


def load_experiment(name: str, root: Path = ROOT) -> dict[str, Any]:
    """Return the params of an experiment file, checked together with params.yaml."""
    path = root / "experiments" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise UserError(f"there is no experiment {name!r}", f"choose from {known}")
    content = read_yaml(path)
    merged = read_yaml(root / "params.yaml")
    for section, values in content.items():
        base = merged.get(section)
        merged[section] = {**base, **values} if isinstance(base, dict) else values
    validate_params(merged, str(path.relative_to(root)))
    return content


def dvc(*arguments: str, **options: Any) -> int:
    """Run dvc in the repository with this environment's Python; return its exit status."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, **options).returncode


def find_experiment(name: str, baseline: str, root: Path = ROOT) -> str:
    """Return the commit of an experiment; by its ref, as a branch may have the same name.

    Raises:
        UserError: there is none of that name on the commit `baseline`.
    """
    commit = git(root, "rev-parse", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}")
    if commit is None:
        raise UserError(f"the experiment {name} of {baseline[:12]} is gone", "run it again")
    return commit.decode().strip()


def run(name: str) -> None:
    """Run the experiment, print its headline figures and write its certificate."""
    settings = [part for setting in overrides(load_experiment(name)) for part in ("-S", setting)]
    baseline = head(ROOT) or ""
    dvc("exp", "remove", "-q", name, stderr=subprocess.DEVNULL)
    if dvc("exp", "run", "--temp", "--name", name, *settings):
        raise UserError(f"the experiment {name} failed (see above)", "fix that and run it again")
    from dvc import api  # takes a second to import

    commit = find_experiment(name, baseline)

    def read(path: str) -> Any:
        return json.loads(api.read(path, repo=str(ROOT), rev=commit))

    metrics, training = read("metrics/evaluation.json"), read("metrics/training.json")
    print(
        f"{name}: {metrics['errors']:,} errors of {metrics['equations']:,}, minimum margin "
        f"{metrics['minimum_margin']}, {training['parameters']:,} parameters"
    )
    certificate = ROOT / "docs" / "certificates" / f"{name}.json"
    if certificate.exists():
        report = json.dumps(read("reports/evaluation.json"), indent=2, ensure_ascii=False)
        certificate.write_text(f"{report}\n", encoding="utf-8")
        print(f"certificate: {certificate.relative_to(ROOT)}")
    print(f"next: `dvc exp apply {name}`, or `make promote VERSION=…` with the version above")


def main() -> None:
    """Run one experiment file."""
    parser = argparse.ArgumentParser(prog="python -m scripts.experiment")
    parser.add_argument("name", help="a file of experiments/, without .yaml")
    with cli_errors():
        run(parser.parse_args().name)


if __name__ == "__main__":
    main()

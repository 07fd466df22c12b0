"""What a recording says of where it came from, and cannot be read off the pipeline's outputs later.

The commit, the seconds of each stage, what the data sets look like, the code that a version carries
and the packages it was made with: observed in the workspace while it is there, or read from what
`registry.owed` kept of it.
"""

import ast
import hashlib
import json
import os
import shutil
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
import pandas as pd

from arithmetic.config import load_config
from registry import inputs, workspace
from registry.inputs import Profile
from registry.workspace import Workspace

# What a version needs besides MLflow itself, pinned to what is installed here.
REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas")


@dataclass(frozen=True)
class Origin:
    """Where a recording came from.

    Attributes:
        run_name: the run's name in MLflow.
        git: `git_commit` and `git_dirty`, as `workspace.git_state` gives them.
        seconds: `seconds.train` and so on, of the stages that ran here.
        datasets: the fields of an MLflow Dataset, one for each data set.
        requirements: pinned packages.
        code: a folder with `pyfunc_model.py` and the modules of `arithmetic` that it needs.
        inputs: how the training questions were distributed; None if that is not known.
    """

    run_name: str
    git: dict[str, str]
    seconds: dict[str, float]
    datasets: list[dict[str, str]]
    requirements: list[str]
    code: Path
    inputs: Profile | None = None


def observe(found: Workspace, scratch: Path) -> Origin:
    """The origin of a workspace that is here; the code is copied to `scratch`."""
    return Origin(
        run_name=run_name(found),
        git=workspace.git_state(found.root),
        seconds=_seconds(found.root),
        datasets=_datasets(found),
        requirements=[f"{name}=={installed_version(name)}" for name in REQUIREMENTS],
        code=_serving_code(scratch),
        inputs=_inputs(found),
    )


def run_name(found: Workspace) -> str:
    """The name of the DVC experiment, or one made of the digest."""
    return os.environ.get("DVC_EXP_NAME") or f"repro-{found.run_digest[:8]}"


def dump(origin: Origin) -> str:
    """As JSON, without the place of the code."""
    content = {key: value for key, value in asdict(origin).items() if key != "code"}
    return json.dumps(content, indent=2)


def load(text: str, code: Path) -> Origin:
    """The opposite of `dump`; raises ValueError, TypeError on anything else."""
    return Origin(**json.loads(text), code=code)


def _seconds(root: Path) -> dict[str, float]:
    """Seconds of the stages that ran here, from `.times.json`, which is no output of DVC.

    A time counts only while the file that its stage wrote is still there: a stage that DVC
    restored from its cache has none.
    """
    try:
        times = json.loads((root / ".times.json").read_bytes())
        return {
            f"seconds.{stage}": float(entry["seconds"])
            for stage, entry in times.items()
            if (root / entry["file"]).is_file()
            and hashlib.sha256((root / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
        }
    except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
        return {}  # only times, and `stages.timing` starts a damaged file anew as well


def _inputs(found: Workspace) -> Profile | None:
    """The distribution of the training questions; None where the data are not here."""
    training = found.root / "data" / "train.csv"
    if not training.is_file():
        return None
    data = pd.read_csv(training)
    questions = {
        str(operation): (
            rows["operand_1"].to_numpy(np.int64),
            rows["operand_2"].to_numpy(np.int64),
        )
        for operation, rows in data.groupby("operation", sort=True)
    }
    return inputs.profile(questions, load_config(found.root / "bundle").grammar)


def _datasets(found: Workspace) -> list[dict[str, str]]:
    from mlflow.data.pandas_dataset import from_pandas

    fields = ("name", "digest", "source_type", "source", "schema", "profile")
    described = []
    for path, md5 in found.data.items():
        frame = pd.read_csv(found.root / path, dtype={"answer": str})
        with warnings.catch_warnings():  # MLflow's hints about integer columns
            warnings.simplefilter("ignore")
            dataset = from_pandas(frame, source=path, name=Path(path).stem, digest=md5)
            entity = dataset._to_mlflow_entity()
        described.append({field: getattr(entity, field) for field in fields})
    return described


def _serving_code(into: Path) -> Path:
    """`pyfunc_model.py`, and of the package `arithmetic` only the modules that answering needs."""
    import arithmetic

    shutil.copyfile(Path(__file__).with_name("pyfunc_model.py"), into / "pyfunc_model.py")
    package = Path(arithmetic.__file__).parent
    (into / "arithmetic").mkdir()
    wanted, copied = ["__init__", "engine"], set()
    while wanted:
        module = wanted.pop()
        if module in copied:
            continue
        copied.add(module)
        source = package / f"{module}.py"
        shutil.copyfile(source, into / "arithmetic" / source.name)
        wanted += [name for name in _imports(source) if (package / f"{name}.py").is_file()]
    return into


def _imports(source: Path) -> list[str]:
    """Names of the `arithmetic` modules that a file imports."""
    names = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "arithmetic":
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("arithmetic."):
            names.append(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names += [
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("arithmetic.")
            ]
    return names

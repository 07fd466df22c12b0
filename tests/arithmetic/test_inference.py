"""The ONNX model answers mixes of operations in order, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from arithmetic import artifacts
from arithmetic.errors import InvalidModelError
from arithmetic.grammar import Equation
from arithmetic.inference import OnnxModel

ROOT = Path(__file__).parents[2]
ANSWER_AND_LIST = """
import pathlib, sys
from arithmetic.grammar import Equation
from arithmetic.inference import OnnxModel
OnnxModel(pathlib.Path(sys.argv[1])).answer([Equation(1, "+", 2), Equation(7, "/", 2)])
links = [link for link in pathlib.Path("/proc/self/fd").iterdir() if link.is_symlink()]
print([path for path in map(str, map(pathlib.Path.readlink, links))
       if path.startswith("/") and "/dev/" not in path],
      {"torch", "pandas", "mlflow", "sqlite3"} & {*sys.modules})
"""


def test_mixed_operations_are_answered_in_order(all_operations):
    model = OnnxModel(all_operations)
    equations = [Equation(a, operation, b) for a in (1, 98) for operation in "/+*-" for b in (3, 7)]
    together = model.answer(equations)
    assert together == [model.answer([equation])[0] for equation in equations]
    assert len({answer.scratchpad for answer in together}) > 4
    assert model.answer([]) == []


@pytest.mark.parametrize("damage", [b"", b"not a graph", "truncated", "missing"])
def test_damaged_decoder_is_rejected(directory, damage):
    path = directory / artifacts.decoder_path("add_subtract")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:2000] if damage == "truncated" else damage)
    with pytest.raises(InvalidModelError, match=r"add_subtract\.onnx does not load") as error:
        OnnxModel(directory)
    assert "\n" not in error.value.message


def test_answering_writes_nothing_into_home_and_opens_no_database(all_operations, tmp_path):
    """The telemetry of onnxruntime would; it is off where CI is set, so CI is unset."""
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    command = [sys.executable, "-c", ANSWER_AND_LIST, str(all_operations)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stdout == b"[] set()\n"
    assert list(tmp_path.rglob("*")) == []

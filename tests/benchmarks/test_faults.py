import subprocess
import sys

import pytest

from benchmarks.results_file import ROOT
from benchmarks.serving_process import RAISING, let_raise
from tests.serving.model_directories import make_model

TRIALS = ("load", "overload", "swaps", "raising", "bad_inputs", "terminations")


@pytest.mark.slow
def test_short_trials_have_no_failures(tmp_path):
    model = make_model(tmp_path / "model")
    command = [sys.executable, "-m", "benchmarks.faults", "--short", "--only", *TRIALS]
    done = subprocess.run(
        [*command, "--model", str(model)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 failures") == len(TRIALS)


def test_the_changed_decoder_raises_on_one_equation_alone(tmp_path):
    from arithmetic.inference import LOAD_ERRORS, OnnxModel

    directory = make_model(tmp_path / "model")
    let_raise(directory)
    model = OnnxModel(directory)
    grammar = model.grammar
    others = [grammar.parse(text) for text in ("6+5=", "5-6=", "5+7=")]
    assert [answer.text for answer in model.answer(others)] == ["11", "-1", "12"]
    with pytest.raises(LOAD_ERRORS):
        model.answer([*others, RAISING])

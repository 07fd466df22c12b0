import subprocess
import sys

import pytest

from benchmarks.bad_inputs import damage_bodies
from benchmarks.results_file import ROOT
from benchmarks.serving_process import RAISING, let_raise
from tests.serving.model_directories import make_model

TRIALS = "load,overload,swaps,raising,bad_inputs,terminations"


@pytest.mark.slow
def test_short_trials_have_no_failures(tmp_path):
    model = make_model(tmp_path / "model")
    command = [sys.executable, "-m", "benchmarks.faults", "--short", "--only", TRIALS]
    done = subprocess.run(
        [*command, "--model", str(model)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 failures") == len(TRIALS.split(","))


def test_an_unknown_trial_is_an_error_with_the_choices():
    command = [sys.executable, "-m", "benchmarks.faults", "--only", "earthquake"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: there is no trial 'earthquake'" in done.stderr
    assert "hint: choose from load, " in done.stderr


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


def test_damaged_bodies_are_the_same_for_a_seed():
    first, again, other = (list(damage_bodies(50, seed)) for seed in (1, 1, 2))
    assert first == again != other

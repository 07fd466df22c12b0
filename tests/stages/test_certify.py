"""Certification: one pass, decoding and the ONNX decoder agree on every equation."""

import os
import shutil
import signal
from pathlib import Path

import joblib
import pandas as pd
import pytest

from arithmetic.artifacts import load_config
from arithmetic.errors import InvalidModelError, UserError
from arithmetic.inference import OnnxModel
from arithmetic.model import load_model
from stages.certify import (
    Columns,
    Equations,
    WorkerModel,
    compute_margins,
    decode,
    decode_by_beam,
    run_over_shards,
)
from stages.dataset import build_frame
from tests.random_models import write_model

OPERATIONS = ["+", "-"]


def list_equations(directory: Path, operation: str) -> pd.DataFrame:
    grammar = load_config(directory).get_grammar()
    return build_frame({operation: grammar.equations(operation)})


def certify_everything(directory: Path) -> list[bool]:
    """Return which equations are proven, after checking that pass, decoding and graph agree."""
    model, proven = WorkerModel(load_model(directory), OnnxModel(directory)), []
    for operation in model.onnx_model.grammar.operations:
        equations = Equations(operation, *model.onnx_model.grammar.equations(operation))
        decoded = decode(model, equations)
        assert not decoded["graph_differs"].any()
        is_proven = compute_margins(model, equations)["margin"] > 0
        assert (decoded["is_reference"] == is_proven).all()
        proven += is_proven.tolist()
    return proven


def test_pass_decoding_and_graph_agree_on_every_equation(trained):
    proven = certify_everything(trained / "model")
    assert any(proven)
    assert not all(proven)  # an exact model would make this test blind: train it less


@pytest.mark.parametrize("attention", ["dot_product", "positional"])
def test_formats_of_all_operations_are_certified_by_their_own_tables(tmp_path, attention):
    certify_everything(write_model(tmp_path / "model", "/*-+", 9, attention))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_beam_of_width_one_is_greedy_and_a_wide_one_changes_answers(trained, operation):
    model = WorkerModel(load_model(trained / "model"), OnnxModel(trained / "model"))
    equations = Equations(operation, *model.onnx_model.grammar.equations(operation))
    greedy = decode(model, equations)["predicted"]
    assert decode_by_beam(model, equations, 1)["predicted"] == greedy
    assert decode_by_beam(model, equations, 8)["predicted"] != greedy


def test_relative_directory_is_found_by_workers_of_an_earlier_run(trained, tmp_path, monkeypatch):
    """joblib's workers live on, in the working directory that they were started in."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copytree(trained / "model", tmp_path / name / "model")
        monkeypatch.chdir(tmp_path / name)
        equations = list_equations(Path("model"), "+")
        margins = run_over_shards(compute_margins, Path("model"), equations, 50, "test")
        assert len(margins) == 100
        shutil.rmtree(tmp_path / name / "model")


def test_incomplete_model_is_reported(workspace):
    (workspace / "model" / "input_profile.json").unlink()
    with pytest.raises(InvalidModelError, match="input_profile"):
        run_over_shards(decode, Path("model"), list_equations(Path("model"), "+"), 30, "test")


def test_killed_worker_is_reported_with_a_hint(trained, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    equations = list_equations(trained / "model", "+")
    with pytest.raises(UserError, match="ended from outside") as error:
        run_over_shards(certify_and_die, trained / "model", equations, 30, "test")
    assert "dvc repro" in error.value.hint


def certify_and_die(model: WorkerModel, equations: Equations) -> Columns:
    os.kill(os.getpid(), signal.SIGKILL)
    return compute_margins(model, equations)

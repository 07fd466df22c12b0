"""Certification: one pass, decoding and the ONNX decoder agree on every equation."""

import os
import shutil
import signal
from pathlib import Path

import joblib
import numpy as np
import pytest

from arithmetic import formats
from arithmetic.artifacts import load_config
from arithmetic.errors import InvalidModelError, UserError
from arithmetic.inference import OnnxModel
from arithmetic.model import load_model
from stages.certify import (
    Equations,
    WorkerModel,
    compute_margins,
    decode,
    decode_by_beam,
    run_over_shards,
)
from tests.random_models import write_model

OPERATIONS = ["+", "-"]


def list_equations(directory: Path, operation: str) -> Equations:
    return Equations(operation, *load_config(directory).get_grammar().equations(operation))


def certify_everything(directory: Path) -> list[bool]:
    """Return which equations are proven, after checking that pass, decoding and graph agree."""
    model, proven = WorkerModel(load_model(directory), OnnxModel(directory)), []
    for operation in model.onnx_model.grammar.operations:
        equations = list_equations(directory, operation)
        by_torch, by_onnx = decode(model, equations).transpose(1, 0, 2)
        assert (by_torch == by_onnx).all()
        reference = formats.encode_sequences(*equations, 1)[:, -by_torch.shape[1] :]
        margins = compute_margins(model, equations)
        assert ((by_torch == reference).all(1) == (margins > 0)).all()
        proven += (margins > 0).tolist()
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
    equations = list_equations(trained / "model", operation)
    greedy = decode(model, equations)[:, 0]
    assert (decode_by_beam(model, equations, 1) == greedy).all()
    assert (decode_by_beam(model, equations, 8) != greedy).any()


def test_result_is_the_same_for_one_and_two_workers(trained, monkeypatch):
    directory, results = trained / "model", []
    nothing = Equations("+", np.empty(0, np.int64), np.empty(0, np.int64))
    equations = [nothing, *(list_equations(directory, operation) for operation in OPERATIONS)]
    for count in (1, 2):
        monkeypatch.setattr(joblib, "cpu_count", lambda count=count: count)
        for task in (compute_margins, decode):
            results.append(run_over_shards(task, directory, equations, 30, "test"))
    for one, two in zip(results[:2], results[2:], strict=True):
        assert [part.tobytes() for part in one] == [part.tobytes() for part in two]
        assert [len(part) for part in one] == [0, 100, 100]


def test_relative_directory_is_found_by_workers_of_an_earlier_run(trained, tmp_path, monkeypatch):
    """joblib's workers live on, in the working directory that they were started in."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copytree(trained / "model", tmp_path / name / "model")
        monkeypatch.chdir(tmp_path / name)
        equations = [list_equations(Path("model"), "+")]
        (margins,) = run_over_shards(compute_margins, Path("model"), equations, 50, "test")
        assert len(margins) == 100
        shutil.rmtree(tmp_path / name / "model")


def test_incomplete_model_is_reported(workspace):
    (workspace / "model" / "input_profile.json").unlink()
    with pytest.raises(InvalidModelError, match="input_profile"):
        run_over_shards(decode, Path("model"), [list_equations(Path("model"), "+")], 30, "test")


def test_killed_worker_is_reported_with_a_hint(trained, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    equations = [list_equations(trained / "model", "+")]
    with pytest.raises(UserError, match="ended from outside") as error:
        run_over_shards(certify_and_die, trained / "model", equations, 30, "test")
    assert "dvc repro" in error.value.hint


def certify_and_die(model: WorkerModel, equations: Equations) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGKILL)
    return compute_margins(model, equations)

"""A version whose inference raises on one equation, registered beside the others.

onnxruntime itself raises: the graph looks the equation's tokens up outside of the embedding's
table, so the whole call fails, whoever else is in it.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from onnx import helper, numpy_helper

from arithmetic import bundle, layouts
from arithmetic.config import load_config
from arithmetic.engine import PROMPTS
from arithmetic.grammar import Equation
from benchmarks.serving_peers import ROOT
from registry import BUNDLE_PATH, BUNDLE_TAG, EXPERIMENT, MODEL

# In no self-test, and not among the equations that the load asks.
CULPRIT = Equation(123, "+", 456)


def write(into: Path) -> None:
    """The committed bundle, with a + that raises on CULPRIT."""
    shutil.copytree(ROOT / "bundle", into)
    digits = load_config(into).grammar.digits
    operands = np.array([CULPRIT.operand_1]), np.array([CULPRIT.operand_2])
    ids = layouts.prompts(CULPRIT.operation, *operands, digits).astype(np.int64)
    path = into / bundle.decoder(CULPRIT.operation)
    model = onnx.load(path)
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == PROMPTS:
                node.input[place] = "looked_up"
    guard = [
        helper.make_node("Equal", [PROMPTS, "culprit"], ["equal"]),
        helper.make_node("Cast", ["equal"], ["equal_ids"], to=onnx.TensorProto.INT64),
        helper.make_node("ReduceMin", ["equal_ids"], ["all_equal"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["all_equal", "outside"], ["shift"]),
        helper.make_node("Add", [PROMPTS, "shift"], ["looked_up"]),
    ]
    nodes = [*guard, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(ids, "culprit"),
            numpy_helper.from_array(np.array(1_000_000), "outside"),
        ]
    )
    onnx.save(model, path)


def registered(uri: str) -> str:
    """Register it with the server at `uri`; returns the version."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None, "the store has recorded runs"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / BUNDLE_PATH
        write(folder)
        model = client.create_logged_model(experiment.experiment_id, MODEL)
        client.log_model_artifacts(model.model_id, scratch)
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        tags = {BUNDLE_TAG: bundle.digest(folder)}
        source = f"models:/{model.model_id}"
        version = client.create_model_version(MODEL, source, tags=tags, model_id=model.model_id)
    return str(version.version)

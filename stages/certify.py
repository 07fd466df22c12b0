"""Certify equations without generating: one teacher-forced pass over the reference sequences.

A model that, fed a reference sequence, prefers the correct next token at every position would have
generated that sequence. So one forward pass certifies an equation, and only one that fails it has
to be decoded. The margin of an equation is the minimum logit margin of the correct token over its
best rival; it is negative where the pass fails. With a large minimum over the domain the rounding
of another runtime cannot change an answer.

Work is cut into shards of constant size, so the result does not depend on the number of workers.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

from arithmetic import formats
from arithmetic.artifacts import digest
from arithmetic.decoding import decode_by_beam_search, generate
from arithmetic.errors import UserError
from arithmetic.grammar import Grammar
from arithmetic.inference import OnnxModel
from arithmetic.model import Transformer, load_model
from stages.cluster import open_workers
from stages.progress import ProgressBar
from stages.workers import set_deterministic

BATCH_TOKENS = 18_000
OUTCOMES = list(formats.Outcome._fields)


class Equations(NamedTuple):
    """Hold equations of one operation: operands [N], int64."""

    operation: str
    a: np.ndarray
    b: np.ndarray


class WorkerModel(NamedTuple):
    """Hold one worker's model in both forms."""

    transformer: Transformer
    onnx_model: OnnxModel


Columns = dict[str, Any]  # values by name, [N] each
Task = Callable[[WorkerModel, Equations], Columns]


@torch.no_grad()
def compute_margins(model: WorkerModel, equations: Equations) -> Columns:
    """Return the minimum logit margin of the correct token of each equation: `margin` float32."""
    grammar = model.onnx_model.grammar
    index, lengths = formats.locate(equations.operation, grammar)
    sequences = torch.from_numpy(formats.encode_sequences(*equations, grammar.digits)).long()
    parts = []
    for ids in sequences.split(BATCH_TOKENS // sequences.shape[1]):
        logits = model.transformer(ids[:, :-1], index, first=lengths.prompt - 1)
        correct = ids[:, lengths.prompt :, None]
        best_rival = logits.scatter(-1, correct, -torch.inf).amax(-1)
        margins = logits.gather(-1, correct).squeeze(-1) - best_rival
        parts.append(margins.amin(1))
    return {"margin": torch.cat(parts).numpy()}


def decode(model: WorkerModel, equations: Equations) -> Columns:
    """Decode by PyTorch and by the ONNX decoder, and classify PyTorch's answers.

    Returns:
        The columns of `classify`, `is_reference` (the reference sequence was generated) and
        `graph_differs`.
    """
    grammar = model.onnx_model.grammar
    index, lengths = formats.locate(equations.operation, grammar)
    sequences = formats.encode_sequences(*equations, grammar.digits).astype(np.int64)
    prompts, reference = np.split(sequences, [lengths.prompt], axis=1)
    ids = torch.from_numpy(prompts)
    by_torch = generate(model.transformer, index, ids, lengths.generated).numpy()
    name = formats.get_format(equations.operation).name
    by_onnx = model.onnx_model.generate(name, prompts)
    return {
        **classify(equations, by_torch, grammar),
        "is_reference": (by_torch == reference).all(1),
        "graph_differs": (by_torch != by_onnx).any(1),
    }


def decode_by_beam(model: WorkerModel, equations: Equations, width: int) -> Columns:
    """Classify the answers of a beam search by PyTorch."""
    grammar = model.onnx_model.grammar
    index, lengths = formats.locate(equations.operation, grammar)
    prompts = torch.from_numpy(formats.encode_prompts(*equations, grammar.digits)).long()
    ids = decode_by_beam_search(model.transformer, index, prompts, lengths.generated, width)
    return classify(equations, ids.numpy(), grammar)


def classify(equations: Equations, generated: np.ndarray, grammar: Grammar) -> Columns:
    """Return the outcomes of generated ids [N, T], and the `predicted` text."""
    answers, outcomes = zip(*formats.grade(*equations, generated, grammar), strict=True)
    columns = dict(zip(OUTCOMES, zip(*outcomes, strict=True), strict=True))
    return {**columns, "predicted": [answer.text for answer in answers]}


def run_over_shards(
    task: Task, directory: Path, rows: pd.DataFrame, size: int, name: str
) -> pd.DataFrame:
    """Run a task on all workers, over shards of at most `size` equations of one operation.

    Args:
        rows: columns `operation`, `a` and `b`.

    Returns:
        The columns that the task returns, with the index of `rows`.

    Raises:
        InvalidModelError: the model directory is incomplete or damaged.
        UserError: a worker was killed, or the Ray cluster failed.
    """
    key = digest(directory)
    shards = [
        (Equations(str(operation), part["a"].to_numpy(), part["b"].to_numpy()), part.index)
        for operation, group in rows.groupby("operation", sort=False)
        for part in (group[start : start + size] for start in range(0, len(group), size))
    ]
    parts = []
    try:
        with open_workers(directory.resolve()) as (parallel, path):
            run = joblib.delayed(_run_shard)
            results = parallel(run(task, path, key, equations) for equations, _ in shards)
            with ProgressBar(f"evaluate: {name}", len(rows)) as bar:
                for (_, index), columns in zip(shards, results, strict=True):
                    parts.append(pd.DataFrame(columns, index=index))
                    bar.advance(len(index))
    except TerminatedWorkerError as error:
        raise UserError(
            "a process of the evaluation was ended from outside, perhaps for lack of memory",
            "run `dvc repro` again",
        ) from error
    return pd.concat(parts)


def _run_shard(task: Task, directory: Path, key: str, equations: Equations) -> Columns:
    return task(_load(directory, key), equations)


@lru_cache(maxsize=1)
def _load(directory: Path, key: str) -> WorkerModel:
    set_deterministic()
    return WorkerModel(load_model(directory), OnnxModel(directory))

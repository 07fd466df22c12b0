"""Certify equations without generating: one teacher-forced pass over the references.

Fed a reference sequence, a model that prefers the right next token at every position would have
generated that very sequence: greedy decoding needs no second opinion. So one forward pass proves
an equation, and only what fails it has to be decoded. The margin of an equation is the smallest
lead, in logits, of the right token over its best rival; it is negative where the pass fails, and
a large smallest margin means that no rounding of another engine can change an answer.

Work is cut into shards of constant size, so the result does not depend on the number of cores.
"""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from arithmetic import layouts
from arithmetic.config import load_config
from arithmetic.decoding import BeamDecoder, GreedyDecoder
from arithmetic.engine import Engine
from arithmetic.errors import Problem
from stages import stop_if_orphaned
from stages.torch_setup import single_threaded
from stages.weights import load_model

SHARD = 20_000
BATCH_TOKENS = 18_000
DECODED_BATCH = 500


@dataclass(frozen=True)
class Equations:
    """Equations of one operation: operands [N], int64."""

    operation: str
    operand_1: np.ndarray
    operand_2: np.ndarray

    def __len__(self) -> int:
        return len(self.operand_1)

    def __getitem__(self, rows: slice | np.ndarray) -> "Equations":
        return Equations(self.operation, self.operand_1[rows], self.operand_2[rows])

    def split(self, size: int) -> Iterator["Equations"]:
        """Consecutive pieces of at most `size`."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


class Prover:
    """One process's model: margins by the pass, generated ids by decoding and by the graph."""

    def __init__(self, bundle: Path):
        single_threaded()
        grammar = load_config(bundle).grammar
        self.digits = grammar.digits
        self.prompt = layouts.prompt_length(self.digits)
        self.model = load_model(bundle)
        self.operations = {name: index for index, name in enumerate(grammar.operations)}
        self.decoders = {
            name: GreedyDecoder(
                self.model, index, layouts.lengths(name, self.digits).generated
            ).eval()
            for name, index in self.operations.items()
        }
        self.engine = Engine(bundle)

    @torch.no_grad()
    def margins(self, equations: Equations) -> np.ndarray:
        """Smallest lead of the right token over its best rival: [N] float32."""
        results = []
        operation = self.operations[equations.operation]
        for part in equations.split(BATCH_TOKENS // self.model.config.lengths[operation]):
            sequences = layouts.sequences(
                part.operation, part.operand_1, part.operand_2, self.digits
            )
            ids = torch.from_numpy(sequences).long()
            logits = self.model(ids[:, :-1], operation, first_logit=self.prompt - 1)
            right = ids[:, self.prompt :, None]
            lead = logits.gather(-1, right).squeeze(-1)
            best_rival = logits.scatter(-1, right, float("-inf")).amax(-1)
            results.append((lead - best_rival).amin(1).numpy())
        return np.concatenate(results)

    def decode(self, equations: Equations) -> np.ndarray:
        """Generated ids [N, T] by greedy decoding with the key-value cache."""
        decoder = self.decoders[equations.operation]
        return self._generated(
            equations, lambda prompts: decoder(torch.from_numpy(prompts)).numpy()
        )

    def beam(self, equations: Equations, width: int) -> np.ndarray:
        """Generated ids [N, T] by a beam search."""
        operation = self.operations[equations.operation]
        tokens = layouts.lengths(equations.operation, self.digits).generated
        decoder = BeamDecoder(self.model, operation, tokens).eval()
        beams = torch.zeros(width)
        return self._generated(
            equations, lambda prompts: decoder(torch.from_numpy(prompts), beams).numpy()
        )

    def graph(self, equations: Equations, width: int = 1) -> np.ndarray:
        """Generated ids [N, T] by the serving graph."""
        return self._generated(
            equations,
            lambda prompts: self.engine.generate(equations.operation, prompts, width),
        )

    def _generated(
        self, equations: Equations, generate: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        parts = []
        for part in equations.split(DECODED_BATCH):
            prompts = layouts.prompts(part.operation, part.operand_1, part.operand_2, self.digits)
            parts.append(generate(prompts.astype(np.int64)).astype(np.uint8))
        return np.concatenate(parts)


_prover: Prover | None = None  # one a worker process, made by its initializer


def _start(bundle: Path) -> None:
    global _prover
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to tell of
    _prover = Prover(bundle)


def _work(method: str, equations: Equations, arguments: tuple[int, ...]) -> np.ndarray:
    assert _prover is not None
    result: np.ndarray = getattr(_prover, method)(equations, *arguments)
    return result


class Provers:
    """A pool of `Prover` processes, one a core; use as a context manager."""

    def __init__(self, bundle: Path, processes: int):
        # Built once here first, so that a broken bundle is one clear error and not a broken pool.
        Prover(bundle)
        self._pool = ProcessPoolExecutor(
            processes, get_context("spawn"), initializer=_start, initargs=(bundle,)
        )

    def __enter__(self) -> "Provers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(
        self, method: str, equations: Equations, size: int = SHARD, arguments: tuple[int, ...] = ()
    ) -> np.ndarray:
        """`margins`, `decode`, `beam` or `graph` of `Prover` over all equations, in their order.

        Raises:
            Problem: the stage is an orphan, or one of its processes was ended.
        """
        shards = list(equations.split(size))
        if not shards:
            return np.empty(0)
        count = len(shards)
        results = []
        try:
            for part in self._pool.map(_work, [method] * count, shards, [arguments] * count):
                stop_if_orphaned()
                results.append(part)
        except BrokenProcessPool as error:
            raise Problem(
                "a process of the evaluation was ended from outside, perhaps for want of memory; "
                "run `dvc repro` again"
            ) from error
        return np.concatenate(results)

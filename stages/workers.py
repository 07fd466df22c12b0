"""Compute the two shards of each batch on one core or on two, with the same bytes.

A sum of two numbers does not depend on their order, so it makes no difference whether one process
adds both shards or two processes add theirs by an all-reduce (torch.distributed, gloo).
"""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import joblib
import torch
import torch.distributed
from torch import Tensor, nn

from arithmetic.errors import UserError
from stages import REPRODUCIBLE_ENVIRONMENT, exit_with_parent

SHARDS = 2
PEER_SECONDS = 5.0
Result = TypeVar("Result")


def set_deterministic() -> None:
    """Use one thread and deterministic algorithms.

    The environment must have been set before torch loaded, which importing `stages` does.
    """
    for name, value in REPRODUCIBLE_ENVIRONMENT.items():
        assert os.environ.get(name) == value, f"{name} changed after `stages` was imported"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


@dataclass(frozen=True)
class Workers:
    """Hold the place of this process among the workers of a training."""

    rank: int = 0
    count: int = 1

    def sum_over_shards(self, compute: Callable[[int], Tensor]) -> Tensor:
        """Return the sum of `compute(shard)` over both shards, on every worker."""
        if self.count == 1:
            return compute(0) + compute(1)
        part = compute(self.rank)
        torch.distributed.all_reduce(part)
        return part

    def average_gradients(
        self, model: nn.Module, compute: Callable[[int], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Set every parameter's `.grad` to the mean over both shards.

        Args:
            compute: returns the loss of a shard, and statistics [K].

        Returns:
            The whole gradient, of which each `.grad` is a view, and the mean statistics [K].
        """
        parameters = list(model.parameters())

        def differentiate(shard: int) -> Tensor:
            loss, statistics = compute(shard)
            gradients = torch.autograd.grad(loss, parameters)
            return torch.cat([*(gradient.flatten() for gradient in gradients), statistics])

        mean = self.sum_over_shards(differentiate) / SHARDS
        sizes = [parameter.numel() for parameter in parameters]
        gradient, statistics = mean.tensor_split([sum(sizes)])
        for parameter, part in zip(parameters, gradient.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        return gradient, statistics


def run_workers(function: Callable[[Any, Workers], Result], job: object) -> Result:
    """Run `function(job, workers)` on up to two cores; return the first worker's result.

    Raises:
        UserError: the second worker ended early.
    """
    if joblib.cpu_count() < SHARDS:
        set_deterministic()
        return function(job, Workers())
    with tempfile.TemporaryDirectory() as directory:
        arguments = (function, job, directory, os.getpid())
        second = multiprocessing.get_context("spawn").Process(
            target=_run_second, args=arguments, daemon=True
        )
        second.start()
        try:
            return _run(function, job, directory, rank=0)
        except RuntimeError as error:  # raised by gloo when its peer is gone
            second.join(PEER_SECONDS)  # a killed process closes its sockets before it is gone
            if second.is_alive():
                raise
            raise UserError(
                "a training process was ended from outside, perhaps for lack of memory",
                "run `dvc repro` to resume from the last validation",
            ) from error


def _run(
    function: Callable[[Any, Workers], Result], job: object, directory: str, rank: int
) -> Result:
    set_deterministic()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{directory}/rendezvous",
        rank=rank,
        world_size=SHARDS,
        timeout=timedelta(days=1),  # a training may be suspended
    )
    try:
        return function(job, Workers(rank, SHARDS))
    finally:
        torch.distributed.destroy_process_group()


def _run_second(
    function: Callable[[Any, Workers], Any], job: object, directory: str, parent: int
) -> None:
    exit_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the first worker
    try:
        _run(function, job, directory, rank=1)
    except (UserError, RuntimeError):
        # The first worker raises the same, or gloo noticed its end: it shows why and ends this one.
        time.sleep(PEER_SECONDS)
        raise

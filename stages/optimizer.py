"""Build the optimizers: Muon for the matrices inside the blocks, AdamW for everything else.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces each matrix's
momentum by the nearest orthogonal matrix, found by a Newton-Schulz iteration.

`torch.optim.Muon` works matrix by matrix in bfloat16 and costs more than a tenth of a step here
(docs/log.md); this one iterates all matrices of one shape as one batch in float32.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from stages.params import Train

# Coefficients of the quintic iteration, tuned by Jordan for fast convergence near zero.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return approximately the nearest semi-orthogonal matrices: [K, m, n], m <= n, same shape."""
    a, b, c = NEWTON_SCHULZ
    x = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Update matrices [m, n], or stacks of them [K, m, n], by Muon with Nesterov momentum.

    The weight decay is decoupled (Liu et al. 2025, "Muon is Scalable for LLM Training").
    """

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, momentum: float, weight_decay: float
    ):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter once from its `.grad`."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum: Tensor = state["momentum"]
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                direction = parameter.grad.lerp(momentum, group["momentum"])
                matrices = direction.reshape(-1, *direction.shape[-2:])
                if matrices.shape[1] > matrices.shape[2]:
                    matrices = matrices.transpose(1, 2)
                by_shape[tuple(matrices.shape[1:])].append((parameter, matrices))
            for members in by_shape.values():
                updates = orthogonalize(torch.cat([matrices for _, matrices in members]))
                counts = [len(matrices) for _, matrices in members]
                for (parameter, _), update in zip(members, updates.split(counts), strict=True):
                    if parameter.shape[-2] > parameter.shape[-1]:
                        update = update.transpose(1, 2)
                    # Tall matrices take a longer step, so that every output moves alike.
                    scale = max(1.0, parameter.shape[-2] / parameter.shape[-1]) ** 0.5
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)


class ScheduledOptimizers:
    """Step Muon and AdamW with their learning rates times a factor of the step, from 0.

    Muon has the matrices inside the blocks, AdamW the rest. It is fused, because AdamW's default
    implementation calls MKL's `sqrt`, which differs between CPUs.
    """

    def __init__(self, model: nn.Module, params: Train, factor: Callable[[int], float]):
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            (matrices if name.endswith((".matrices", ".weight")) else rest).append(parameter)
        decay = params.weight_decay
        self.muon = Muon(matrices, params.muon_learning_rate, params.muon_momentum, decay)
        self.adamw = torch.optim.AdamW(
            rest,
            lr=params.adamw_learning_rate,
            betas=(0.9, 0.98),
            eps=1e-9,
            weight_decay=decay,
            fused=True,
        )
        schedules = [LambdaLR(optimizer, factor) for optimizer in (self.muon, self.adamw)]
        self._parts: list[Any] = [self.muon, self.adamw, *schedules]

    def step(self) -> None:
        """Update every parameter from its `.grad`, then the learning rates."""
        for part in self._parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state to save."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Continue from a saved state."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)

"""The model in training: what one process of a data-parallel training holds and does.

Every process has the same replica and applies the same updates. Which equations a step sees is a
function of the seed and the step alone, so there is no generator whose state would have to be kept.
"""

import signal
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from arithmetic.config import ModelConfig
from arithmetic.model import Transformer
from stages import checkpoint
from stages.optimiser import optimisers
from stages.params import Train
from stages.schedule import Schedule
from stages.shards import Exchange
from stages.torch_setup import single_threaded

VALIDATION_BATCH = 500

Arguments = tuple[ModelConfig, Train, int, list[Tensor]]


@dataclass(frozen=True)
class Validation:
    """Means over the validation equations: loss and accuracy per answer token, whole answers."""

    loss: float
    token_accuracy: float
    exact_match: float


class Replica:
    """Model, optimisers and the data they see.

    Args:
        shape, params: of the model, of its training.
        prompt: tokens of a prompt; loss is taken on what follows.
        data: training sequences per operation, [N, T] uint8.
    """

    def __init__(self, shape: ModelConfig, params: Train, prompt: int, data: list[Tensor]):
        self.arguments: Arguments = (shape, params, prompt, data)
        self.params, self.prompt, self.data = params, prompt, data
        self.model = Transformer(shape).initialise(torch.Generator().manual_seed(params.seed))
        self.schedule = Schedule(params.warmup_steps, params.flat_steps, params.decay_steps)
        self.muon, self.adamw = optimisers(
            self.model, params.muon_learning_rate, params.muon_momentum, params.adamw_learning_rate
        )
        self.parameters = list(self.model.parameters())
        self.size = self.model.parameter_count() + 1  # what a shard hands over: gradients and loss
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def step(self, exchange: Exchange, step: int) -> float:
        """One update; returns the loss of the batch before it."""
        total = exchange.total(step, self.gradients)
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, gradient in zip(self.parameters, total[:-1].split(sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)
        factor = self.schedule.factor(step)
        self.muon.param_groups[0]["lr"] = self.params.muon_learning_rate * factor
        self.adamw.param_groups[0]["lr"] = self.params.adamw_learning_rate * factor
        self.muon.step()
        self.adamw.step()
        return float(total[-1])

    def gradients(self, step: int, shard: int) -> Tensor:
        """Of one shard of the batch of one step: all gradients, then the loss, [size]."""
        batches = [self._rows(operation, step, shard) for operation in range(len(self.data))]
        tokens = sum(batch[:, self.prompt :].numel() for batch in batches)
        loss = torch.zeros(())
        for operation, batch in enumerate(batches):
            loss = loss + self._loss(operation, batch)[0]
        loss = loss / tokens
        gradients = torch.autograd.grad(loss, self.parameters)
        return torch.cat([*(gradient.flatten() for gradient in gradients), loss.detach()[None]])

    def _rows(self, operation: int, step: int, shard: int) -> Tensor:
        """Sequences of one shard: a new order each epoch, whole batches only."""
        data, size = self.data[operation], self.params.batch_sizes[operation]
        epoch, batch = divmod(step, len(data) // size)
        if self._orders.get(operation, (-1, None))[0] != epoch:
            rng = np.random.default_rng([self.params.seed, operation, epoch])
            self._orders[operation] = epoch, rng.permutation(len(data))
        rows = self._orders[operation][1][batch * size : (batch + 1) * size]
        cuts = [size * n // self.params.shards for n in range(self.params.shards + 1)]
        start, end = list(pairwise(cuts))[shard]
        return data[torch.from_numpy(rows[start:end])].long()

    def _loss(self, operation: int, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy on what follows the prompt, and its logits [B, T, vocabulary]."""
        logits = self.model(ids[:, :-1], operation, first_logit=self.prompt - 1)
        right = ids[:, self.prompt :]
        return F.cross_entropy(logits.flatten(0, 1), right.flatten(), reduction="sum"), logits

    @torch.no_grad()
    def validate(self, data: list[Tensor]) -> Validation:
        """Teacher-forced, over sequences per operation."""
        loss, right, exact, tokens = 0.0, 0, 0, 0
        for operation, sequences in enumerate(data):
            tokens += sequences[:, self.prompt :].numel()
            for batch in sequences.split(VALIDATION_BATCH):
                ids = batch.long()
                batch_loss, logits = self._loss(operation, ids)
                hits = logits.argmax(-1) == ids[:, self.prompt :]
                loss += batch_loss.item()
                right += int(hits.sum())
                exact += int(hits.all(1).sum())
        return Validation(loss / tokens, right / tokens, exact / sum(map(len, data)))

    def weights(self) -> dict[str, Tensor]:
        """A copy of the model's parameters."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """Parameters and both optimisers' states, by name."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, optimiser in (("muon", self.muon), ("adamw", self.adamw)):
            for index, entry in optimiser.state_dict()["state"].items():
                found |= {f"{name}.{index}.{key}": tensor for key, tensor in entry.items()}
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`; names of other things are passed over."""
        named = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        self.model.load_state_dict(named)
        for name, optimiser in (("muon", self.muon), ("adamw", self.adamw)):
            content = optimiser.state_dict()
            for path, tensor in tensors.items():
                owner, _, rest = path.partition(".")
                if owner == name:
                    index, _, key = rest.partition(".")
                    content["state"].setdefault(int(index), {})[key] = tensor
            optimiser.load_state_dict(content)


def follow(exchange: Exchange, arguments: Arguments, name: str, start: int) -> None:
    """What every process but the first does: the same steps, until the first one is gone.

    Args:
        name: key of the checkpoint to start from, if `start` is not 0.
        start: steps done already.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first one's to tell of
    single_threaded()
    replica = Replica(*arguments)
    if start:
        found = checkpoint.load(name)
        assert found is not None  # the first process has read it, and its next step waits for us
        replica.restore(found.tensors)
    try:
        for step in range(start, replica.schedule.steps):
            replica.step(exchange, step)
    except (EOFError, ConnectionError):
        pass  # the first process has finished, stopped early or been ended

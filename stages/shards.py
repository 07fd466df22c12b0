"""Data-parallel training with a fixed number of shards, on one core or several, same bytes.

A batch is always cut into the same shards, each computed by one thread, and their gradients are
always added in the same order. So whether one process computes all shards or each has its own
changes the time and not one bit. Every process keeps a replica of the model and applies the same
update to it: nothing but gradients is exchanged, through shared memory.
"""

from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch
from torch import Tensor

# Gradients of one shard at one step, and its loss as the last element: [parameters + 1].
ShardGradients = Callable[[int, int], Tensor]


class Exchange:
    """Where processes put their shards' gradients and wait for the others'.

    Two buffers are used in turn: a process that is ahead writes the next step's while another still
    reads this one's. A peer that has gone (killed, or done) closes its pipe, and `EOFError` ends
    the others instead of leaving them to wait.

    Args:
        buffers: shared memory, [2, shards, elements of a shard].
        rank, processes: this process, of how many.
        pipes: to every other process.
    """

    def __init__(
        self, buffers: Tensor, rank: int = 0, processes: int = 1, pipes: tuple[Connection, ...] = ()
    ):
        self.buffers = buffers
        self.rank, self.processes, self.pipes = rank, processes, pipes

    def total(self, step: int, gradients: ShardGradients) -> Tensor:
        """Mean over all shards, [size]; raises EOFError if a peer is gone."""
        buffer = self.buffers[step % 2]
        shards = len(buffer)
        for shard in range(self.rank, shards, self.processes):
            buffer[shard] = gradients(step, shard)
        for pipe in self.pipes:
            pipe.send_bytes(b"\0")
        for pipe in self.pipes:
            pipe.recv_bytes()
        total = buffer[0].clone()
        for shard in range(1, shards):
            total += buffer[shard]
        return total.mul_(1 / shards)


def single(shards: int, size: int) -> Exchange:
    """All shards in this process."""
    return Exchange(torch.zeros(2, shards, size))


def with_peers(
    shards: int, size: int, processes: int, peer: Callable[..., None], arguments: tuple[object, ...]
) -> Exchange:
    """Start `processes - 1` peers, which run `peer(exchange, *arguments)`; returns this process's.

    Peers are daemons: they end with this process, also when it is killed (their pipes break).
    """
    context = get_context("spawn")
    buffers = torch.zeros(2, shards, size).share_memory_()
    pipes: dict[tuple[int, int], Connection] = {}
    for a in range(processes):
        for b in range(a + 1, processes):
            pipes[a, b], pipes[b, a] = context.Pipe()

    def of(rank: int) -> tuple[Connection, ...]:
        return tuple(pipes[rank, other] for other in range(processes) if other != rank)

    for rank in range(1, processes):
        exchange = Exchange(buffers, rank, processes, of(rank))
        context.Process(target=peer, args=(exchange, *arguments), daemon=True).start()
    for (rank, _), pipe in pipes.items():
        if rank != 0:
            pipe.close()  # the peer has its own end; an open copy here would hide its death
    return Exchange(buffers, 0, processes, of(0))

"""The few facts about data-parallel workers that training and evaluation need; with one worker they do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from preprocessing.schema import UserError

Result = TypeVar("Result")


def rank() -> int:
    """This worker's number; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of workers; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wrap(module: nn.Module) -> nn.Module:
    """`module` with gradients averaged over the workers. Weights and buffers start as rank 0's."""
    return DistributedDataParallel(module) if world_size() > 1 else module


def total(value: Tensor) -> Tensor:
    """Sum of a tensor over the workers."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def own_rows(whole: Tensor, number: int = 0, count: int = 1) -> Tensor:
    """This worker's share of rows that were made, alike on all workers, for the global batch.

    Of a global batch in `count` micro-batches, its share of micro-batch `number`.
    """
    return whole.tensor_split(count * world_size())[number * world_size() + rank()]


def gather(value: Any) -> list[Any]:
    """The workers' values by rank, on every worker."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def agree(value: Any) -> Any:
    """Rank 0's value, on every worker."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def ask_first(compute: Callable[[], Result]) -> Result:
    """What `compute` returns on rank 0, on every worker; the others do not call it. A UserError is raised by all.

    So workers go the same way, though their machines may see a file at different times.
    """
    result: Any = None
    error: UserError | None = None
    if rank() == 0:
        try:
            result = compute()
        except UserError as raised:
            error = raised
    result, error = agree((result, error))
    if error is not None:
        raise error
    return result


def share(tensors: Iterable[Tensor]) -> None:
    """Give these tensors rank 0's values, in place, on every worker."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def barrier() -> None:
    """Wait for the other workers."""
    if world_size() > 1:
        dist.barrier()

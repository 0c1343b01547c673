"""The few facts about data-parallel workers that training and evaluation need; with one worker they do nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adafocus.allocator import keep_freed_memory
from preprocessing.schema import UserError


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
    return gather(value)[0]


def barrier() -> None:
    """Wait for the other workers."""
    if world_size() > 1:
        dist.barrier()


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the local CUDA device of this worker if there is one, else Apple's, else the CPU.

    A process that computes on the CPU keeps the memory that it frees (`keep_freed_memory`). Raises UserError for a
    device that does not exist here.
    """
    device = _find_device(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def _find_device(name: str) -> torch.device:
    if name != "auto":
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:  # the second if torch was built without it
            reason = str(error).splitlines()[0].partition(". ")[0]
            raise UserError(f"there is no device {name!r} here: {reason}") from None
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

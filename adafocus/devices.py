"""The device that a process computes on, and how a process that computes on a CPU uses its memory."""

from __future__ import annotations

import ctypes
import os
import platform

import torch
from torch import nn

from preprocessing.schema import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of glibc's options (malloc.h)."""


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the local CUDA device of this worker if there is one, else Apple's, else the CPU.

    A process that computes on the CPU keeps the memory that it frees (`keep_freed_memory`). Raises UserError for a
    device that does not exist here.
    """
    device = _find_device(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def colours_last(model: nn.Module) -> None:
    """Lay weights of convolutions over pictures out as their kernels like them; those over time too stay."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def device_name(name: str) -> str:
    """The device that `name` stands for, with its maker's name if it is a GPU."""
    device = pick_device(name)
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


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


def use_deterministic_kernels() -> None:
    """From now on this process's GPU kernels give the same bits in every run. torch warns of one that has no such form.

    To be called before the GPU is used: its matrix library reads its settings once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else sums depend on which stream was faster
    torch.backends.cudnn.benchmark = False  # it would choose kernels by their speed in this run
    # Nothing here reads what it has not written: to fill it would only take time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a module property
    torch.use_deterministic_algorithms(True, warn_only=True)


def keep_freed_memory() -> None:
    """Use freed memory again, rather than give it back to the kernel and ask for it anew in the next step.

    glibc maps every tensor of more than 32 MB by itself and unmaps it when it is freed, so that the kernel clears its
    pages anew in every step: a quarter of the processor time of training. The process keeps the most that it has needed
    at one time. Nothing changes where the C library is another one, or where its environment variables say otherwise.
    """
    if platform.libc_ver()[0] != "glibc" or {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)

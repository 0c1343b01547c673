"""Times on a device, and what the device can do at best: its matrix units and its memory, measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], Any], device: torch.device, *, budget_s: float = 1.0, least: int = 3) -> float:
    """Median time of a run. Two runs before it, in which kernels are chosen and compiled, do not count.

    Runs are repeated for about `budget_s`, and `least` times at least. On a GPU its own clock is read.
    """
    for _ in range(2):
        run()
    synchronize(device)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < least or (time.perf_counter() - started < budget_s and len(times) < 200):
        times.append(_once(run, device))
    return sorted(times)[len(times) // 2]


def _once(run: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """While entered, float32 products of matrices and convolutions on a GPU are, or are not, made in TF32."""
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@cache
def matrix_peak(device: torch.device, dtype: torch.dtype, use_tf32: bool = False) -> float:
    """Multiply-adds per second of the best of a few large products of random square matrices."""
    best = 0.0
    for side in (8192, 6144, 4096) if device.type == "cuda" else (512,):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        with tf32(use_tf32):
            best = max(best, side**3 / seconds(lambda a=left, b=right: a @ b, device, budget_s=0.3))
    return best


@cache
def memory_peak(device: torch.device) -> float:
    """Bytes per second of a large copy on the device, read and written ones counted."""
    size = 2**30 if device.type == "cuda" else 2**24
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device, budget_s=0.3)


def agreement(found: Tensor, wanted: Tensor) -> tuple[float, float, float]:
    """Of logits BTK: largest error as a share of the largest logit, and shares of clips and of prefixes whose most
    likely class is the same."""
    found, wanted = found.float().cpu(), wanted.float().cpu()
    same_BT = found.argmax(-1) == wanted.argmax(-1)
    error = (found - wanted).abs().max() / wanted.abs().max()
    return error.item(), same_BT[:, -1].float().mean().item(), same_BT.float().mean().item()

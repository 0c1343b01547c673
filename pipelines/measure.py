"""What a pass costs on this machine: a model and a batch that is in memory in; seconds and bytes out."""

from __future__ import annotations

import time
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributed._tools.mem_tracker import MemTracker

from adafocus.evaluate import Look
from adafocus.loader import Batch
from adafocus.models.adafocus import AdaFocus


def first_clip(batch: Batch) -> Batch:
    """The batch's first clip alone."""
    boxes = None if batch.boxes_BT4 is None else batch.boxes_BT4[:1]
    return replace(
        batch,
        glance_BTCHW=batch.glance_BTCHW[:1],
        focus_BTCHW=batch.focus_BTCHW[:1],
        labels_BL=batch.labels_BL[:1],
        clip_ids=batch.clip_ids[:1],
        boxes_BT4=boxes,
    )


@torch.inference_mode()
def seconds(model: AdaFocus, batch: Batch, patches: Look, repeats: int = 5) -> float:
    """Median time of a batch: frames in, prediction out."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        _predict(model, batch, patches).sum().item()  # waits for the device
        times.append(time.perf_counter() - started)
    return sorted(times[1:])[repeats // 2]


@torch.no_grad()
def peak_bytes(model: AdaFocus, batch: Batch, patches: Look) -> int:
    """Most bytes that tensors took at one time: the batch, and what a pass makes of it; without the weights.

    Counted operation by operation, so that it is the same in every run; a kernel's own scratch memory is left out.
    """
    device = batch.glance_BTCHW.device
    tracker = MemTracker()
    tracker.track_external(*{id(each): each for each in (batch.glance_BTCHW, batch.focus_BTCHW)}.values())
    with tracker:
        _predict(model, batch, patches)
    held = tracker.get_tracker_snapshot("peak")[device]
    weights = sum(size for kind, size in held.items() if getattr(kind, "name", "") in ("PARAM", "BUFFER"))
    return int(held["Total"] - weights)


def _predict(model: AdaFocus, batch: Batch, patches: Look) -> Tensor:
    if patches == "glancer":
        return model.glance(batch.glance_BTCHW).logits_BTK
    if patches == "whole":
        return model.focuser.head(model.focus(batch.focus_BTCHW))
    return model(batch.glance_BTCHW, batch.focus_BTCHW, patches).prediction_BK

"""What a model says of a split: one prediction per clip, each clip exactly once whatever the number of workers."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import torch
from torch import Tensor

from adafocus import distributed
from adafocus.data.loader import Batch, ClipLoader
from adafocus.divergence import DivergedError, some
from adafocus.evaluation import metrics
from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.models.classifier import prefix_mean
from adafocus.models.crop import patch_covers, patch_holds, random_corners
from adafocus.models.frame_source import at_places
from adafocus.models.outputs import PatchChoice

PatchSource = Literal["policy", "random", "centre", "oracle", "glancer", "whole"]
"""What predicts: the method with patches from there (`oracle`: around the object's own box), the glancer alone, or the
focuser alone on whole frames."""


BatchWatch = Callable[[int, int, int], None]
"""watch(batch, batches, clips) is called after every batch of an evaluation: its number from 1, how many there are, and
the clips in it."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Merged over all workers, sorted by clip_id. N clips, T exits, K classes, S actions, F frames to focus on."""

    clip_ids: list[str]
    labels_NL: Tensor
    """int64, padded with -1."""
    logits_NTK: Tensor
    """float32 on the CPU; the video's prediction is the last exit's."""
    corners_NS2: Tensor | None
    """int64 (row, column) of the patch in the frame; None where no patch was taken."""
    hits_N: Tensor | None
    """Share of frames (0 to 1) in which the patch holds the whole object; None where the data set has no boxes. Of
    frames that show the object and, where some are skipped, that are looked at; NaN where a clip has none."""
    looks_NT: Tensor | None = None
    """Which frames the focuser looked at, bool; None: all, or it was not asked."""
    covered_N: Tensor | None = None
    """Of the frames that `hits_N` counts, the mean share of the object's box that lies in the patch."""
    sizes_NS2: Tensor | None = None
    """(height, width) in pixels of what each patch shows; None: of the patch itself."""
    places_NF: Tensor | None = None
    """Which of its candidates the focuser saw; None: it had no choice."""

    def check_finite(self) -> None:
        """Raise DivergedError if a logit is NaN or infinite."""
        broken_N = ~self.logits_NTK.isfinite().all(-1).all(-1)
        if broken_N.any():
            broken = [self.clip_ids[number] for number in broken_N.nonzero()[:, 0].tolist()]
            share = f"{len(broken)} of {len(self.clip_ids)} clips"
            raise DivergedError(f"the model's logits are NaN or infinite on {share}: {some(broken)}")

    def metrics(self) -> dict[str, float]:
        """Percentages: top1, top5, map; hit_rate and covered where boxes are known; looked where frames may be skipped.

        Raises DivergedError for NaN or inf.
        """
        self.check_finite()
        values = metrics.scores(self.logits_NTK[:, -1], self.labels_NL)
        for name, shares_N in (("hit_rate", self.hits_N), ("covered", self.covered_N)):
            if shares_N is not None and not shares_N.isnan().all():
                values[name] = shares_N.nanmean().item() * 100
        if self.looks_NT is not None:
            values["looked"] = self.looks_NT.float().mean().item() * 100
        return values

    def online(self) -> list[dict[str, float]]:
        """map, top1 and top5 in percent after 1, 2, ... T frames."""
        return metrics.online_scores(self.logits_NTK, self.labels_NL)

    def table(self) -> pa.Table:
        """One row a clip: everything that is needed to recompute a number."""
        columns = {
            "clip_id": self.clip_ids,
            "labels": [[label for label in row if label >= 0] for row in self.labels_NL.tolist()],
            "logits": self.logits_NTK[:, -1].tolist(),
            "prefix_logits": self.logits_NTK.tolist(),
            "corners": None if self.corners_NS2 is None else self.corners_NS2.tolist(),
            "hit": None if self.hits_N is None else _or_null(self.hits_N),
            "covered": None if self.covered_N is None else _or_null(self.covered_N),
            "looked": None if self.looks_NT is None else self.looks_NT.tolist(),
            "sizes": None if self.sizes_NS2 is None else self.sizes_NS2.tolist(),
            "places": None if self.places_NF is None else self.places_NF.tolist(),
        }
        return pa.table({name: values for name, values in columns.items() if values is not None})


@torch.no_grad()  # not inference mode, which the loader's threads would not share
def evaluate(
    model: AdaFocus,
    loader: ClipLoader,
    *,
    patches: PatchSource = "policy",
    seed: int = 0,
    watch: BatchWatch | None = None,
) -> Predictions:
    """Run `model` over every clip of `loader`, which must be an evaluation loader.

    Random patches are drawn from `seed` on the CPU, clip by clip, so they are the same on every device and for every
    number of workers. Raises RuntimeError if a clip is missing or seen twice.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts: list[tuple[list[str], list[Tensor | None]]] = []
    for number, batch in enumerate(loader, start=1):
        moved = batch.to(device)
        corners = clip_corners(model, batch.clip_ids, seed).to(device) if patches == "random" else None
        answer = predict_batch(model, moved, patches, corners)
        choice = answer.choice
        chosen = [choice.corners_BS2, choice.looks_BT, choice.sizes_BS2, choice.places_BF] if choice else [None] * 4
        tensors = [moved.labels_BL, answer.logits_BTK.float(), *_found(model, moved, choice), *chosen]
        parts.append((batch.clip_ids, [None if x is None else x.cpu() for x in tensors]))
        if watch is not None:
            watch(number, len(loader), len(batch.clip_ids))
    model.train(was_training)
    gathered = [part for worker in distributed.gather(parts) for part in worker]
    clip_ids = [clip_id for ids, _ in gathered for clip_id in ids]
    if sorted(clip_ids) != sorted(loader.clip_ids):
        raise RuntimeError(f"evaluation saw {len(clip_ids)} clips of {len(loader.clip_ids)}, some twice or not at all")
    order = sorted(range(len(clip_ids)), key=clip_ids.__getitem__)
    labels, logits, hits, covered, corners, looks, sizes, places = (
        _merge([part[i] for _, part in gathered], order) for i in range(8)
    )
    assert labels is not None and logits is not None
    ids = [clip_ids[i] for i in order]
    return Predictions(ids, labels, logits, corners, hits, looks, covered, sizes, places)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was predicted of a batch."""

    logits_BTK: Tensor
    """Of every exit."""
    choice: PatchChoice | None = None
    """None where no patch was taken."""


def predict_batch(model: AdaFocus, batch: Batch, patches: PatchSource, corners_BS2: Tensor | None = None) -> Answer:
    """Predict a batch. `corners_BS2` are used instead of those that the model would choose."""
    if patches == "whole":
        return Answer(prefix_mean(model.focuser.head(model.focus(model.whole_frames(batch.focus_BTCHW)))))
    if patches == "glancer":
        return Answer(prefix_mean(model.glance(batch.glance_BTCHW).logits_BTK))
    source: Patches | Tensor
    if corners_BS2 is not None:
        source = corners_BS2
    else:
        source = oracle_corners(model, batch) if patches == "oracle" else patches
    output = model(batch.glance_BTCHW, batch.focus_BTCHW, source)
    return Answer(output.logits_BTK, output.choice)


def _found(model: AdaFocus, batch: Batch, choice: PatchChoice | None) -> tuple[Tensor | None, Tensor | None]:
    """Of a clip's frames that show the object (and are looked at), the share whose patch holds it, and the mean share
    of its box that they hold, float32 (B,); None without patches or boxes."""
    boxes_BT4 = batch.boxes_BT4
    if boxes_BT4 is None or choice is None:
        return None, None
    if choice.places_BF is not None:
        boxes_BT4 = at_places(boxes_BT4, choice.places_BF)
    size: int | Tensor = model.config.model.patch_size if choice.sizes_BS2 is None else choice.sizes_BS2
    counts_BT = ~boxes_BT4.isnan().any(-1)
    if choice.looks_BT is not None:
        counts_BT = counts_BT & choice.looks_BT
    corners_BS2 = choice.corners_BS2
    shares_BT = (patch_holds(corners_BS2, size, boxes_BT4).float(), patch_covers(corners_BS2, size, boxes_BT4))
    holds_B, covers_B = (each.where(counts_BT, torch.nan).nanmean(1) for each in shares_BT)
    return holds_B, covers_B


def oracle_corners(model: AdaFocus, batch: Batch) -> Tensor:
    """Corners int64 (B, S, 2) of patches around the object's own box, as far as the frame allows.

    Where the model acts once for a clip, around the mean of the boxes; in a frame without the object, in the middle.
    Raises ValueError for a batch without boxes.
    """
    if batch.boxes_BT4 is None:
        raise ValueError("these clips have no boxes of objects to look at")
    centres_BT2 = (batch.boxes_BT4[..., :2] + batch.boxes_BT4[..., 2:]) / 2
    if not model.acts_per_frame:
        centres_BT2 = centres_BT2.nanmean(1, keepdim=True)
    side, patch = model.config.data.crop, model.config.model.patch_size
    corners_BS2 = centres_BT2.nan_to_num(nan=side / 2) - patch / 2
    return corners_BS2.round().clamp(0, side - patch).long()


def clip_corners(model: AdaFocus, clip_ids: list[str], seed: int) -> Tensor:
    """Random corners int64 (B, S, 2) that depend on the clip and the seed alone."""
    count = model.actions_per_clip
    generators = [torch.Generator().manual_seed(zlib.crc32(f"{seed}/{clip_id}".encode())) for clip_id in clip_ids]
    sizes = (model.config.data.crop, model.config.model.patch_size)
    return torch.stack([random_corners((count,), *sizes, generator=generator) for generator in generators])


def _or_null(shares_N: Tensor) -> list[float | None]:
    """Shares as a table has them: null where there is none."""
    return [None if math.isnan(share) else share for share in shares_N.tolist()]


def _merge(tensors: list[Tensor | None], order: list[int]) -> Tensor | None:
    if any(x is None for x in tensors):
        return None
    present = [x for x in tensors if x is not None]
    if present[0].ndim == 2 and len({x.shape[1] for x in present}) > 1:  # labels, padded batch by batch
        width = max(x.shape[1] for x in present)
        present = [torch.nn.functional.pad(x, (0, width - x.shape[1]), value=-1) for x in present]
    return torch.cat(present)[order]

"""The tokens of a split, computed once: a frozen network and a loader go in, an array in a temporary file comes out.

Shapes: N clips, T frames, n tokens of a frame (cells of the map, row by row), D features, L labels.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adafocus.data.loader import Batch, ClipLoader
from adafocus.models.adafocus import AdaFocus
from preprocessing.schema import UserError

log = logging.getLogger(__name__)

Network = Literal["glancer", "focuser"]


@dataclass(frozen=True, slots=True, eq=False)
class StoredTokens:
    """What a network makes of whole frames of each clip, in the order of clip ids."""

    clip_ids: list[str]
    labels_NL: Tensor
    tokens_NTnD: np.memmap
    """float16, in a file that is gone when the array is."""
    order: np.ndarray
    """Rows of the array in the order of clip ids."""

    def take(self, numbers: np.ndarray, device: torch.device) -> Tensor:
        """Tokens float32 (B, T, n, D) of the clips with these numbers."""
        return torch.from_numpy(self.tokens_NTnD[self.order[numbers]]).to(device).float()


@torch.no_grad()
def store_tokens(model: AdaFocus, loader: ClipLoader, network: Network) -> StoredTokens:
    """Run a network over every clip of an evaluation loader. Raises UserError if there is no room for its tokens."""
    device = next(model.parameters()).device
    array: np.memmap | None = None
    clip_ids, labels, start = list[str](), list[Tensor](), 0
    for batch in loader:
        tokens_BTnD = _tokens(model, batch.to(device), network).to("cpu", torch.float16).numpy()
        if array is None:
            array = _file((len(loader.clip_ids), *tokens_BTnD.shape[1:]))
        array[start : start + len(tokens_BTnD)] = tokens_BTnD
        start += len(tokens_BTnD)
        clip_ids += batch.clip_ids
        labels.append(batch.labels_BL)
    assert array is not None and start == len(array)
    order = sorted(range(len(clip_ids)), key=clip_ids.__getitem__)
    return StoredTokens([clip_ids[row] for row in order], torch.cat(labels)[order], array, np.array(order))


def _tokens(model: AdaFocus, batch: Batch, network: Network) -> Tensor:
    if network == "glancer":
        map_BTDhw = model.glance(batch.glance_BTCHW).map_BTDhw
    else:
        images_BTCHW = model.prepare(model.whole_frames(batch.focus_BTCHW))
        map_NDhw = model.focuser.to_map(model.focuser.features(images_BTCHW.flatten(0, 1)))
        map_BTDhw = map_NDhw.unflatten(0, images_BTCHW.shape[:2])
    return map_BTDhw.flatten(3).transpose(2, 3)


def _file(shape: tuple[int, ...]) -> np.memmap:
    """An array in a temporary file without a name."""
    size, folder = 2 * int(np.prod(shape)), tempfile.gettempdir()
    if size > shutil.disk_usage(folder).free:
        raise UserError(
            f"the attentive probe keeps {size / 1e9:.1f} GB of features in {folder}, where there is less room: set "
            "TMPDIR to a folder that has it, or measure without --probe"
        )
    log.info("the attentive probe keeps %.1f GB of features in %s", size / 1e9, folder)
    descriptor, path = tempfile.mkstemp(prefix="adafocus-tokens-")
    os.close(descriptor)
    try:
        return np.memmap(path, np.float16, "w+", shape=shape)
    finally:
        os.unlink(path)

"""What a video costs: a configuration in, giga multiply-adds by part out, counted on the real modules.

As in the literature, "GFLOPs" are multiply-adds of convolutions, linear layers and recurrent gates; normalisation,
activations, resizing and cropping are left out. Modules run on the meta device: nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from adafocus.config.schema import Config
from adafocus.models.adafocus import AdaFocus, Patches, build_model

PARTS = ("glancer", "policy", "focuser", "classifier")


def count(
    config: Config, num_classes: int, *, patches: Patches | None = "policy", num_frames: int | None = None
) -> dict[str, float]:
    """GFLOPs per video: each of `PARTS` and `total`.

    Without a policy (`patches` "random" or "centre") its part is 0; `patches` None is the glancer alone, with its own
    last layer. `num_frames` counts a prefix of an untrimmed clip instead of all of it.
    """
    with torch.device("meta"):
        model = build_model(config, num_classes, pretrained=False).eval()
    if num_frames is not None and config.model.family == "trimmed":
        raise ValueError("a trimmed clip is seen as a whole: num_frames does not apply")
    return count_model(model, patches=patches, num_frames=num_frames)


def count_model(
    model: AdaFocus, *, patches: Patches | None = "policy", num_frames: int | None = None
) -> dict[str, float]:
    """As `count`, for a model on any device (it is run once, in evaluation, on zeros)."""
    data, config = model.config.data, model.config.model
    glance_frames, focus_frames = num_frames or data.num_frames, num_frames or data.num_focus_frames
    device = model.mean.device
    frames = torch.zeros(1, glance_frames, 3, config.glance_size, config.glance_size, device=device)
    patch = torch.zeros(1, focus_frames, 3, config.patch_size, config.patch_size, device=device)
    uses_head = patches is None or (config.classifier == "average" and config.reuse_glance)
    counts = dict.fromkeys(PARTS, 0.0)

    def look() -> torch.Tensor:
        map_NDhw = model.glancer.features(frames.flatten(0, 1))
        return model.glancer.head(model.glancer.pool(map_NDhw)) if uses_head else map_NDhw

    counts["glancer"], _ = _measure(look)
    if patches is not None:
        with torch.no_grad():
            glance = model.glance(frames)
        if patches == "policy":
            counts["policy"], _ = _measure(lambda: model.policy(model.states(glance)))
        counts["focuser"], feature_BTD = _measure(lambda: model.focus(patch))
        counts["classifier"], _ = _measure(lambda: model.classify(glance, feature_BTD))
    return {**counts, "total": sum(counts.values())}


def count_whole(model: AdaFocus) -> float:
    """GFLOPs per video of the focuser on whole frames, with its own last layer."""
    data = model.config.data
    frames = torch.zeros(1, data.num_focus_frames, 3, data.crop, data.crop, device=model.mean.device)
    return _measure(lambda: model.focuser.head(model.focus(frames)))[0]


def parameters(model: AdaFocus) -> dict[str, int]:
    """Number of parameters by part and in total; the networks' own last layers are included."""
    counts = {name: sum(item.numel() for item in getattr(model, name).parameters()) for name in PARTS}
    return {**counts, "total": sum(counts.values())}


@torch.no_grad()
def _measure(run: Callable[[], Any]) -> tuple[float, Any]:
    with FlopCounterMode(display=False) as counter:
        result = run()
    return counter.get_total_flops() / 2e9, result

"""What a video costs: a configuration in, giga multiply-adds by part out, counted on the real modules.

As in the literature, "GFLOPs" are multiply-adds of convolutions, linear layers, attention and recurrent gates;
normalisation, activations, resizing and cropping are left out. Modules run on the meta device: nothing is computed.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from adafocus.config.schema import Config
from adafocus.methods import build_model, method_of
from adafocus.models.adafocus import AdaFocus, Patches


def count(
    config: Config,
    num_classes: int,
    *,
    patches: Patches | None = "policy",
    num_frames: int | None = None,
    looks: float | None = None,
) -> dict[str, float]:
    """GFLOPs per video: each of the method's parts, and `total`.

    Without a policy (`patches` "random" or "centre") its part is 0; `patches` None is the glancer alone, with its own
    last layer. `num_frames` counts a prefix of a clip, where an exit needs no frame behind it. Where the method skips
    frames (AdaFocus+) `looks` is the share of frames that the focuser looks at; None: what its budget plans.
    """
    with torch.device("meta"):
        model = build_model(config, num_classes, pretrained=False).eval()
    return count_model(model, patches=patches, num_frames=num_frames, looks=looks)


def count_model(
    model: AdaFocus,
    *,
    patches: Patches | None = "policy",
    num_frames: int | None = None,
    looks: float | None = None,
) -> dict[str, float]:
    """As `count`, for a model (in evaluation) on any device.

    Raises ValueError for a prefix of a clip that is seen as a whole.
    """
    if num_frames is not None and not model.is_causal:
        raise ValueError("the clip is seen as a whole: num_frames does not apply")
    if looks is None:
        looks = model.planned_looks if patches == "policy" else 1.0
    if not model.mean.is_meta:
        model = copy.deepcopy(model).to("meta")
    data = model.config.data
    glance_frames, focus_frames = (
        torch.zeros(1, num_frames or count, 3, data.crop, data.crop, device=model.mean.device)
        for count in (data.num_frames, data.num_focus_frames)
    )
    if patches is None:
        alone = _measure(lambda: model.glance(glance_frames))
        return {**dict.fromkeys(method_of(model.config).parts, 0.0), "glancer": alone, "total": alone}
    return of_looks(count_run(model, lambda: model(glance_frames, focus_frames, patches)), looks)


@torch.no_grad()
def count_run(model: AdaFocus, run: Callable[[], Any]) -> dict[str, float]:
    """GFLOPs of what `run` computes with the model: each part and `total`, without what no prediction reads."""
    with _counting() as counter:
        run()
    by_module, root = counter.get_flop_counts(), type(model).__name__
    counts = {
        part: sum(sum(by_module.get(f"{root}.{name}", {}).values()) for name in model.counted_modules(part)) / 2e9
        for part in method_of(model.config).parts
    }
    return {**counts, "total": sum(counts.values())}


def of_looks(counts: Mapping[str, float], share: float) -> dict[str, float]:
    """Counts of parts for clips whose focuser looks at a share of what it was counted for, and their total."""
    scaled = {part: value * (share if part == "focuser" else 1) for part, value in counts.items() if part != "total"}
    return {**scaled, "total": sum(scaled.values())}


def exit_costs(
    config: Config, num_classes: int, *, patches: Patches | None = "policy", looks_T: Sequence[float] | None = None
) -> list[float]:
    """GFLOPs per video that have been computed by each exit.

    Where an exit needs no frame behind it every frame costs the same; else the whole clip is seen before the first.
    `looks_T` are shares of the clips in which the focuser looks at frame 1, 2, ...; None: what the method plans.
    """
    with torch.device("meta"):
        model = build_model(config, num_classes, pretrained=False).eval()
    exits = config.data.num_focus_frames
    if not model.is_causal:
        return [count_model(model, patches=patches)["total"]] * exits
    if looks_T is None:
        frame = count_model(model, patches=patches, num_frames=1)["total"]
        return [frame * (number + 1) for number in range(exits)]
    counts = count_model(model, patches=patches, num_frames=1, looks=1.0)
    return list(itertools.accumulate(of_looks(counts, share)["total"] for share in looks_T))


def clip_costs(config: Config, num_classes: int, looks_NT: Tensor) -> Tensor:
    """The same of each clip by itself, float64 (N, T), where the focuser skips frames: `looks_NT` are those it saw."""
    counts = count(config, num_classes, num_frames=1, looks=1.0)
    cost_NT = torch.where(looks_NT, counts["total"], of_looks(counts, 0.0)["total"])
    return cost_NT.double().cumsum(1)


def count_whole(model: AdaFocus) -> float:
    """GFLOPs per video of the focuser on whole frames, with its own last layer."""
    data = model.config.data
    frames = torch.zeros(1, data.num_focus_frames, 3, data.crop, data.crop, device=model.mean.device)
    return _measure(lambda: model.focuser.head(model.focus(frames)))


def parameters(model: AdaFocus) -> dict[str, int]:
    """Number of parameters by part and in total; the networks' own last layers are included."""
    parts = method_of(model.config).parts
    counts = {name: sum(item.numel() for item in getattr(model, name).parameters()) for name in parts}
    return {**counts, "total": sum(counts.values())}


@torch.no_grad()
def _measure(run: Callable[[], Any]) -> float:
    with _counting() as counter:
        run()
    return counter.get_total_flops() / 2e9


@contextlib.contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    """A counter of multiply-adds, beside which attention is made of matrix products, which it knows."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter

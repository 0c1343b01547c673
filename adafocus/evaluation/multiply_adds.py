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
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from adafocus.config.schema import Config
from adafocus.methods import build_model, method_of
from adafocus.models.adafocus import AdaFocus, Patches
from adafocus.models.frame_source import TensorFrames
from adafocus.models.outputs import State


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
    glance_frames, focus_frames = _frames(model, num_frames)
    if patches is None:
        alone = _measure(lambda: model.glance(glance_frames))
        return {**dict.fromkeys(method_of(model.config).parts, 0.0), "glancer": alone, "total": alone}
    return of_looks(count_run(model, lambda: model(glance_frames, focus_frames, patches)), looks)


def _frames(model: AdaFocus, num_frames: int | None = None) -> tuple[Tensor, Tensor]:
    """Frames of one clip that glancer and focuser see, without content."""
    data, device = model.config.data, model.mean.device
    glances, looks = (
        torch.zeros(1, num_frames or count, 3, data.crop, data.crop, device=device)
        for count in (data.num_frames, data.num_offered)
    )
    return glances, looks


@torch.no_grad()
def count_run(model: AdaFocus, run: Callable[[], Any]) -> dict[str, float]:
    """GFLOPs of what `run` computes with the model: each part and `total`, without what no prediction reads."""
    counts = dict.fromkeys(method_of(model.config).parts, 0.0)
    with contextlib.ExitStack() as hooks, _counting() as counter:
        for part in counts:
            for name in model.counted_modules(part):
                for handle in _hooks(model.get_submodule(name), counts, part, counter):
                    hooks.callback(handle.remove)
        run()
    return {**counts, "total": sum(counts.values())}


def _hooks(
    module: nn.Module, counts: dict[str, float], part: str, counter: FlopCounterMode
) -> tuple[RemovableHandle, RemovableHandle]:
    """Hooks that add what a module computes to its part's count."""
    before: list[int] = []

    def start(*call: Any) -> None:
        before.append(counter.get_total_flops())

    def end(*call: Any) -> None:
        counts[part] += (counter.get_total_flops() - before.pop()) / 2e9

    return module.register_forward_pre_hook(start), module.register_forward_hook(end)


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
    exits = len(model.exit_frames)
    if model.saves_early and not model.is_causal and patches is not None:
        return [parts["total"] for parts in exit_counts(model, patches)]
    if not model.is_causal:
        return [count_model(model, patches=patches)["total"]] * exits
    if looks_T is None:
        frame = count_model(model, patches=patches, num_frames=1)["total"]
        return [frame * (number + 1) for number in range(exits)]
    counts = count_model(model, patches=patches, num_frames=1, looks=1.0)
    return list(itertools.accumulate(of_looks(counts, share)["total"] for share in looks_T))


def exit_counts(model: AdaFocus, patches: Patches = "policy") -> list[dict[str, float]]:
    """GFLOPs per video by each exit, each part and `total`, of a model that glances at the whole clip first: every exit
    but the first costs one more of equal looks."""
    ends = (1, 2, len(model.exit_frames))
    first, second, last = (count_exits(model, range(end), patches) for end in ends)
    more = ends[-1] - 2

    def between(number: int) -> dict[str, float]:
        share = number / max(more, 1)
        return {part: value + (last[part] - value) * share for part, value in second.items()}

    return [first, *(between(number) for number in range(more + 1))]


def count_exits(model: AdaFocus, exits: range, patches: Patches = "policy") -> dict[str, float]:
    """GFLOPs per video of a clip that is computed for these exits, the first ones: each part and `total`."""
    if not model.mean.is_meta:
        model = copy.deepcopy(model).to("meta")
    frames = TensorFrames(*_frames(model))
    return count_run(model, lambda: model.advance(frames, exits, State(), patches))


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

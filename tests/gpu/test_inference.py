"""How fast inference is: against the plain formulation with the same weights, the card's peaks, and the roofline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from adafocus.acceleration.accelerate import accelerate
from adafocus.config.schema import Config
from adafocus.evaluation import multiply_adds
from adafocus.inference.graphed import GraphedModel
from adafocus.models.adafocus import AdaFocus
from helpers.gpu_rig import Rig, missed, on_cpu_and_gpu, representatives, skips_frames
from helpers.measuring import matrix_peak, memory_peak, seconds, synchronize, tf32
from helpers.per_frame import plain_pass
from helpers.roofline import Bound, bounds
from helpers.settled import CLASSES
from preprocessing.schema import UserError

HEADLINE = "activitynet-128"
"""The recipe that the goals are for."""
FASTER, OF_ROOFLINE, LATENCY_MS = 10.0, 1.5, 5.0


@on_cpu_and_gpu
@pytest.mark.parametrize("recipe", sorted(representatives(), key=lambda name: name != HEADLINE))
@torch.no_grad()
def test_inference(recipe: str, rig: Rig) -> None:
    config = rig.config(recipe)
    model, since = rig.model(config), len(rig.report.rows)
    for clips in (64, 1, 8) if rig.is_gpu else (2, 1):
        if not rig.has_time(f"{recipe}, {clips} clips", 12):
            break
        frames = rig.views(config, clips)
        with tf32(False):
            plain = _time(rig, partial(plain_pass, model, *frames), 0.5)
        rig.add(f"{recipe}, {clips} clips, plain formulation", 1000 * plain, "ms", "float32")
        best = _race(rig, recipe, model, frames, plain)
        _compare_with_roofline(rig, recipe, config, clips, best)
    _time_parts(rig, recipe, model, frames)
    assert not missed(rig, since), [row.what for row in missed(rig, since)]


def _race(rig: Rig, recipe: str, model: AdaFocus, frames: tuple[Tensor, ...], plain: float) -> float:
    """Seconds of bf16, after rows of all variants."""
    clips, found = len(frames[0]), {}
    for name, make in _variants(rig, recipe, model, frames):
        with tf32(name == "TF32"):
            found[name] = _time(rig, make(), 0.5)
        goals: dict[str, float] = {}
        if (recipe, clips, name) == (HEADLINE, 64, "bf16"):
            goals = {"at_least": FASTER}
        rig.add(
            f"{recipe}, {clips} clips, {name}",
            plain / found[name],
            "x plain",
            f"{clips / found[name]:.0f} clips/s",
            **goals,
        )
        latency = {"at_most": LATENCY_MS} if (recipe, clips, name) == (HEADLINE, 1, "bf16, CUDA graph") else {}
        rig.add(f"{recipe}, {clips} clips, {name}, time", 1000 * found[name], "ms", **latency)
    return found["bf16"]


Run = Callable[[], object]


def _variants(
    rig: Rig, recipe: str, model: AdaFocus, frames: tuple[Tensor, ...]
) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Name, and what makes the run."""

    def eager(precision: str) -> Run:
        return partial(accelerate(model, precision=precision), *frames)

    def graphed(precision: str) -> Run:
        return partial(GraphedModel(accelerate(model, precision=precision), *frames), *frames)

    yield "float32", partial(eager, "float32")
    yield "bf16", partial(eager, "bf16")
    if rig.is_gpu:  # a CPU has no TF32 and no graphs
        yield "TF32", partial(eager, "float32")
        if not skips_frames(model.config):
            yield "bf16, CUDA graph", partial(graphed, "bf16")


def _time(rig: Rig, run: Run, budget_s: float) -> float:
    return seconds(run, rig.device, budget_s=budget_s if rig.is_gpu else 0.01, least=2)


def _compare_with_roofline(rig: Rig, recipe: str, config: Config, clips: int, found: float) -> None:
    """Of bf16."""
    least = roofline(rig, config, clips)
    total = least["total"]
    goal = {"at_most": OF_ROOFLINE} if (recipe, clips) == (HEADLINE, 64) else {}
    rig.add(f"{recipe}, {clips} clips, bf16 over roofline", found / total.least, "x", f"limit: {total.limit}", **goal)
    work = clips * multiply_adds.count(config, CLASSES)["total"] * 1e9
    peak = matrix_peak(rig.device, torch.bfloat16)
    rig.add(
        f"{recipe}, {clips} clips, bf16, share of peak",
        100 * work / found / peak,
        "%",
        f"{2 * peak / 1e12:.0f} TFLOP/s",
    )
    if clips > 1:
        for part, bound in least.items():
            times = f"arithmetic {1000 * bound.arithmetic:.3f} ms, memory {1000 * bound.memory:.3f} ms"
            rig.add(f"{recipe}, {clips} clips, roofline of {part}", 1000 * bound.least, "ms", f"{times}: {bound.limit}")


def roofline(rig: Rig, config: Config, clips: int) -> dict[str, Bound]:
    """Of a pass whose networks compute in bf16."""
    return bounds(
        config,
        CLASSES,
        clips,
        bytes_per_number=2,
        network_peak=matrix_peak(rig.device, torch.bfloat16),
        other_peak=matrix_peak(rig.device, torch.float32),
        memory_peak=memory_peak(rig.device),
    )


def _time_parts(rig: Rig, recipe: str, model: AdaFocus, frames: tuple[Tensor, ...]) -> None:
    """Where the time of bf16 goes: each part waited for."""
    fast, times = accelerate(model, precision="bf16"), dict[str, float]()

    @contextlib.contextmanager
    def timer(part: str) -> Iterator[None]:
        synchronize(rig.device)
        started = time.perf_counter()
        yield
        synchronize(rig.device)
        times[part] = time.perf_counter() - started

    for _ in range(3):  # the last one counts
        fast(*frames, timer=timer)
    for part, value in times.items():
        rig.add(f"{recipe}, {len(frames[0])} clips, bf16, {part}", 1000 * value, "ms")
    assert set(times) == {"glance", "policy", "focus", "classify"}


@on_cpu_and_gpu
def test_peaks(rig: Rig) -> None:
    """What the card does at best: all shares are of these."""
    for name, dtype, use_tf32 in (
        ("bf16", torch.bfloat16, False),
        ("fp16", torch.float16, False),
        ("TF32", torch.float32, True),
        ("float32", torch.float32, False),
    ):
        if rig.is_gpu or name in ("bf16", "float32"):
            rig.add(f"matrix product, {name}", 2 * matrix_peak(rig.device, dtype, use_tf32) / 1e12, "TFLOP/s")
    rig.add("copy on the device", memory_peak(rig.device) / 1e9, "GB/s", "read and written bytes")
    assert all(row.value > 0 for row in rig.report.rows)


@on_cpu_and_gpu
@pytest.mark.parametrize("recipe", representatives())
@torch.no_grad()
def test_a_cuda_graph_computes_the_same(recipe: str, rig: Rig) -> None:
    """On other frames than it was recorded with. Without a GPU it is refused in words."""
    config = rig.config(recipe)
    model = rig.model(config)
    first, second = (rig.views(config, 1, seed) for seed in (1, 2))
    if skips_frames(config):
        with pytest.raises(UserError, match="adafocus-plus cannot be a CUDA graph: its gate decides how many"):
            GraphedModel(model, *first)
        return
    if not rig.is_gpu:
        with pytest.raises(UserError, match="a CUDA graph needs a CUDA device, and the model is on cpu"):
            GraphedModel(model, *first)
        return
    graphed = GraphedModel(model, *first)
    for frames in (first, second):
        wanted = model(*frames)
        torch.testing.assert_close(graphed(*frames).logits_BTK, wanted.logits_BTK, rtol=1e-3, atol=1e-4)

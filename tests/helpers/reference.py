"""Numbers of the reference implementation, and the rule that its weights and inputs follow: see tests/golden/README.md.

ADAFOCUS_GOLDEN_DIR names another folder with files of the same patterns.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Collection
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

HERE = Path(__file__).parents[1] / "golden"
GOLDEN = Path(os.environ.get("ADAFOCUS_GOLDEN_DIR", HERE))
RELATIVE, OF_LARGEST = 1e-4, 3e-5
"""Numbers may differ by so much of themselves and of their tensor's largest magnitude: CPUs sum in different orders,
and what is near zero is a difference of larger numbers."""
NO_WEIGHTS = {"model.glancer_weights": "none", "model.focuser_weights": "none"}


def golden(pattern: str, slow: Collection[str] = ()) -> list[pytest.param]:
    """Files of a pattern; at least one, so that a wrong folder does not pass. Those named are marked slow."""
    files = sorted(GOLDEN.glob(pattern)) or sorted(HERE.glob(pattern))
    assert files, f"no {pattern} in {GOLDEN}"
    marks = {path: [pytest.mark.slow] * (path.stem in slow) for path in files}
    return [pytest.param(json.loads(path.read_text()), id=path.stem, marks=marks[path]) for path in files]


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """On the device that tensors are made on (fixture `each_device`)."""
    numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(np.asarray(numbers, dtype=np.float32)).to(torch.get_default_device())


@cache
def by_rule(name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of a parameter, from its name."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    r = noise(name, shape)
    if name.endswith("running_var"):
        return 1 + 0.1 * r.abs()
    if name.endswith("running_mean"):
        return 0.1 * r
    if len(shape) >= 2:
        return r * math.sqrt(2 / math.prod(shape[1:]))
    return 1 + 0.1 * r if name.endswith("weight") else 0.1 * r


def video(seed: str | int, clips: int, frames: int) -> Tensor:
    cells = noise(f"video/{seed}", (clips * frames, 3, 7, 7))
    pixels = F.interpolate(cells, size=(224, 224), mode="bilinear", align_corners=True) * 2
    return pixels.view(clips, frames, 3, 224, 224)


def assert_close(found: Tensor, wanted: list, largest: float = 0.0) -> None:
    """`largest` is the magnitude that counts, where `wanted` are differences of larger numbers."""
    numbers = torch.tensor(wanted, dtype=torch.float64)
    largest = largest or numbers.abs().max().item()
    torch.testing.assert_close(found.double(), numbers, rtol=RELATIVE, atol=OF_LARGEST * largest)


def assert_near(found: Tensor, wanted: list | float, tolerance: float, what: str = "") -> None:
    """Nowhere further off than so much of the largest magnitude."""
    numbers = torch.tensor(wanted, dtype=torch.float64)
    error = (found.detach().double() - numbers).abs().max().item()
    assert error <= tolerance * numbers.abs().max().item(), f"{what} is off by {error}"

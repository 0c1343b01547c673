"""Views agree with PIL's pixels, and boxes go where the pixels go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adafocus.data.transforms import View, evaluation_view, training_view

SCALES = (1.0, 0.875, 0.75, 0.66)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth random picture, uint8 (3, H, W)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (height // 8 + 2, width // 8 + 2, 3), np.uint8))
    return torch.from_numpy(np.array(small.resize((width, height), Image.Resampling.BICUBIC))).permute(2, 0, 1)


def with_pil(frame: torch.Tensor, view: View) -> np.ndarray:
    box = (view.left, view.top, view.left + view.width, view.top + view.height)
    image = Image.fromarray(frame.permute(1, 2, 0).numpy()).crop(box)
    image = image.resize(view.scaled[::-1], Image.Resampling.BILINEAR)
    top, left = view.window
    out = np.array(image)[top : top + view.side, left : left + view.side]
    return out[:, ::-1] if view.flip else out


def assert_alike(one: np.ndarray, other: np.ndarray) -> None:
    """Equal but for the rounding of two passes: nearly everywhere one step of 255 at most."""
    gap = np.abs(one.astype(int) - other.astype(int))
    assert gap.max() <= 2 and (gap > 1).mean() < 0.01


@given(st.integers(40, 200), st.integers(40, 200), st.integers(32, 64), st.integers(0, 40), st.booleans())
def test_evaluation_view_is_resize_and_centre_crop(height: int, width: int, crop: int, more: int, flip: bool) -> None:
    view = evaluation_view(height, width, crop + more, crop)
    assert min(view.scaled) == crop + more
    frame = picture(height, width)
    seen = view.apply(frame).permute(1, 2, 0).numpy()
    assert seen.shape == (crop, crop, 3)
    assert_alike(seen, with_pil(frame, view))


@given(st.integers(40, 300), st.integers(40, 300), st.integers(0, 2**32))
def test_training_view_stays_inside_and_keeps_near_square(height: int, width: int, seed: int) -> None:
    view = training_view(np.random.default_rng(seed), height, width, 64, SCALES, flip=True)
    assert 0 <= view.top <= height - view.height and 0 <= view.left <= width - view.width
    short = min(height, width)
    allowed = [min(64 if abs(int(short * scale) - 64) < 3 else int(short * scale), short) for scale in SCALES]
    assert abs(allowed.index(view.height) - allowed.index(view.width)) <= 1 or view.height == view.width
    frame = picture(height, width)
    assert_alike(view.apply(frame).permute(1, 2, 0).numpy(), with_pil(frame, view))


def test_training_views_vary_and_flip_only_if_allowed() -> None:
    rng = np.random.default_rng(0)
    views = [training_view(rng, 240, 320, 224, SCALES, flip=True) for _ in range(600)]
    assert len({(view.height, view.width) for view in views}) == 10  # 4 sides, neighbours allowed
    assert len({(view.top, view.left) for view in views if view.height == view.width == 158}) == 13
    assert 0.4 < np.mean([view.flip for view in views]) < 0.6
    assert not any(training_view(rng, 240, 320, 224, SCALES, flip=False).flip for _ in range(100))


def test_no_resampling_at_native_size() -> None:
    frame = picture(112, 150)
    view = evaluation_view(112, 150, 112, 112)
    assert torch.equal(view.apply(frame), frame[:, :, 19:131])
    whole = training_view(np.random.default_rng(0), 112, 112, 112, (1.0,), flip=False)
    assert torch.equal(whole.apply(picture(112, 112)), picture(112, 112))


@given(st.integers(0, 10**6), st.booleans())
def test_boxes_follow_the_pixels(seed: int, train: bool) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(120, 200, 2))
    top, left = (int(place) for place in rng.integers(30, 60, 2))
    frame = torch.zeros((3, height, width), dtype=torch.uint8)
    frame[:, top : top + 40, left : left + 30] = 255
    view = (
        training_view(rng, height, width, 96, SCALES, flip=True) if train else evaluation_view(height, width, 128, 96)
    )
    box = np.array([[top / height, left / width, (top + 40) / height, (left + 30) / width]])
    placed = view.place_boxes(box, height, width)[0]
    bright = np.argwhere(view.apply(frame)[0].numpy() > 127)
    if len(bright):
        found = np.array([*bright.min(0), *(bright.max(0) + 1)])
        assert np.abs(found - placed.clip(0, 96)).max() <= 1.0


@given(st.integers(100, 400), st.integers(100, 400), st.sampled_from([1, 0.875, 0.5]))
def test_scaling_only_what_is_needed_changes_nothing(height: int, width: int, share: float) -> None:
    for high, wide in ((height, width), (8 * (height // 8), 16 * (width // 16)), (360, 640)):
        view = evaluation_view(high, wide, 96, int(96 * share))
        frame = picture(high, wide)
        whole = F.interpolate(frame[None], size=view.scaled, mode="bilinear", antialias=True)[0]
        top, left = view.window
        assert torch.equal(view.apply(frame), whole[:, top : top + view.side, left : left + view.side])


def test_crop_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than the short side"):
        evaluation_view(100, 100, 64, 96)

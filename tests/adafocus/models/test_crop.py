import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.models.adafocus import AdaFocus
from adafocus.models.crop import (
    cell_corners,
    centre_corners,
    crop_patches,
    grid_corners,
    random_corners,
    scale_corners,
)


def test_grid_is_row_first_and_reaches_all_borders() -> None:
    corners = grid_corners(3, 224, 128)
    assert corners.tolist() == [[r, c] for r in (0, 48, 96) for c in (0, 48, 96)]
    assert corners.dtype == torch.int64


@given(st.integers(2, 12), st.integers(1, 64), st.integers(0, 64))
def test_grid_matches_its_formula(grid_size: int, patch_size: int, free: int) -> None:
    frame_size = patch_size + free
    wanted = [index * free // (grid_size - 1) for index in range(grid_size)]
    corners = grid_corners(grid_size, frame_size, patch_size)
    assert corners.tolist() == [[r, c] for r in wanted for c in wanted]
    actions = torch.arange(grid_size**2).view(grid_size, grid_size)
    assert torch.equal(cell_corners(actions, grid_size, frame_size, patch_size).flatten(0, 1), corners)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 9), st.booleans(), st.integers(0, 2**31))
def test_crop_equals_slicing(images: int, patch_size: int, free: int, channels_last: bool, seed: int) -> None:
    side = patch_size + free
    frames = torch.randint(256, (images, 3, side, side), dtype=torch.uint8)
    if channels_last:
        frames = frames.contiguous(memory_format=torch.channels_last)
    corners = random_corners((images,), side, patch_size, generator=torch.Generator().manual_seed(seed))
    patches = crop_patches(frames, corners, patch_size)
    assert patches.dtype == torch.uint8
    for frame, (row, column), patch in zip(frames, corners.tolist(), patches, strict=True):
        assert torch.equal(patch, frame[:, row : row + patch_size, column : column + patch_size])


def test_random_corners_reach_both_ends_evenly() -> None:
    corners = random_corners((20_000,), 12, 8, generator=torch.Generator().manual_seed(0))
    counts = corners[:, 0].bincount(minlength=5)
    assert counts.shape == (5,)  # 0 to H - P = 4, both included
    assert (counts - 4000).abs().max() < 300


def test_positions_scale_to_the_free_range() -> None:
    position = torch.tensor([[0.0, 1.0], [0.5, 0.999]])
    assert scale_corners(position, 224, 96).tolist() == [[0, 128], [64, 127]]


def test_centre() -> None:
    assert centre_corners((2, 3), 224, 96).tolist() == [[[64, 64]] * 3] * 2


@pytest.mark.parametrize("patch_size", [0, 225])
def test_patches_fit_their_frames(patch_size: int) -> None:
    with pytest.raises(ValueError, match="patch_size"):
        grid_corners(7, 224, patch_size)


def test_a_grid_has_two_cells_per_axis() -> None:
    with pytest.raises(ValueError, match="grid_size is 1"):
        grid_corners(1, 224, 96)


def test_a_differentiable_crop_takes_its_place() -> None:
    """As AdaFocusV2 does: bilinear sampling at any position, equal to ours at whole pixels, with a gradient for it."""

    class Smooth(AdaFocus):
        def crop(self, frames_BTCHW: Tensor, corners_BS2: Tensor) -> Tensor:
            side, patch = frames_BTCHW.shape[-1], self.config.model.patch_size
            corners_N2 = corners_BS2.flatten(0, 1).float()
            pixels_NP2 = corners_N2[:, None, :] + torch.arange(patch)[None, :, None] + 0.5
            place_NP2 = 2 * pixels_NP2 / side - 1
            rows, columns = place_NP2.unbind(-1)
            grid_NPP2 = torch.stack(
                [columns[:, None, :].expand(-1, patch, -1), rows[:, :, None].expand(-1, -1, patch)], -1
            )
            images = self.prepare(frames_BTCHW).flatten(0, 1)
            patches = F.grid_sample(images, grid_NPP2, align_corners=False)
            return patches.unflatten(0, corners_BS2.shape[:2])

    changes = {"model.glancer": "tiny_glance", "model.focuser": "tiny", "data.crop": 32, "model.patch_size": 12}
    small = {"model.glance_size": 16, "data.num_frames": 3, "data.num_focus_frames": 3, "model.policy_hidden": 8}
    none = {"model.glancer_weights": "none", "model.focuser_weights": "none", "model.classifier_hidden": 8}
    config = override(Config(), {**changes, **small, **none})
    torch.manual_seed(0)
    smooth, hard = Smooth(config, 4).eval(), AdaFocus(config, 4).eval()
    hard.load_state_dict(smooth.state_dict())
    frames = torch.randint(256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(smooth(frames, frames).logits_BTK, hard(frames, frames).logits_BTK, rtol=1e-3, atol=1e-4)
    corners = torch.rand(2, 3, 2).mul(20).requires_grad_()
    glance = smooth.glance(frames)
    smooth.classify(glance, smooth.focus(smooth.crop(frames, corners)))[:, -1, 0].sum().backward()
    assert corners.grad is not None and (corners.grad != 0).any(-1).all()

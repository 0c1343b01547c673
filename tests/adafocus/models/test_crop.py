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
    crop_between,
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


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(2, 12), st.integers(1, 9), st.integers(0, 2**31))
def test_whole_pixels_between_are_slices(images: int, patch_size: int, free: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(256, (images, 3, patch_size + free, patch_size + free), generator=generator).byte()
    corners = random_corners((images,), patch_size + free, patch_size, generator=generator)
    patches = crop_between(frames, corners, patch_size)
    assert torch.equal(patches, crop_patches(frames, corners, patch_size).float())
    assert torch.equal(patches, crop_between(frames, corners.float(), patch_size))


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(2, 12), st.integers(1, 9), st.integers(0, 2**31))
def test_patches_between_pixels_and_their_gradient_are_those_of_a_sampled_grid(
    images: int, patch_size: int, free: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    side = patch_size + free
    frames = torch.rand(images, 3, side, side, generator=generator, dtype=torch.float64).float()
    position = (0.01 + 0.98 * torch.rand(images, 2, generator=generator)).requires_grad_()
    weights = torch.rand(images, 3, patch_size, patch_size, generator=generator)

    def sampled() -> Tensor:
        centre = -1 + (2 * position * free + patch_size) / side
        scale = torch.full((images,), patch_size / side)
        zero = torch.zeros(images)
        rows = [torch.stack([scale, zero, centre[:, 1]], 1), torch.stack([zero, scale, centre[:, 0]], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), [images, 3, patch_size, patch_size], align_corners=False)
        return F.grid_sample(frames, grid, align_corners=False)

    found, wanted = crop_between(frames, position * free, patch_size), sampled()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    near_a_pixel = ((position * free).detach() % 1 - 0.5).abs().max() > 0.49  # where a grid may round to the other side
    if not near_a_pixel:
        gradients = [torch.autograd.grad((patches * weights).sum(), position)[0] for patches in (found, wanted)]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-2)


def test_a_patch_as_large_as_the_frame_is_the_frame() -> None:
    frames, corners = torch.rand(2, 3, 8, 8), torch.zeros(2, 2, requires_grad=True)
    patches = crop_between(frames, corners, 8)
    assert torch.equal(patches, frames)
    patches.sum().backward()
    assert torch.equal(corners.grad, torch.zeros(2, 2))

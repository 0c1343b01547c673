import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adafocus.models.patches import (
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

"""Where patches lie and how they are cut out: frames and corners in, patches out, in one gather.

A corner is (row, column) of a patch's top left pixel, 0 <= corner <= H - P, both ends included. Corners are whole
pixels (int64), or lie between them (float32; AdaFocusV2). A box (top, left, height, width) may be of another size than
the patch that is made of it (Uni-AdaFocus).

Shapes: N images, C colours, H W pixels, P patch side, k cells of the grid per axis.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def grid_corners(grid_size: int, frame_size: int, patch_size: int) -> Tensor:
    """Corners int64 (k*k, 2) of the action grid, row first: index * (H - P) // (k - 1) per axis."""
    return cell_corners(torch.arange(grid_size**2), grid_size, frame_size, patch_size)


def cell_corners(action: Tensor, grid_size: int, frame_size: int, patch_size: int) -> Tensor:
    """Grid actions int64 (...) -> corners int64 (..., 2), by arithmetic on the actions' device.

    Raises ValueError if the patch exceeds the frame or the grid has fewer than 2 cells per axis.
    """
    check_sizes(frame_size, patch_size)
    if grid_size < 2:
        raise ValueError(f"grid_size is {grid_size}, but a grid has at least 2 corners per axis")
    cell = torch.stack([action // grid_size, action % grid_size], -1)
    return cell * (frame_size - patch_size) // (grid_size - 1)


def scale_corners(position: Tensor, frame_size: int, patch_size: int) -> Tensor:
    """Positions in [0, 1] (..., 2) as shares of the free range H - P -> int64 corners, rounded down."""
    check_sizes(frame_size, patch_size)
    return (position * (frame_size - patch_size)).floor().long()


def random_corners(
    shape: tuple[int, ...],
    frame_size: int,
    patch_size: int,
    *,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Uniform int64 corners (*shape, 2), every corner from 0 to H - P alike.

    The reference never draws the last one, H - P; here the patch reaches all four borders of the frame. With a
    generator the numbers come from its device, then move.
    """
    check_sizes(frame_size, patch_size)
    source = device if generator is None else generator.device
    corners = torch.randint(frame_size - patch_size + 1, (*shape, 2), device=source, generator=generator)
    return corners.to(device, non_blocking=True)


def centre_corners(
    shape: tuple[int, ...], frame_size: int, patch_size: int, *, device: torch.device | str = "cpu"
) -> Tensor:
    """The corner of the central patch, int64 (*shape, 2)."""
    check_sizes(frame_size, patch_size)
    return torch.full((*shape, 2), (frame_size - patch_size) // 2, device=device)


def crop_patches(frames_NCHW: Tensor, corners_N2: Tensor, patch_size: int, images_N: Tensor | None = None) -> Tensor:
    """Cut one patch out of each image, or of those with these numbers -> patches_NCPP, same dtype.

    One gather out of the view of all patches: no loop over images, nothing read back from the device. Corners are not
    checked, for that would wait for the device; they come from the functions above.
    """
    every_NCyxPP = frames_NCHW.unfold(2, patch_size, 1).unfold(3, patch_size, 1)  # a view: nothing is copied
    if images_N is None:
        images_N = torch.arange(frames_NCHW.shape[0], device=frames_NCHW.device)
    return every_NCyxPP[images_N, :, corners_N2[:, 0], corners_N2[:, 1]]


def crop_between(frames_NCHW: Tensor, corners_N2: Tensor, patch_size: int) -> Tensor:
    """Patches at corners with fractions of pixels, float32 patches_NCPP: bilinear, with a gradient to the corners.

    Output pixel i reads input place corner + i, which is what `affine_grid` and `grid_sample` give; only the pixels
    around the patch are touched. Corners are in [0, H - P], whole pixels too.
    """
    corners_N2 = corners_N2.float()
    free = frames_NCHW.shape[-1] - patch_size
    if free == 0:  # then a corner is 0, and no pixel beside it could give it a gradient
        return frames_NCHW.float() + 0 * corners_N2.sum()
    first_N2 = corners_N2.detach().floor().clamp(0, free - 1)  # at H - P it is the pixel before, with all of the weight
    around_NCQQ = crop_patches(frames_NCHW, first_N2.long(), patch_size + 1).float()
    share_N211 = (corners_N2 - first_N2)[..., None, None]
    above, below = around_NCQQ[:, :, :-1], around_NCQQ[:, :, 1:]
    rows_NCPQ = torch.lerp(above, below, share_N211[:, :1])
    return torch.lerp(rows_NCPQ[..., :-1], rows_NCPQ[..., 1:], share_N211[:, 1:])


def crop_resized(frames_NCHW: Tensor, boxes_N4: Tensor, patch_size: int) -> Tensor:
    """Boxes float32 (top, left, height, width) of images, resized to patches_NCPP: bilinear, with a gradient to the
    boxes. Row i of a patch reads row top + (i + 1/2) height / P - 1/2; outside the image there are zeros."""
    steps_P = (torch.arange(patch_size, device=boxes_N4.device) + 0.5) / patch_size
    rows_NP = boxes_N4[:, :1] + steps_P * boxes_N4[:, 2:3]
    columns_NP = boxes_N4[:, 1:2] + steps_P * boxes_N4[:, 3:]
    height, width = frames_NCHW.shape[-2:]
    shape = (len(boxes_N4), patch_size, patch_size)
    places = [
        (2 / width * columns_NP - 1)[:, None, :].expand(shape),
        (2 / height * rows_NP - 1)[:, :, None].expand(shape),
    ]
    grid_NPP2 = torch.stack(places, -1).to(frames_NCHW.dtype)
    return F.grid_sample(frames_NCHW, grid_NPP2, align_corners=False)


def patch_covers(corners_BS2: Tensor, patch_size: int | Tensor, boxes_BT4: Tensor) -> Tensor:
    """Share of the box (top, left, bottom, right, in pixels) that lies in the patch, float32 (B, T): intersection over
    box."""
    shared_BT2 = (corners_BS2 + patch_size).minimum(boxes_BT4[..., 2:]) - corners_BS2.maximum(boxes_BT4[..., :2])
    return shared_BT2.clamp(min=0).prod(-1) / (boxes_BT4[..., 2:] - boxes_BT4[..., :2]).prod(-1)


def patch_holds(corners_BS2: Tensor, patch_size: int | Tensor, boxes_BT4: Tensor) -> Tensor:
    """Does the patch hold the whole box (top, left, bottom, right, in pixels)? bool (B, T). Its size is one number, or
    (height, width) of each (B, S, 2)."""
    ends_BS2 = corners_BS2 + patch_size
    # Half a pixel of grace: boxes went through scaling and rounding.
    inside_BT2 = (corners_BS2 <= boxes_BT4[..., :2] + 0.5) & (ends_BS2 >= boxes_BT4[..., 2:] - 0.5)
    return inside_BT2.all(-1)


def check_sizes(frame_size: int, patch_size: int) -> None:
    """Raises ValueError unless 0 < P <= H."""
    if not 0 < patch_size <= frame_size:
        raise ValueError(f"patch_size is {patch_size}, but frames have {frame_size} pixels a side")

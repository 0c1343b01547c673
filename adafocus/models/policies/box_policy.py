"""The spatial policy of Uni-AdaFocus: the glancer's maps of a clip in, a box of its own place and size for each out.

An action is four numbers in [0, 1]: where the box lies, as shares of the free range (row, column), and how much larger
than the smallest one it is (height, width). Boxes do not learn through the focuser: the glancer's map is cut to the
same box and has to be recognisable by itself, and a regulariser pulls sizes up.

Shapes: B clips, G glances, S actions of a clip (G, or 1 for the whole clip), D channels, h w map cells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adafocus.models.crop import check_sizes, crop_resized


class BoxPolicy(nn.Module):
    """Four convolutions over time and space; the last one spans the whole map, and as many glances as an action has."""

    def __init__(self, num_features: int, num_channels: int, map_size: tuple[int, int], num_glances: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_block(num_features, num_channels, 1),
            *_block(num_channels, num_channels, 3),
            *_block(num_channels, num_channels, 3),
            nn.Conv3d(num_channels, 4, (num_glances, *map_size), bias=False),
        )

    def forward(self, map_BGDhw: Tensor) -> Tensor:
        """Actions float32 (B, S, 4)."""
        raw_B4S11 = self.layers(map_BGDhw.transpose(1, 2))
        return raw_B4S11[..., 0, 0].transpose(1, 2).float().sigmoid()


def _block(before: int, after: int, side: int) -> list[nn.Module]:
    convolution = nn.Conv3d(before, after, side, padding=side // 2, bias=False)
    return [convolution, nn.BatchNorm3d(after), nn.ReLU(inplace=True)]


def boxes_of(action: Tensor, frame_size: int, smallest: int) -> Tensor:
    """Actions -> boxes (top, left, height, width) in pixels, both float32 (..., 4)."""
    check_sizes(frame_size, smallest)
    size = smallest + (frame_size - smallest) * action[..., 2:]
    return torch.cat([action[..., :2] * (frame_size - size), size], -1)


def actions_of_frames(action_BS4: Tensor, num_frames: int) -> Tensor:
    """Actions of glances, linearly interpolated to all candidate frames: (B, frames, 4)."""
    return F.interpolate(action_BS4.transpose(1, 2), num_frames, mode="linear").transpose(1, 2)


def actions_at(action_BS4: Tensor, places_BF: Tensor, num_frames: int) -> Tensor:
    """Of the actions of all candidate frames, those of the frames at these places: (B, F, 4)."""
    action_BN4 = actions_of_frames(action_BS4, num_frames)
    return action_BN4.gather(1, places_BF.unsqueeze(-1).expand(-1, -1, 4))


def crop_map(map_BGDhw: Tensor, action_BS4: Tensor, frame_size: int, smallest: int, patch_size: int) -> Tensor:
    """The maps cut to the boxes of the same actions, (B, G, D, q, q): as many cells as a patch of `patch_size` has."""
    cells = map_BGDhw.shape[-1]
    kept = max(round(patch_size * cells / frame_size - 1e-9), 1)
    box_BS4 = boxes_of(action_BS4, frame_size, smallest) * (cells / frame_size)
    box_BG4 = box_BS4.expand(*map_BGDhw.shape[:2], 4)
    return crop_resized(map_BGDhw.flatten(0, 1), box_BG4.flatten(0, 1), kept).unflatten(0, map_BGDhw.shape[:2])

"""AdaFocusV2's own: frames one by one, what a position's gradient reaches, a crop of uint8 and of prepared frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.inference.online import OnlineClip
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from adafocus.models.outputs import State
from helpers.networks import settle
from helpers.tiny import PER_CLIP


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return override(tiny_config, {"method": "adafocus-v2", "model.reuse_glance": True})


@pytest.fixture
def model(config: Config) -> AdaFocus:
    torch.manual_seed(0)
    return build_model(config, 5).eval()


def frames_of(config: Config, clips: int = 2) -> torch.Tensor:
    shape = (clips, config.data.num_frames, 3, config.data.crop, config.data.crop)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1)).byte()


@torch.no_grad()
def test_frame_by_frame_is_the_whole_clip(model: AdaFocus, config: Config) -> None:
    frames = frames_of(config)
    whole, state = model(frames, frames), State()
    for step in range(config.data.num_frames):
        one = frames[:, step : step + 1]
        output = model(one, one, state=state)
        state = output.state
        torch.testing.assert_close(output.prediction_BK, whole.logits_BTK[:, step], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.corners_BT2[:, 0], whole.corners_BT2[:, step], rtol=1e-4, atol=1e-4)


def test_more_frames_than_last_layers_are_refused(model: AdaFocus, config: Config) -> None:
    clip, frame = OnlineClip(model), np.zeros((48, 64, 3), np.uint8)
    for _ in range(config.data.num_frames):
        assert clip.push(frame).corner[0] <= config.data.crop - config.model.patch_size
    with pytest.raises(ValueError, match="at most 4 frames"):
        clip.push(frame)


@torch.no_grad()
def test_a_crop_is_the_same_of_pixels_and_of_prepared_frames(model: AdaFocus, config: Config) -> None:
    frames = frames_of(config)
    corners = torch.rand(2, config.data.num_frames, 2) * (config.data.crop - config.model.patch_size)
    torch.testing.assert_close(model.crop(frames, corners), model.crop(model.prepare(frames), corners))


@pytest.mark.parametrize("changes", [{}, PER_CLIP], ids=["per frame", "per clip"])
def test_the_policy_learns_by_the_crop_alone(config: Config, changes: dict[str, object]) -> None:
    """And the glancer nothing of it: whatever is made of patches reaches the policy, and stops there."""
    model = build_model(override(config, changes), 5)
    settle(model)
    frames = frames_of(model.config)
    focus = frames.repeat(1, 2, 1, 1, 1)[:, : model.config.data.num_focus_frames]
    glance = model.glance(frames)
    corners = model.choose(glance).corners_BS2
    model.focuser(model.crop(focus, corners).flatten(0, 1)).square().sum().backward()
    reached = {name for name, part in model.named_children() if any(p.grad is not None for p in part.parameters())}
    assert reached == {"policy", "focuser"}

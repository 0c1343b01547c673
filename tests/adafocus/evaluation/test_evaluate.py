"""Where patches lie that are cut around the object's own box, and how often a patch holds the object."""

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.data.loader import ClipLoader
from adafocus.evaluation.evaluate import evaluate, oracle_corners, predict_batch
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from adafocus.models.crop import patch_covers, patch_holds


def model_of(config: Config, **changes: object) -> AdaFocus:
    return build_model(override(config, {"data.num_frames": 4, "data.num_focus_frames": 4, **changes}), 5).eval()


def batch_with(model: AdaFocus, boxes_BT4: Tensor | None) -> Batch:
    side = model.config.data.crop
    frames = torch.zeros(2, 4, 3, side, side, dtype=torch.uint8)
    return Batch(frames, frames, torch.zeros(2, 1, dtype=torch.int64), ["a", "b"], boxes_BT4)


def test_oracle_patches_hold_every_object_that_fits_into_them(tiny_config: Config) -> None:
    model = model_of(tiny_config)
    side, patch = model.config.data.crop, model.config.model.patch_size
    generator = torch.Generator().manual_seed(0)
    start_BT2 = torch.rand(2, 4, 2, generator=generator) * (side - patch / 2)
    batch = batch_with(model, torch.cat([start_BT2, start_BT2 + patch / 2], -1))
    corners_BS2 = oracle_corners(model, batch)
    assert patch_holds(corners_BS2, patch, batch.boxes_BT4).all()
    assert corners_BS2.min() >= 0 and corners_BS2.max() <= side - patch
    answer = predict_batch(model, batch, "oracle")
    logits_BTK, used_BS2 = answer.logits_BTK, answer.choice.corners_BS2
    assert logits_BTK.shape == (2, 4, 5) and torch.equal(used_BS2, corners_BS2)


def test_oracle_patches_of_frames_without_the_object_are_central(tiny_config: Config) -> None:
    model = model_of(tiny_config)
    side, patch = model.config.data.crop, model.config.model.patch_size
    boxes_BT4 = torch.zeros(2, 4, 4)
    boxes_BT4[0, 1] = torch.nan
    corners_BS2 = oracle_corners(model, batch_with(model, boxes_BT4))
    central = torch.tensor((side - patch) / 2).round().long()
    assert (corners_BS2[0, 1] == central).all() and (corners_BS2[1] == 0).all()


def test_one_oracle_patch_for_a_clip_lies_around_the_mean_of_its_boxes(tiny_config: Config) -> None:
    changes = {"model.action_per": "clip", "model.classifier": "average"}
    model = model_of(tiny_config, **changes)
    patch = model.config.model.patch_size
    boxes_BT4 = torch.tensor([[2.0, 4, 2 + patch, 4 + patch], [6.0, 8, 6 + patch, 8 + patch]]).repeat(2, 2, 1)
    assert oracle_corners(model, batch_with(model, boxes_BT4)).tolist() == [[[4, 6]], [[4, 6]]]


def test_there_is_no_oracle_without_boxes(tiny_config: Config) -> None:
    model = model_of(tiny_config)
    with pytest.raises(ValueError, match="no boxes"):
        oracle_corners(model, batch_with(model, None))


class Clips(list[Batch]):
    """Batches that `evaluate` takes for a loader."""

    @property
    def clip_ids(self) -> list[str]:
        return [clip_id for batch in self for clip_id in batch.clip_ids]


def test_frames_and_clips_without_the_object_do_not_count(tiny_config: Config) -> None:
    model = model_of(tiny_config)
    side, patch = model.config.data.crop, model.config.model.patch_size
    corner = round((side - patch) / 2)
    inside = torch.tensor([corner, corner, corner + patch / 2, corner + patch])
    half = inside + torch.tensor([0, patch / 2, 0, patch / 2])
    boxes_BT4 = torch.full((2, 4, 4), torch.nan)
    boxes_BT4[0, 1], boxes_BT4[0, 2] = inside, half
    known, unknown = batch_with(model, boxes_BT4), batch_with(model, torch.full((2, 4, 4), torch.nan))
    unknown = replace(unknown, clip_ids=["c", "d"])
    predictions = evaluate(model, cast(ClipLoader, Clips([known, unknown])), patches="centre")
    metrics = predictions.metrics()
    assert metrics["hit_rate"] == pytest.approx(50) and metrics["covered"] == pytest.approx(75)
    assert predictions.table()["hit"].to_pylist() == [0.5, None, None, None]
    nothing = evaluate(model, cast(ClipLoader, Clips([unknown])), patches="centre").metrics()
    assert "hit_rate" not in nothing and "covered" not in nothing


def test_how_much_of_a_box_a_patch_covers() -> None:
    boxes_BT4 = torch.tensor([[[0.0, 0, 10, 10], [5, 5, 15, 25], [20, 20, 30, 30]]])
    corners_BS2 = torch.tensor([[[0, 0]]]).expand(1, 3, 2)
    assert torch.allclose(patch_covers(corners_BS2, 10, boxes_BT4), torch.tensor([[1.0, 0.125, 0.0]]))

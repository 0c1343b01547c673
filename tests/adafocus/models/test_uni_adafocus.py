"""Uni-AdaFocus's own: exits one by one, what is chosen and shown, what each loss reaches, what does not fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.data.loader import ClipLoader
from adafocus.data.sampling import clip_frames
from adafocus.evaluation.evaluate import evaluate
from adafocus.methods import build_model, check
from adafocus.methods.uni_adafocus import UNI_ADAFOCUS
from adafocus.models.crop import patch_holds
from adafocus.models.frame_source import TensorFrames
from adafocus.models.outputs import State
from adafocus.models.policies.box_policy import crop_map
from adafocus.models.policies.frame_policy import choose_places, expected_logits
from adafocus.models.uni_adafocus import UniAdaFocus
from helpers.networks import settle
from helpers.tiny import PER_CLIP, UNI
from preprocessing.schema import UserError

KINDS: dict[str, dict[str, object]] = {"per frame": UNI, "per clip": {**PER_CLIP, **UNI}}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tiny_config: Config) -> UniAdaFocus:
    torch.manual_seed(0)
    found = build_model(override(tiny_config, KINDS[request.param]), 5)
    settle(found)
    assert isinstance(found, UniAdaFocus)
    return found


@pytest.fixture
def batch(model: UniAdaFocus, make_batch: Callable[..., Batch]) -> Batch:
    return make_batch(model.config, 3, 5, 1)


@torch.no_grad()
def test_exits_one_by_one_are_those_of_the_whole_pass(model: UniAdaFocus, batch: Batch) -> None:
    whole = model(batch.glance_BTCHW, batch.focus_BTCHW)
    exits = len(model.exit_frames)
    assert whole.logits_BTK.shape == (3, exits, 5)
    for portions in ([range(each, each + 1) for each in range(exits)], [range(0, 1), range(1, exits)], [range(exits)]):
        state, logits, corners = State(), [], []
        for portion in portions:
            output = model.advance(TensorFrames(batch.glance_BTCHW, batch.focus_BTCHW), portion, state)
            state = output.state
            assert state.glance is not None and state.glance.map_BTDhw.shape[1] == (4 if state.choice is None else 0)
            logits.append(output.logits_BTK)
            corners.append(output.corners_BT2)
        torch.testing.assert_close(torch.cat(logits, 1), whole.logits_BTK, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.cat(corners, 1), whole.corners_BT2)


@torch.no_grad()
@pytest.mark.parametrize("reuses", [False, True])
def test_glances_are_reused_as_configured(reuses: bool, tiny_config: Config, make_batch: Callable[..., Batch]) -> None:
    model = build_model(override(tiny_config, {**UNI, "model.reuse_glance": reuses}), 5)
    settle(model)
    batch = make_batch(model.config, 3, 5, 1)
    seen = model.look(batch.glance_BTCHW, batch.focus_BTCHW)
    focus_BTD, other = model.focus(seen.patches_BTCPP), model.glance(batch.glance_BTCHW.flip(0))
    left_BXK, right_BXK = (model.classify(glance, focus_BTD) for glance in (seen.glance, other))
    assert not torch.equal(left_BXK[:, 0], right_BXK[:, 0])  # after the glances
    assert torch.equal(left_BXK[:, 1:], right_BXK[:, 1:]) != reuses


@torch.no_grad()
def test_patches_are_of_the_chosen_frames_alone(model: UniAdaFocus, batch: Batch) -> None:
    whole = model(batch.glance_BTCHW, batch.focus_BTCHW)
    places_BF = whole.choice.places_BF
    assert places_BF is not None and (places_BF.diff() > 0).all()
    other = torch.zeros_like(batch.focus_BTCHW)
    for clip, places_F in enumerate(places_BF):
        other[clip, places_F] = batch.focus_BTCHW[clip, places_F]
    assert torch.equal(model(batch.glance_BTCHW, other).logits_BTK, whole.logits_BTK)
    other[0, places_BF[0, -1]] += 100
    assert not torch.equal(model(batch.glance_BTCHW, other).prediction_BK[0], whole.prediction_BK[0])


@torch.no_grad()
def test_weights_move_looks_in_time() -> None:
    even = torch.full((1, 4), 0.25)
    assert choose_places(even, 12, 4).tolist() == [[1, 4, 7, 10]]
    late = torch.tensor([[0.0001, 0.0001, 0.0001, 0.9997]])
    assert choose_places(late, 12, 4).tolist() == [[8, 9, 10, 11]]  # the last ones that there are
    early = choose_places(late.flip(1), 12, 4, torch.zeros(1, 4))
    assert early.tolist() == [[0, 1, 2, 3]], "a draw of nothing is the first frame"


@torch.no_grad()
def test_boxes_stay_inside_the_frame_and_random_patches_have_the_patch_s_size(model: UniAdaFocus, batch: Batch) -> None:
    choice = model.choose(model.glance(batch.glance_BTCHW))
    sizes, crop = choice.sizes_BS2, model.config.data.crop
    assert sizes is not None and (sizes >= model.config.model.smallest_patch).all() and (sizes <= crop).all()
    assert (choice.corners_BS2 >= 0).all() and (choice.corners_BS2 + sizes <= crop + 1e-4).all()
    random = model.choose(model.glance(batch.glance_BTCHW), "random")
    assert random.sizes_BS2 is None and random.places_BF is not None
    assert len({tuple(row) for row in random.places_BF.tolist()}) == 1, "evenly spread in every clip"


def test_what_each_loss_reaches(model: UniAdaFocus, batch: Batch) -> None:
    stage = UNI_ADAFOCUS.stage("unified")(model, model.config).train()
    losses, _ = stage.losses(stage.collect(batch))
    reached = {}
    for name, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        reached[name] = {key.split(".layers")[0] for key, value in model.named_parameters() if value.grad is not None}
        reached[name] = {".".join(key.split(".")[:2]) for key in reached[name]}
    per_frame = model.acts_per_frame
    assert reached["boxes_loss"] == {"policy.boxes", "policy.judge"} and reached["size"] == {"policy.boxes"}
    glancer = {"glancer.body", "glancer.last"}
    assert reached["frames_loss"] == {"policy.frames"} | (glancer if per_frame else set())
    assert reached["glancer_loss"] == glancer
    for name in ("policy_loss", "random_loss"):
        assert not any(key.startswith("policy") for key in reached[name]), "patches teach no policy"
        assert ("focuser.body" in reached[name]) == per_frame


def test_glances_are_among_the_candidates(tiny_config: Config) -> None:
    data = override(tiny_config, UNI).data
    for count in (1, 5, 12, 30):
        glance, focus = clip_frames(data, count)
        assert len(focus) == 12 and (np.diff(focus) >= 0).all() and focus[-1] < count
        assert glance.tolist() == focus[1::3].tolist()
        seen = [clip_frames(data, count, rng=np.random.default_rng(seed)) for seed in range(20)]
        for glance, focus in seen:
            assert all(glance[i] in focus[3 * i : 3 * i + 3] for i in range(4)) and (np.diff(focus) >= 0).all()
        assert count == 1 or len({tuple(glance) for glance, _ in seen}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_is_evaluated(kind: str, tiny_config: Config, synthetic_shards: str) -> None:
    config = override(tiny_config, KINDS[kind])
    torch.manual_seed(0)
    model = build_model(config, 10).eval()
    loader = ClipLoader(synthetic_shards, "val", config.data, batch_size=4, train=False)
    for patches in ("policy", "random", "centre", "oracle", "glancer", "whole"):
        found = evaluate(model, loader, patches=patches)
        values = found.metrics()
        assert (patches in ("glancer", "whole")) == (found.places_NF is None) == ("hit_rate" not in values)
        assert found.logits_NTK.shape[1] == (
            len(model.exit_frames)
            if found.places_NF is not None
            else config.data.num_frames
            if patches == "glancer"
            else config.data.num_focus_frames
        )
    oracle = evaluate(model, loader, patches="oracle").metrics()["hit_rate"]
    assert oracle > evaluate(model, loader, patches="random").metrics()["hit_rate"]


def test_a_box_holds_what_lies_in_it() -> None:
    corners, sizes = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[20.0, 10.0]]])
    boxes = torch.tensor([[[2.0, 2.0, 18.0, 9.0], [2.0, 2.0, 9.0, 18.0]]])
    assert patch_holds(corners, sizes, boxes).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data.num_candidates": 0}, "chooses frames, but data.num_candidates is 0"),
        ({"method": "adafocus-v2"}, "chooses no frames: set it to 0"),
        ({"data.num_candidates": 10}, "has to be a multiple of data.num_frames = 4"),
        ({"data.num_candidates": 3}, "have to be chosen"),
        ({"model.smallest_patch": 17}, "at most model.patch_size = 16"),
        ({"data.frame_order": "spread"}, "set data.frame_order=time"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tiny_config: Config, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        check(override(tiny_config, {**UNI, **changes}))


def test_a_glancer_may_widen_its_map_before_it_pools(tiny_config: Config, make_batch: Callable[..., Batch]) -> None:
    changes = {"model.glancer": "timm/mobilenetv3_small_050", "model.glancer_weights": "none"}
    model = build_model(override(tiny_config, {**UNI, **changes}), 5).eval()
    assert isinstance(model, UniAdaFocus) and model.glancer.num_channels != model.glancer.num_features
    batch = make_batch(model.config, 2, 5, 1)
    glance = model.glance(batch.glance_BTCHW)
    assert model.judged_map(glance, model.actions(glance)).shape == (2, 5)


@pytest.mark.parametrize("glances", [1, 2])
def test_few_glances_give_finite_losses(glances: int, tiny_config: Config, make_batch: Callable[..., Batch]) -> None:
    changes = {**UNI, "data.num_frames": glances, "data.num_focus_frames": 2, "data.num_candidates": 4}
    config = override(tiny_config, changes)
    stage = UNI_ADAFOCUS.stage("unified")(build_model(config, 5), config).train()
    loss, _ = stage(stage.collect(make_batch(config, 3, 5, 1)))
    assert loss.isfinite()


def test_a_weight_of_nothing_left_is_no_nan() -> None:
    weight_BG = torch.tensor([[1.0, 0.0, 0.0]])
    without_INBG = torch.tensor([[[[True, False, False]]]])
    assert expected_logits(torch.randn(1, 3, 5), weight_BG, without_INBG).isfinite().all()


@pytest.mark.parametrize(
    ("cells", "frame_size", "patch_size"), [(5, 112, 44), (2, 112, 44), (3, 224, 80), (7, 224, 128)]
)
def test_the_whole_frame_is_the_whole_map(cells: int, frame_size: int, patch_size: int) -> None:
    """Nothing of it lies outside, where zeros are read."""
    cut = crop_map(torch.ones(1, 1, 2, cells, cells), torch.ones(1, 1, 4), frame_size, patch_size, patch_size)
    torch.testing.assert_close(cut, torch.ones_like(cut))

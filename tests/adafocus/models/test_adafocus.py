import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from adafocus.config.overrides import override
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from adafocus.models.outputs import Output
from pipelines.recipes.something_something import ssv1_144
from pipelines.recipes.untrimmed import activitynet_128
from preprocessing.schema import UserError

TINY = {
    "data.num_frames": 4,
    "data.num_focus_frames": 4,
    "data.crop": 32,
    "model.glancer": "tiny",
    "model.focuser": "tiny",
    "model.glancer_weights": "none",
    "model.focuser_weights": "none",
    "model.glance_size": 32,
    "model.patch_size": 16,
    "model.policy_channels": 4,
    "model.policy_hidden": 16,
    "model.classifier_hidden": 16,
}
REGIMES = {
    "frame": override(activitynet_128(), TINY),
    "clip": override(ssv1_144(), TINY | {"data.num_focus_frames": 6}),
}


def make(regime: str = "frame", seed: int = 0, **changes: object) -> AdaFocus:
    torch.manual_seed(seed)
    return build_model(override(REGIMES[regime], changes), 5).eval()


def frames(model: AdaFocus, clips: int = 2, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    data = model.config.data
    first, second = (
        torch.randint(256, (clips, count, 3, data.crop, data.crop), dtype=torch.uint8, generator=generator)
        for count in (data.num_frames, data.num_focus_frames)
    )
    return (first, first) if model.shares_frames else (first, second)


@pytest.mark.parametrize("patches", ["policy", "random", "centre"])
@pytest.mark.parametrize("classifier", ["gru", "linear", "average"])
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("regime", REGIMES)
@torch.no_grad()
def test_every_combination_runs(regime: str, reuse: bool, classifier: str, patches: str) -> None:
    model = make(regime, **{"model.classifier": classifier, "model.reuse_glance": reuse})
    output = model(*frames(model), patches)
    focus_frames = model.config.data.num_focus_frames
    assert output.logits_BTK.shape == (2, focus_frames, 5)
    assert torch.equal(output.prediction_BK, output.logits_BTK[:, -1])
    assert output.corners_BT2.shape == (2, focus_frames, 2)
    assert output.corners_BT2.min() >= 0 and output.corners_BT2.max() <= 32 - 16


@pytest.mark.parametrize("regime", REGIMES)
@torch.no_grad()
def test_clips_do_not_mix(regime: str) -> None:
    model = make(regime)
    both = frames(model)
    whole, first = model(*both), model(*(part[:1] for part in both))
    torch.testing.assert_close(whole.logits_BTK[:1], first.logits_BTK)


@pytest.mark.parametrize("classifier", ["gru", "linear", "average"])
@torch.no_grad()
def test_frame_by_frame_equals_the_whole_clip(classifier: str) -> None:
    model = make(**{"model.classifier": classifier})
    seen, _ = frames(model)
    offline, state = model(seen, seen), None
    for step in range(4):
        frame = seen[:, step : step + 1]
        online = model(frame, frame, state=state)
        state = online.state
        assert torch.equal(online.corners_BT2, offline.corners_BT2[:, step : step + 1])
        torch.testing.assert_close(online.prediction_BK, offline.logits_BTK[:, step])


@pytest.mark.parametrize("regime", REGIMES)
@torch.no_grad()
def test_the_halves_of_the_chain_and_given_corners_make_the_whole(regime: str) -> None:
    model = make(regime)
    whole, seen = model(*frames(model)), model.look(*frames(model))
    assert torch.equal(model.recognise(seen.glance, seen.patches_BTCPP), whole.logits_BTK)
    assert torch.equal(model(*frames(model), seen.choice.corners_BS2).logits_BTK, whole.logits_BTK)
    with pytest.raises(ValueError, match="patches are policy, random, centre or corners, not 'center'"):
        model(*frames(model), "center")


@torch.no_grad()
def test_every_part_of_the_chain_is_timed_once_in_order() -> None:
    parts = []

    @contextlib.contextmanager
    def timer(part: str) -> Iterator[None]:
        parts.append(part)
        yield

    model = make()
    model(*frames(model), timer=timer)
    assert parts == ["glance", "policy", "focus", "classify"]


@pytest.mark.parametrize("classifier", ["gru", "linear", "average"])
@torch.no_grad()
def test_a_counterfactual_swaps_one_patch(classifier: str) -> None:
    model = make(**{"model.classifier": classifier})
    seen, _ = frames(model)
    glance = model.glance(seen)
    taken, other = (model.choose(glance, kind).corners_BS2 for kind in ("policy", "centre"))
    focus = {kind: model.focus(model.crop(seen, where)) for kind, where in (("taken", taken), ("other", other))}
    found = model.counterfactual(glance, focus["taken"], focus["other"])
    for step in range(4):
        corners = taken.clone()
        corners[:, step] = other[:, step]
        logits = model.classify(glance, model.focus(model.crop(seen, corners)))
        torch.testing.assert_close(found[:, step], logits[:, step])


@torch.no_grad()
def test_a_policy_per_clip_decides_once() -> None:
    model = make("clip")
    glance_frames, focus_frames = frames(model)
    glance = model.glance(glance_frames)
    choice = model.choose(glance, greedy=False)
    assert choice.action is not None and choice.action.shape == (2, 1, 2)
    maps = glance.map_BTDhw
    assert torch.equal(model.states(glance)[:, 0], torch.cat(maps.unbind(1), 1))
    focus = model.focus(model.crop(focus_frames, choice.corners_BS2))
    logits = model.classify(glance, focus)
    assert torch.equal(model.decisions(logits), logits[:, -1:])
    by_hand = model.classifier.last(focus).mean(1) + glance.logits_BTK.mean(1)
    torch.testing.assert_close(logits[:, -1], by_hand)
    torch.testing.assert_close(model.counterfactual(glance, focus * 0, focus), logits[:, -1:])


@pytest.mark.parametrize("regime", REGIMES)
@torch.no_grad()
def test_blank_is_a_patch_of_zeros(regime: str) -> None:
    model = make(regime)
    glance_frames, focus_frames = frames(model)
    zeros = torch.zeros(*focus_frames.shape[:3], 16, 16)
    torch.testing.assert_close(model.blank(model.glance(glance_frames)), model.focus(zeros))


def test_preparing_normalises_and_lays_channels_last() -> None:
    model = make()
    seen, _ = frames(model)
    ready = model.prepare(seen)
    wanted = (seen / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    torch.testing.assert_close(ready, wanted)
    assert ready.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert model.prepare(ready) is ready


@torch.no_grad()
def test_cropping_before_or_after_preparing_is_the_same() -> None:
    model = make()
    seen, _ = frames(model)
    corners = model.choose(model.glance(seen), "random").corners_BS2
    assert torch.equal(model.prepare(model.crop(seen, corners)), model.crop(model.prepare(seen), corners))


@torch.no_grad()
def test_a_smaller_glance_changes_only_what_the_glancer_sees() -> None:
    model = make(**{"model.glance_size": 24})
    seen, _ = frames(model)
    output = model(seen, seen)
    assert output.glance.map_BTDhw.shape[-2:] < make().glance(seen).map_BTDhw.shape[-2:]
    assert model.crop(seen, output.choice.corners_BS2).shape[-2:] == (16, 16)


@pytest.mark.parametrize("regime", REGIMES)
def test_the_same_seed_gives_the_same_bits(regime: str) -> None:
    first, second = (make(regime, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with torch.no_grad():
        results: list[Output] = []
        for _ in range(2):
            torch.manual_seed(4)
            results.append(first(*frames(first), "policy", greedy=False))
    assert torch.equal(results[0].logits_BTK, results[1].logits_BTK)
    assert torch.equal(results[0].corners_BT2, results[1].corners_BT2)


def test_a_part_s_initial_weights_do_not_depend_on_the_others() -> None:
    first, second = make(), make(**{"model.grid_size": 4, "model.policy_hidden": 24, "model.glancer": "resnet18"})
    for a, b in zip(first.focuser.parameters(), second.focuser.parameters(), strict=True):
        assert torch.equal(a, b)
    third = make(**{"model.grid_size": 4, "model.policy_hidden": 24})
    for a, b in zip(first.classifier.parameters(), third.classifier.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("part", ["glancer", "focuser", "policy", "classifier"])
def test_gradients_reach_a_part_from_its_own_loss(regime: str, part: str) -> None:
    model = make(regime)
    for name, module in model.named_children():
        module.requires_grad_(name == part)
    output = model(*frames(model), "policy", greedy=False)
    assert output.choice.policy is not None and output.choice.action is not None
    policy = output.choice.policy.actions.log_prob(output.choice.action).sum() + output.choice.policy.value_BS.sum()
    (policy if part == "policy" else output.logits_BTK.square().sum()).backward()
    idle = {"last.0", "last.1"}  # the networks' own last layers serve their own loss
    if regime == "clip":
        idle = {"gru.weight_hh_l0"} | ({"last.1"} if part == "focuser" else set())  # one step has no history
    for name, parameter in getattr(model, part).named_parameters():
        if not any(name.startswith(prefix) for prefix in idle):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    for other in {"glancer", "focuser", "policy", "classifier"} - {part}:
        assert all(parameter.grad is None for parameter in getattr(model, other).parameters())


def test_settings_that_do_not_fit_are_the_user_s_errors() -> None:
    with pytest.raises(UserError, match="patch_size is 33"):
        make(**{"model.patch_size": 33})
    with pytest.raises(UserError, match="num_focus_frames is 5"):
        make(**{"data.num_focus_frames": 5})


@torch.no_grad()
def test_both_networks_compile_to_one_graph_each() -> None:
    model = make()
    seen, _ = frames(model)
    wanted = model(seen, seen)
    glance = torch.compile(model.glance, backend="eager", fullgraph=True)(seen)
    torch.testing.assert_close(glance.map_BTDhw, wanted.glance.map_BTDhw)
    look = torch.compile(lambda x, y: model.focus(model.crop(x, y)), backend="eager", fullgraph=True)
    torch.testing.assert_close(model.classify(glance, look(seen, wanted.corners_BT2)), wanted.logits_BTK)


@pytest.mark.parametrize("patches", ["policy", "random", "centre"])
@pytest.mark.parametrize("regime", REGIMES)
@torch.no_grad()
def test_nothing_is_read_back_from_the_device(regime: str, patches: str) -> None:
    """The meta device holds no values: whatever reads one raises."""
    with torch.device("meta"):
        model = build_model(REGIMES[regime], 5)
        shapes = [part.shape for part in frames(make(regime))]
        seen = [torch.empty(shape, dtype=torch.uint8) for shape in shapes]
        output = model(*seen, patches, greedy=False)
        focus = model.focus(model.crop(seen[1], output.corners_BT2))
        assert model.counterfactual(output.glance, focus, focus).shape[0] == 2

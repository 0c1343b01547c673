"""AdaFocus+'s own: the focuser sees kept frames only, a skipped frame changes nothing, an untrained gate skips none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adafocus.acceleration.accelerate import accelerate
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.data.batches import Batch
from adafocus.evaluation import multiply_adds
from adafocus.inference.online import OnlineClip
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from adafocus.models.adafocus_plus import AdaFocusPlus, policy_states
from adafocus.models.outputs import State
from adafocus.models.policies.gate import RandomGate
from helpers.networks import settle, skip_some
from helpers.tiny import PER_CLIP, noise_batch
from preprocessing.schema import UserError


@pytest.fixture(params=[True, False], ids=["with-glances", "without-glances"])
def config(request: pytest.FixtureRequest, tiny_config: Config) -> Config:
    return override(tiny_config, {"method": "adafocus-plus", "model.reuse_glance": request.param})


@pytest.fixture
def batch(config: Config) -> Batch:
    return noise_batch(config, 6, 5, seed=1)


@pytest.fixture
def model(config: Config, batch: Batch) -> AdaFocusPlus:
    """One whose gate looks at some frames of this batch and skips others."""
    torch.manual_seed(0)
    model = build_model(config, 5).eval()
    assert isinstance(model, AdaFocusPlus)
    return skip_some(settle(model.requires_grad_(False)), batch.glance_BTCHW)


def states_of(model: AdaFocusPlus, batch: Batch) -> torch.Tensor:
    return policy_states(model.choose(model.glance(batch.glance_BTCHW)))


def run(model: AdaFocus, frames: torch.Tensor) -> torch.Tensor:
    return model(frames, frames).logits_BTK


def test_the_focuser_gets_the_patches_of_kept_frames_and_no_others(model: AdaFocusPlus, batch: Batch) -> None:
    seen: list[torch.Tensor] = []
    model.focuser.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    output = model(batch.glance_BTCHW, batch.focus_BTCHW)
    looks_BT = output.choice.looks_BT
    every_BTCPP = model.crop(model.prepare(batch.focus_BTCHW), output.choice.corners_BS2)
    assert len(seen) == 1 and torch.equal(seen[0], every_BTCPP[looks_BT])
    whole_frames = torch.ones_like(looks_BT)
    assert output.corners_BT2.shape[:2] == whole_frames.shape  # where it would have looked is still told


def test_what_a_skipped_frame_shows_to_the_focuser_changes_nothing(model: AdaFocusPlus, batch: Batch) -> None:
    """The same glances, but other pixels behind the patches of skipped frames."""
    before = model(batch.glance_BTCHW, batch.focus_BTCHW)
    noise = torch.randint_like(batch.focus_BTCHW, 256)
    skipped = ~before.choice.looks_BT[..., None, None, None]
    after = model(batch.glance_BTCHW, torch.where(skipped, noise, batch.focus_BTCHW))
    assert torch.equal(before.logits_BTK, after.logits_BTK)
    other = model(batch.glance_BTCHW, torch.where(skipped, batch.focus_BTCHW, noise))
    assert not torch.equal(before.logits_BTK, other.logits_BTK)


def test_clips_do_not_mix(model: AdaFocusPlus, batch: Batch) -> None:
    """Gathered patches go back to the clips and frames that they are of."""
    together = model(batch.glance_BTCHW, batch.focus_BTCHW)
    for number in range(len(batch.clip_ids)):
        frames = batch.focus_BTCHW[number : number + 1]
        alone = model(frames, frames)
        assert torch.equal(alone.choice.looks_BT[0], together.choice.looks_BT[number])
        torch.testing.assert_close(alone.logits_BTK[0], together.logits_BTK[number], rtol=1e-4, atol=1e-5)


def test_an_untrained_gate_skips_nothing_and_computes_what_the_first_version_does(config: Config, batch: Batch) -> None:
    torch.manual_seed(0)
    plus = build_model(config, 5).eval()
    plain = build_model(override(config, {"method": "adafocus"}), 5).eval()
    own = {name: value for name, value in plus.state_dict().items() if not name.startswith("gate.")}
    plain.load_state_dict(own)
    with torch.no_grad():
        assert torch.equal(run(plus, batch.focus_BTCHW), run(plain, batch.focus_BTCHW))


def test_a_clip_of_which_nothing_is_looked_at(model: AdaFocusPlus, batch: Batch) -> None:
    model.gate.threshold.fill_(torch.finfo(torch.float32).max)
    model.focuser.register_forward_pre_hook(lambda module, inputs: pytest.fail("the focuser ran"))
    for each in (model, accelerate(model)):
        assert run(each, batch.focus_BTCHW).isfinite().all()


def test_folded_and_in_bf16(model: AdaFocusPlus, batch: Batch) -> None:
    plain = run(model, batch.focus_BTCHW)
    torch.testing.assert_close(run(accelerate(model), batch.focus_BTCHW), plain, rtol=1e-3, atol=1e-4)
    assert run(accelerate(model, precision="bf16"), batch.focus_BTCHW).isfinite().all()
    with pytest.raises(UserError, match="cannot be compiled"):
        accelerate(model, compile=True)


@pytest.mark.parametrize("portion", [1, 2])
def test_frame_by_frame_is_the_whole_clip(model: AdaFocusPlus, batch: Batch, portion: int) -> None:
    frames = batch.focus_BTCHW
    whole, state = model(frames, frames), State()
    for start in range(0, frames.shape[1], portion):
        some = frames[:, start : start + portion]
        output = model(some, some, state=state)
        state = output.state
        ends = slice(start, start + portion)
        assert torch.equal(output.choice.looks_BT, whole.choice.looks_BT[:, ends])
        torch.testing.assert_close(output.logits_BTK, whole.logits_BTK[:, ends], rtol=1e-4, atol=1e-5)


def test_a_stream_says_which_frames_it_skips(model: AdaFocusPlus, batch: Batch) -> None:
    clip = OnlineClip(model)
    frames = [frame.permute(1, 2, 0).numpy() for frame in batch.focus_BTCHW[0]]
    looked = [clip.push(np.ascontiguousarray(frame)).looked for frame in frames]
    assert looked == model(batch.glance_BTCHW[:1], batch.focus_BTCHW[:1]).choice.looks_BT[0].tolist()


def test_decisions_one_by_one_have_the_scores_of_one_pass(model: AdaFocusPlus, batch: Batch) -> None:
    """What acts and what is updated are the same distribution."""
    states = states_of(model, batch)
    looks, _ = model.gate.decide(states)
    assert torch.equal(model.gate(states, looks) >= model.gate.threshold, looks)


def test_a_gain_is_what_one_other_decision_changes(model: AdaFocusPlus, batch: Batch) -> None:
    """Asked one by one, as if by hand: of looks what they bring, of skipped frames what they would have brought."""
    glance, labels = model.glance(batch.glance_BTCHW), batch.labels_BL[:, 0]
    choice = model.choose(glance)
    looks, focus = choice.looks_BT, model.focus(model.crop(batch.focus_BTCHW, choice.corners_BS2))

    def sure(ways: torch.Tensor) -> torch.Tensor:
        logits = model.classify(glance, torch.where(ways[..., None], focus, model.gate.blank))[:, -1]
        return logits.log_softmax(-1)[torch.arange(len(labels)), labels]

    gains = model.gains(glance, focus, looks, labels)
    for step in range(looks.shape[1]):
        with_it, without = looks.clone(), looks.clone()
        with_it[:, step], without[:, step] = True, False
        torch.testing.assert_close(gains[:, step], sure(with_it) - sure(without), rtol=1e-4, atol=1e-5)


def test_skipping_at_random_keeps_to_its_share(model: AdaFocusPlus, config: Config) -> None:
    gate = RandomGate(model.gate, 0.67, torch.Generator().manual_seed(0))
    looks, _ = gate.decide(torch.zeros(4000, 4, config.model.policy_hidden))
    assert looks.float().mean().item() == pytest.approx(0.67, abs=0.01)
    assert looks.float().mean(0).tolist() == pytest.approx([0.67] * 4, abs=0.03)


def test_skipping_saves_the_focusers_share_alone(config: Config, model: AdaFocusPlus) -> None:
    whole = multiply_adds.count(config, 5, looks=1.0)
    planned = multiply_adds.count(config, 5)
    assert planned == multiply_adds.count_model(model)
    assert planned["focuser"] == pytest.approx(0.67 * whole["focuser"])
    assert {part: value for part, value in planned.items() if part not in ("focuser", "total")} == {
        part: value for part, value in whole.items() if part not in ("focuser", "total")
    }
    assert whole["gate"] > 0
    costs = multiply_adds.exit_costs(config, 5, looks_T=[1.0, 0.0, 0.5, 1.0])
    assert costs[-1] == pytest.approx(multiply_adds.of_looks(whole, 2.5 / 4)["total"])


def test_a_model_that_sees_clips_as_a_whole_is_refused(tiny_config: Config) -> None:
    with pytest.raises(UserError, match="skips frames one by one"):
        build_model(override(tiny_config, {**PER_CLIP, "method": "adafocus-plus"}), 5)

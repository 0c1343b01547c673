"""The plain formulation of the method, which ours is compared with: frame after frame, image after image.

The arithmetic is the same, so that results agree up to rounding: one call of each network for every frame where no exit
needs a later frame, else one for each clip; patches cut one by one; contiguous float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from adafocus.config.schema import PPOConfig
from adafocus.models.adafocus import AdaFocus
from adafocus.models.crop import crop_resized
from adafocus.models.outputs import PatchChoice, State
from adafocus.stages import reinforcement


def cut(image_CHW: Tensor, corner_2: Tensor, side: int) -> Tensor:
    """The patch of one image at a corner: whole pixels, or bilinear where the corner lies between them."""
    row, column = corner_2.tolist()
    if not corner_2.is_floating_point():
        return image_CHW[:, row : row + side, column : column + side]
    steps = torch.arange(side, device=image_CHW.device)
    places = [(2 * (start + steps) + 1) / image_CHW.shape[-1] - 1 for start in (row, column)]
    rows, columns = torch.meshgrid(*places, indexing="ij")
    grid_1PP2 = torch.stack([columns, rows], -1)[None]
    return F.grid_sample(image_CHW[None], grid_1PP2, padding_mode="border", align_corners=False)[0]


def cut_all(images_NCHW: Tensor, corners_N2: Tensor, side: int) -> Tensor:
    """Patch after patch."""
    return torch.stack([cut(image, corner, side) for image, corner in zip(images_NCHW, corners_N2, strict=True)])


def cut_boxes(images_BFCHW: Tensor, choice: PatchChoice, side: int) -> Tensor:
    """Patches of the frames that were chosen, each cut to its box and resized on its own: (B * F, C, P, P)."""
    assert choice.places_BF is not None and choice.sizes_BS2 is not None
    boxes_BF4 = torch.cat([choice.corners_BS2, choice.sizes_BS2], -1).expand(*choice.places_BF.shape, 4)
    return torch.cat(
        [
            crop_resized(images[place][None], box[None], side)
            for images, places, boxes in zip(images_BFCHW, choice.places_BF.tolist(), boxes_BF4, strict=True)
            for place, box in zip(places, boxes, strict=True)
        ]
    )


def plain_pass(model: AdaFocus, glance_BTCHW: Tensor, focus_BTCHW: Tensor) -> Tensor:
    """logits_BTK of every exit, with the policy's most likely patches."""
    images = [((frames - model.mean) / model.std).contiguous() for frames in (glance_BTCHW, focus_BTCHW)]
    count = model.config.data.num_frames if model.is_causal else 1
    state, logits = State(), []
    for glanced, seen in zip(*(frames.chunk(count, 1) for frames in images), strict=True):
        glance = model.glance(glanced.contiguous())
        choice = model.choose(glance, state=state)
        side = model.config.model.patch_size
        if choice.places_BF is None:
            corners_BT2 = choice.corners_BS2.expand(*seen.shape[:2], 2)
            patches_NCPP = cut_all(seen.flatten(0, 1), corners_BT2.flatten(0, 1), side)
        else:
            patches_NCPP = cut_boxes(seen, choice, side)
        focus_BTD = model.focus(patches_NCPP.unflatten(0, (len(seen), -1)))
        logits_BTK, after = model.classify_from(glance, focus_BTD, state)
        state = State(choice.policy.hidden_1BD if choice.policy else None, after.classifier, after.glances)
        logits.append(logits_BTK)
    return torch.cat(logits, 1)


def plain_ppo_loss(
    model: AdaFocus, settings: PPOConfig, frames: Tensor, actions: Tensor, others: Tensor, labels: Tensor
) -> Tensor:
    """The loss of one ppo step of a model that acts per frame, with random patches (`others`, corners) to compare with:
    a Python loop over frames, and one for the returns."""
    images = ((frames - model.mean) / model.std).contiguous()
    side, corners = model.config.model.patch_size, model.policy.corners(actions, frames.shape[-1])
    maps, rewards, behaviour, policy_state, state = [], [], [], None, None
    with torch.no_grad():
        for step in range(images.shape[1]):
            frame = images[:, step].contiguous()
            glance = model.glance(frame[:, None])
            output = model.policy(glance.map_BTDhw, policy_state)
            policy_state = output.hidden_1BD
            behaviour.append(output.actions.log_prob(actions[:, step : step + 1])[:, 0])
            confidence, after = [], state
            for where in (others, corners):
                seen = model.focuser(cut_all(frame, where[:, step], side))
                logits_B1K, reached = model.classify_from(glance, seen[:, None], State(classifier=state))
                after = reached.classifier
                confidence.append(logits_B1K[:, 0].softmax(1).gather(1, labels[:, None])[:, 0])
            state = after
            maps.append(glance.map_BTDhw)
            rewards.append(confidence[1] - confidence[0])
        returns: list[Tensor] = []
        for reward in reversed(rewards):
            returns.insert(0, reward + settings.gamma * (returns[0] if returns else 0))
        returns_BS = torch.stack(returns, 1)
        returns_BS = (returns_BS - returns_BS.mean()) / (returns_BS.std() + 1e-5)
    log_prob, value, entropy, policy_state = [], [], [], None
    for step, map_B1Dhw in enumerate(maps):
        output = model.policy(map_B1Dhw, policy_state)
        policy_state = output.hidden_1BD
        log_prob.append(output.actions.log_prob(actions[:, step : step + 1])[:, 0])
        value.append(output.value_BS[:, 0])
        entropy.append(output.actions.entropy()[:, 0])
    loss, _ = reinforcement.ppo_loss(
        settings,
        log_prob_BS=torch.stack(log_prob, 1),
        behaviour_BS=torch.stack(behaviour, 1),
        value_BS=torch.stack(value, 1),
        returns_BS=returns_BS,
        entropy_BS=torch.stack(entropy, 1),
    )
    return loss

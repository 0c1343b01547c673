"""Networks as tests want them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adafocus.models.adafocus_plus import AdaFocusPlus, policy_states


def settle(module: nn.Module) -> nn.Module:
    """Batch norms with statistics and factors that matter."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.7, 1.3)
            nn.init.uniform_(part.bias, -0.2, 0.2)
    return module.eval()


@torch.no_grad()
def skip_some(model: AdaFocusPlus, frames_BTCHW: Tensor) -> AdaFocusPlus:
    """A model in evaluation whose gate looks at about half of these frames, not the same ones in every clip."""
    noise = torch.Generator().manual_seed(0)
    for values, spread in ((model.gate.actor.weight, 1.0), (model.gate.blank, 1.0), (model.gate.state.weight, 100.0)):
        values.normal_(std=spread, generator=noise)
    states = policy_states(model.choose(model.glance(frames_BTCHW)))
    drawn = torch.rand(states.shape[:2], generator=noise) < 0.5
    scores, shares = model.gate(states, drawn).flatten().sort().values, {}
    for threshold in ((scores[1:] + scores[:-1]) / 2).tolist():
        model.gate.threshold.fill_(threshold)
        looks = model.gate.decide(states)[0]
        if len(frames_BTCHW) == 1 or len(looks.unique(dim=0)) > 1:
            shares[threshold] = abs(looks.float().mean().item() - 0.5)
    threshold = min(shares, key=lambda each: shares[each])
    assert shares[threshold] < 0.3
    model.gate.threshold.fill_(threshold)
    return model

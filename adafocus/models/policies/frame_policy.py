"""The temporal policy of Uni-AdaFocus: features of the glances in, how many looks each stretch of the clip gets out.

A clip's candidate frames lie in as many stretches as there are glances. The weights of the stretches are a density over
the candidates, and the frames to look at are its quantiles: many where the weight is. That choice has no gradient; the
weights learn from the glancer's own predictions, which they average.

Shapes: B clips, G glances, F frames to look at, D features, K classes, I numbers of left out glances, N samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FramePolicy(nn.Module):
    """Three convolutions over time, then a softmax over the glances."""

    def __init__(self, num_features: int, num_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(num_features, num_channels, (3, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(num_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_channels, num_channels, (3, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(num_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(num_channels, 1, 1, bias=False),
        )

    def forward(self, feature_BGD: Tensor) -> Tensor:
        """Weights float32 (B, G) that sum to 1."""
        score_B1G1 = self.layers(feature_BGD.transpose(1, 2).unsqueeze(-1))
        return score_B1G1[:, 0, :, 0].float().softmax(-1)


def choose_places(weight_BG: Tensor, candidates: int, count: int, draw_BF: Tensor | None = None) -> Tensor:
    """Which of the candidates to look at, int64 (B, F), rising: the density's quantiles (i + 1/2) / F, or with draws in
    [0, 1) those at (i + draw) / F. Places that would come twice move on."""
    clips, glances = weight_BG.shape
    steps_F = torch.arange(count, device=weight_BG.device)
    share_BF = ((steps_F + (0.5 if draw_BF is None else draw_BF)) / count).expand(clips, count)
    until_BG = weight_BG.cumsum(1)
    passed_BFG = until_BG[:, None] < share_BF[..., None]  # as searchsorted and cummax, which ONNX has not
    stretch_BF = passed_BFG.sum(-1).clamp(max=glances - 1)
    weight_BF = weight_BG.gather(1, stretch_BF)
    before_BF = nn.functional.pad(until_BG, (1, 0)).gather(1, stretch_BF)
    place_BF = (stretch_BF + (share_BF - before_BF) / weight_BF) * (candidates / glances)
    free_BF = place_BF.floor().long() - steps_F
    behind_FF = steps_F[:, None] < steps_F
    rising_BF = torch.where(behind_FF, free_BF[:, :1, None], free_BF[:, None]).amax(-1) + steps_F
    return torch.minimum(rising_BF, candidates - count + steps_F)


def left_out(weight_BG: Tensor, draw_INBG: Tensor) -> Tensor:
    """Which glances were drawn already, by their weights and without replacement: with the i-th of I draws i of them,
    bool. Draws are uniform in [0, 1): the i glances come first whose waiting times are the shortest."""
    waited_INBG = -torch.log1p(-draw_INBG) / weight_BG.detach()
    return smallest(waited_INBG)


def smallest(values_INBG: Tensor) -> Tensor:
    """With the i-th of I, the i smallest in each row, bool."""
    rank_INBG = values_INBG.argsort(dim=-1, stable=True).argsort(-1)
    return rank_INBG < torch.arange(len(values_INBG), device=values_INBG.device).view(-1, 1, 1, 1)


def expected_logits(logits_BGK: Tensor, weight_BG: Tensor, without_INBG: Tensor) -> Tensor:
    """What the glancer would say of one more frame that is drawn by the weights, logits_BK: a mean over I x N sets of
    glances that were drawn before it. The sums of the others' weights have no gradient."""
    kept_INBG = weight_BG.masked_fill(without_INBG, 0.0)
    sum_INB1 = kept_INBG.detach().sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    share_BG = (kept_INBG / sum_INB1).mean((0, 1))
    return torch.einsum("bg,bgk->bk", share_BG, logits_BGK.float())

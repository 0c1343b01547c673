"""Attentive pooling: the tokens of a clip go in, predictions after each of its frames come out.

One learnt query a head attends to all tokens (cross-attention), as in the evaluation of V-JEPA (Bardes et al. 2024).
With one query, a head's query and key projection are one direction among the features, and its value projection can be
applied after pooling, which gives the same at a fraction of the cost.

Shapes: B clips, T frames, n tokens of a frame, D features, A heads of the attention, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentiveHead(nn.Module):
    """Cross-attention pooling, and one linear layer on what it collects."""

    def __init__(self, num_features: int, num_frames: int, num_tokens: int, num_classes: int, heads: int = 8) -> None:
        super().__init__()
        width = -(-num_features // heads)
        self.norm = nn.LayerNorm(num_features, elementwise_affine=False)
        self.directions = nn.Parameter(torch.randn(heads, num_features) / num_features**0.5)
        self.frame_bias = nn.Parameter(torch.zeros(heads, num_frames, 1))  # what keys know of their place
        self.place_bias = nn.Parameter(torch.zeros(heads, 1, num_tokens))
        self.values = nn.Parameter(torch.randn(heads, num_features, width) / num_features**0.5)
        self.last = nn.Sequential(nn.LayerNorm(heads * width), nn.Linear(heads * width, num_classes))

    def forward(self, tokens_BTnD: Tensor) -> Tensor:
        """logits_BTK: after frame t only the tokens of frames 1 to t are attended to. (One whose score a later token
        exceeds by more than about 80 counts for nothing: float32.)"""
        tokens_BTnD = self.norm(tokens_BTnD)
        scores_BATn = torch.einsum("btnd,ad->batn", tokens_BTnD, self.directions) + self.frame_bias + self.place_bias
        weights_BATn = (scores_BATn - scores_BATn.amax((-2, -1), keepdim=True)).exp()
        sums_BATD = torch.einsum("batn,btnd->batd", weights_BATn, tokens_BTnD).cumsum(2)
        pooled_BATD = sums_BATD / weights_BATn.sum(-1, keepdim=True).cumsum(2).clamp_min(1e-12)
        found_BTD = torch.einsum("batd,ade->btae", pooled_BATD, self.values).flatten(2)
        return self.last(found_BTD)

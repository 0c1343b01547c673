"""The classifier f_C: features of the frames in, logits of every prefix of the clip out.

Prefix t is what has been seen after frame t; the last one is the clip's prediction. A state lets a clip arrive in
portions: frame by frame the logits are those of the whole clip.

Shapes: B clips, T frames, D features, K classes.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from adafocus.config.schema import ModelConfig


class Classifier(nn.Module):
    """Features of frames in, predictions after each out."""

    @abstractmethod
    def forward(self, feature_BTD: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """logits_BTK of every prefix, and the state after the last frame (None: a clip's start)."""

    @abstractmethod
    def start(self, clips: int) -> Tensor:
        """The state of so many clips at their start, in full: zeros (1, B, ...)."""


class GRUClassifier(Classifier):
    """A GRU over frames, dropout, one linear layer (the reference's classifier for long videos)."""

    def __init__(self, num_features: int, num_hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(num_features, num_hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(num_hidden, num_classes)

    def forward(self, feature_BTD: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """logits_BTK of every prefix, and the hidden state after the last frame (None: a clip's start)."""
        hidden_BTD, hidden_1BD = self.gru(feature_BTD, state)
        return self.last(self.dropout(hidden_BTD)), hidden_1BD

    def counterfactual(self, taken_BTD: Tensor, other_BTD: Tensor) -> Tensor:
        """logits_BTK: at t, had only frame t's feature been the other one.

        One recurrent step for all frames at once, from the taken path's hidden states shifted by one.
        """
        hidden_BTD, _ = self.gru(taken_BTD)
        before_BTD = torch.cat([torch.zeros_like(hidden_BTD[:, :1]), hidden_BTD[:, :-1]], 1)
        step_N1D, _ = self.gru(other_BTD.flatten(0, 1).unsqueeze(1), before_BTD.flatten(0, 1).unsqueeze(0))
        return self.last(self.dropout(step_N1D[:, 0])).unflatten(0, taken_BTD.shape[:2])

    def start(self, clips: int) -> Tensor:
        """The state of so many clips at their start, in full: zeros (1, B, D)."""
        return self.last.weight.new_zeros(1, clips, self.gru.hidden_size)


class MeanClassifier(Classifier):
    """Dropout and one linear layer per frame; a prefix's logits are the mean over its frames."""

    def __init__(self, num_features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(num_features, num_classes)

    def forward(self, feature_BTD: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """logits_BTK of every prefix, and the state after the last frame (None: a clip's start)."""
        return running_mean(self.last(self.dropout(feature_BTD)), state)

    def counterfactual(self, taken_BTD: Tensor, other_BTD: Tensor) -> Tensor:
        """logits_BTK: at t, had only frame t's feature been the other one."""
        taken_BTK = self.last(self.dropout(taken_BTD))
        other_BTK = self.last(self.dropout(other_BTD))
        return prefix_mean(taken_BTK) + (other_BTK - taken_BTK) / counts(taken_BTK)

    def start(self, clips: int) -> Tensor:
        """The state of so many clips at their start, in full: zeros (1, B, K + 1)."""
        return self.last.weight.new_zeros(1, clips, self.last.out_features + 1)


def counts(logits_BTK: Tensor) -> Tensor:
    """1, 2, ..., T as float (T, 1)."""
    return torch.arange(1, logits_BTK.shape[1] + 1, device=logits_BTK.device).unsqueeze(-1).float()


def prefix_mean(logits_BTK: Tensor) -> Tensor:
    """Mean over the first 1, 2, ..., T frames, summed in float32."""
    return running_mean(logits_BTK)[0]


def running_mean(logits_BTK: Tensor, state_1BK: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same behind frames that are summed up in a state, and the new state: sum and number, (1, B, K + 1)."""
    sums_BTK, counts_T1 = logits_BTK.float().cumsum(1), counts(logits_BTK)
    counts_BT1 = counts_T1.expand(len(logits_BTK), -1, 1)
    if state_1BK is not None:
        before_B1K = state_1BK.transpose(0, 1)
        sums_BTK, counts_BT1 = sums_BTK + before_B1K[..., :-1], counts_BT1 + before_B1K[..., -1:]
    after_1BK = torch.cat([sums_BTK[:, -1:], counts_BT1[:, -1:]], -1).transpose(0, 1)
    return sums_BTK / counts_BT1, after_1BK


def build_classifier(config: ModelConfig, num_features: int, num_classes: int) -> Classifier:
    """`gru`, or `linear` and `average`, which differ only in what the model feeds and adds."""
    if config.classifier == "gru":
        return GRUClassifier(num_features, config.classifier_hidden, num_classes, config.dropout)
    return MeanClassifier(num_features, num_classes, config.dropout)

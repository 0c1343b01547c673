"""The classifier f_C: features of the frames in, logits of every prefix of the clip out.

Prefix t is what has been seen after frame t; the last one is the clip's prediction.

Shapes: B clips, T frames, D features, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adafocus.config.schema import ModelConfig


class GRUClassifier(nn.Module):
    """A GRU over frames, dropout, one linear layer (the reference's untrimmed classifier)."""

    def __init__(self, num_features: int, num_hidden: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.gru = nn.GRU(num_features, num_hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(num_hidden, num_classes)

    def forward(self, feature_BTD: Tensor) -> Tensor:
        """logits_BTK of every prefix."""
        hidden_BTD, _ = self.gru(feature_BTD)
        return self.last(self.dropout(hidden_BTD))

    def step(self, feature_BD: Tensor, hidden_1BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Online: logits_BK after one more frame, and the new state (None: the start)."""
        hidden_B1D, hidden_1BD = self.gru(feature_BD.unsqueeze(1), hidden_1BD)
        return self.last(self.dropout(hidden_B1D[:, 0])), hidden_1BD

    def counterfactual(self, taken_BTD: Tensor, other_BTD: Tensor) -> Tensor:
        """logits_BTK: at t, had only frame t's feature been the other one.

        One recurrent step for all frames at once, from the taken path's hidden states shifted by one.
        """
        hidden_BTD, _ = self.gru(taken_BTD)
        before_BTD = torch.cat([torch.zeros_like(hidden_BTD[:, :1]), hidden_BTD[:, :-1]], 1)
        step_N1D, _ = self.gru(other_BTD.flatten(0, 1).unsqueeze(1), before_BTD.flatten(0, 1).unsqueeze(0))
        return self.last(self.dropout(step_N1D[:, 0])).unflatten(0, taken_BTD.shape[:2])


class MeanClassifier(nn.Module):
    """Dropout and one linear layer per frame; a prefix's logits are the mean over its frames."""

    def __init__(self, num_features: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(num_features, num_classes)

    def forward(self, feature_BTD: Tensor) -> Tensor:
        """logits_BTK of every prefix."""
        return prefix_mean(self.last(self.dropout(feature_BTD)))

    def step(self, feature_BD: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Online: logits_BK after one more frame; the state (B, K + 1) holds sum and count (None: the start)."""
        logits_BK = self.last(self.dropout(feature_BD))
        seen = torch.cat([logits_BK, torch.ones_like(logits_BK[:, :1])], 1)
        state = seen if state is None else state + seen
        return state[:, :-1] / state[:, -1:], state

    def counterfactual(self, taken_BTD: Tensor, other_BTD: Tensor) -> Tensor:
        """logits_BTK: at t, had only frame t's feature been the other one."""
        taken_BTK = self.last(self.dropout(taken_BTD))
        other_BTK = self.last(self.dropout(other_BTD))
        return prefix_mean(taken_BTK) + (other_BTK - taken_BTK) / counts(taken_BTK)


Classifier = GRUClassifier | MeanClassifier


def counts(logits_BTK: Tensor) -> Tensor:
    """1, 2, ..., T as float (T, 1)."""
    return torch.arange(1, logits_BTK.shape[1] + 1, device=logits_BTK.device).unsqueeze(-1).float()


def prefix_mean(logits_BTK: Tensor) -> Tensor:
    """Mean over the first 1, 2, ..., T frames, summed in float32."""
    return logits_BTK.float().cumsum(1) / counts(logits_BTK)


def build_classifier(config: ModelConfig, num_features: int, num_classes: int) -> Classifier:
    """`gru`, or `linear` and `average`, which differ only in what the model feeds and adds."""
    if config.classifier == "gru":
        return GRUClassifier(num_features, config.classifier_hidden, num_classes, config.dropout)
    return MeanClassifier(num_features, num_classes, config.dropout)

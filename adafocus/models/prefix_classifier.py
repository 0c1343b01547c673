"""The classifiers of AdaFocusV2: features of the frames in, logits of every prefix of the clip out.

Shapes: B clips, T frames, D features, H hidden width, K classes, X prefixes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adafocus.models.classifier import Classifier, running_mean


class PrefixClassifier(Classifier):
    """A hidden layer per frame, the maximum over the frames so far, and a last layer of its own for every prefix.

    Frame t's prediction comes from last layer t: a clip has at most `num_prefixes` frames.
    """

    def __init__(self, num_features: int, num_hidden: int, num_classes: int, num_prefixes: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(num_features, num_hidden), nn.BatchNorm1d(num_hidden), nn.ReLU(inplace=True)
        )
        self.dropout = nn.Dropout(dropout)
        bound = 1 / math.sqrt(num_hidden)  # as torch's own linear layers
        self.weight = nn.Parameter(torch.empty(num_prefixes, num_classes, num_hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_prefixes, num_classes).uniform_(-bound, bound))

    def forward(self, feature_BTD: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """logits_BTK of every prefix, and the state after the last frame (None: a clip's start): maxima and number of
        frames (1, B, H + 1). All clips of a batch have seen equally many frames."""
        clips, frames = feature_BTD.shape[:2]
        hidden_BTH = self.hidden(feature_BTD.flatten(0, 1)).unflatten(0, (clips, frames))
        state_1BH = self.start(clips) if state is None else state
        seen_B1H, count_B1 = state_1BH[0, :, None, :-1], state_1BH[0, :, -1:]
        maxima = [torch.maximum(hidden_BTH[:, :1], seen_B1H.to(hidden_BTH.dtype))]
        for frame in range(1, frames):  # as cummax, which has no counterpart in ONNX
            maxima.append(torch.maximum(maxima[-1], hidden_BTH[:, frame : frame + 1]))
        maxima_BTH = torch.cat(maxima, 1)
        after_1BH = torch.cat([maxima[-1][:, 0].to(state_1BH.dtype), count_B1 + frames], -1)[None]
        weight_THK, bias_TK = self._last_layers(None if frames == len(self.bias) else count_B1[0].long(), frames)
        logits_TBK = torch.bmm(self.dropout(maxima_BTH).transpose(0, 1), weight_THK)
        return logits_TBK.transpose(0, 1) + bias_TK, after_1BH

    def _last_layers(self, first_1: Tensor | None, frames: int) -> tuple[Tensor, Tensor]:
        """(T, H, K) and (T, K): those of the frames from number `first_1` on; None: all."""
        if first_1 is None:
            return self.weight.transpose(1, 2), self.bias
        numbers_T = first_1 + torch.arange(frames, device=first_1.device)
        return self.weight[numbers_T].transpose(1, 2), self.bias[numbers_T]

    def start(self, clips: int) -> Tensor:
        """The state of so many clips at their start: zeros (1, B, H + 1), which no ReLU falls below."""
        return self.weight.new_zeros(1, clips, self.weight.shape[-1] + 1)


class TwoHeads(Classifier):
    """A linear layer per network, on features that it sends no gradient to; a prefix's logits are the mean over its
    frames, plus that over all glances.

    The reference's for Something-Something: its networks learn through auxiliary layers alone.
    """

    def __init__(self, num_glance_features: int, num_focus_features: int, num_classes: int) -> None:
        """Without glance features (0) the glances have no say, and no layer."""
        super().__init__()
        if num_glance_features:
            self.glance = nn.Linear(num_glance_features, num_classes)
        self.last = nn.Linear(num_focus_features, num_classes)

    def forward(self, feature_BTD: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """logits_BTK of every prefix of the focuser's frames, and the state after the last one (None: a clip's
        start)."""
        return running_mean(self.last(feature_BTD.detach()), state)

    def glances(self, feature_BTD: Tensor) -> Tensor:
        """logits_B1K of all glances together."""
        return self.glance(feature_BTD.detach().mean(1, keepdim=True))

    def start(self, clips: int) -> Tensor:
        """The state of so many clips at their start: zeros (1, B, K + 1)."""
        return self.last.weight.new_zeros(1, clips, self.last.out_features + 1)

"""The classifiers of AdaFocusV2 and Uni-AdaFocus: features of the frames in, logits of every prefix of the clip out.

Shapes: B clips, T frames, D features, H hidden width, K classes, X prefixes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from adafocus.models.classifier import Classifier, running_mean


class PrefixClassifier(Classifier):
    """A hidden layer per frame, the maximum over the frames so far, and a last layer of its own for every prefix.

    Frame t's prediction comes from last layer t: a clip has at most `num_prefixes` frames. The last layers may also see
    `num_beside` features that are the same for all prefixes, behind the maxima.
    """

    def __init__(
        self,
        num_features: int,
        num_hidden: int,
        num_classes: int,
        num_prefixes: int,
        dropout: float,
        num_beside: int = 0,
    ) -> None:
        super().__init__()
        self.num_hidden = num_hidden
        self.hidden = nn.Sequential(
            nn.Linear(num_features, num_hidden), nn.BatchNorm1d(num_hidden), nn.ReLU(inplace=True)
        )
        self.dropout = nn.Dropout(dropout)
        width = num_beside + num_hidden
        bound = 1 / math.sqrt(width)  # as torch's own linear layers
        self.weight = nn.Parameter(torch.empty(num_prefixes, num_classes, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_prefixes, num_classes).uniform_(-bound, bound))

    def forward(
        self, feature_BTD: Tensor, state: Tensor | None = None, beside_BH: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
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
        if beside_BH is not None:
            beside_BTH = beside_BH.to(maxima_BTH.dtype)[:, None].expand(-1, frames, -1)
            maxima_BTH = torch.cat([maxima_BTH, beside_BTH], -1)
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
        return self.weight.new_zeros(1, clips, self.num_hidden + 1)


class GlanceFirstClassifier(Classifier):
    """A prefix classifier of the glances, and one of the focuser's frames whose last layers see the maxima over all
    glances too, if they are to be reused."""

    def __init__(
        self,
        num_features: tuple[int, int],
        num_hidden: int,
        num_classes: int,
        num_prefixes: tuple[int, int],
        dropout: float,
        *,
        reuse_glances: bool = True,
    ) -> None:
        """Widths and numbers are those of glances and focuser, in this order."""
        super().__init__()
        sizes, self.reuse_glances = (num_hidden, num_classes), reuse_glances
        beside = num_hidden if reuse_glances else 0
        self.glances = PrefixClassifier(num_features[0], *sizes, num_prefixes[0], dropout)
        self.looks = PrefixClassifier(num_features[1], *sizes, num_prefixes[1], dropout, num_beside=beside)

    def glance(self, feature_BGD: Tensor) -> tuple[Tensor, Tensor]:
        """logits_BGK of every prefix of the glances, and what later predictions see of them: the maxima (1, B, H)."""
        logits_BGK, state_1BH = self.glances(feature_BGD)
        return logits_BGK, state_1BH[..., :-1]

    def forward(
        self, feature_BTD: Tensor, state: Tensor | None = None, glances_1BH: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """logits_BTK of every prefix of the focuser's frames, behind all glances, and the state after the last one."""
        if not self.reuse_glances:
            return self.looks(feature_BTD, state)
        assert glances_1BH is not None
        return self.looks(feature_BTD, state, glances_1BH[0])

    def start(self, clips: int) -> Tensor:
        """The state of so many clips at their start, of the focuser's frames: zeros (1, B, H + 1)."""
        return self.looks.start(clips)


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

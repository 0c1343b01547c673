"""Accuracy of predictions: logits and labels in, percentages out.

Average precision is the mean, over a class's positives in order of falling score, of the precision at each
(non-interpolated); scores are softmax probabilities, as in the published results, also for clips with several labels.

Shapes: N clips, K classes, L labels of a clip padded with -1, T prefixes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def multi_hot(labels_NL: Tensor, num_classes: int) -> Tensor:
    """bool (N, K) of labels padded with -1. Raises ValueError for a label outside -1..K-1."""
    if labels_NL.numel() and not (int(labels_NL.min()) >= -1 and int(labels_NL.max()) < num_classes):
        raise ValueError(f"labels span {labels_NL.min()}..{labels_NL.max()}, but there are {num_classes} classes")
    hot = torch.zeros(len(labels_NL), num_classes + 1, dtype=torch.bool, device=labels_NL.device)
    hot.scatter_(1, labels_NL.long() % (num_classes + 1), True)  # -1 falls into the extra, last column
    return hot[:, :num_classes]


def average_precision(scores_NK: Tensor, targets_NK: Tensor) -> Tensor:
    """Per class in percent, float64 (K,); NaN for a class without positives. Ties keep the clips' order."""
    order = scores_NK.argsort(dim=0, descending=True, stable=True)
    hits = targets_NK.gather(0, order).double()
    rank = torch.arange(1, len(hits) + 1, device=hits.device, dtype=torch.float64).unsqueeze(-1)
    precision = hits.cumsum(0) / rank
    return 100 * (precision * hits).sum(0) / hits.sum(0)


def class_precision(logits_NK: Tensor, labels_NL: Tensor) -> Tensor:
    """Average precision per class, float64 (K,), NaN for classes that no clip has."""
    return average_precision(logits_NK.float().softmax(-1), multi_hot(labels_NL, logits_NK.shape[1]))


def mean_average_precision(logits_NK: Tensor, labels_NL: Tensor) -> float:
    """Mean over the classes that occur, in percent: an absent class neither counts nor shifts the others."""
    return float(class_precision(logits_NK, labels_NL).nanmean())


def reference_precision(logits_NK: Tensor, labels_NL: Tensor) -> Tensor:
    """Average precision per class as the published code computes it, float64 (K,).

    Right where every class occurs. Otherwise it renumbers the labels that occur to 0..n-1, so that they are compared
    with the scores of other classes, and the columns left over count as 0.
    """
    present, renumbered = labels_NL.unique(return_inverse=True)
    if len(present) and present[0] == -1:
        renumbered = renumbered - 1
    return class_precision(logits_NK, renumbered).nan_to_num(0)


def reference_map(logits_NK: Tensor, labels_NL: Tensor) -> float:
    """The mean of `reference_precision`: what the published code prints."""
    return float(reference_precision(logits_NK, labels_NL).mean())


def topk_accuracy(logits_NK: Tensor, labels_NL: Tensor, k: int = 1) -> float:
    """Share of clips, in percent, with their first label among the k highest logits.

    With several labels only the first counts, as in the published results.
    """
    best = logits_NK.topk(min(k, logits_NK.shape[1]), dim=1).indices
    return 100 * float((best == labels_NL[:, :1]).any(1).double().mean())


def class_accuracy(logits_NK: Tensor, labels_NL: Tensor) -> Tensor:
    """Share, in percent, of the clips whose first label is the class that are recognised, float64 (K,); NaN for
    classes that are no clip's first label."""
    first_N, guesses_N, classes = labels_NL[:, 0], logits_NK.argmax(1), logits_NK.shape[1]
    right_K = torch.bincount(first_N[first_N == guesses_N], minlength=classes)
    return 100 * right_K.double() / torch.bincount(first_N, minlength=classes)


def scores(logits_NK: Tensor, labels_NL: Tensor) -> dict[str, float]:
    """All metrics of one prediction per clip: map, top1, top5. Raises ValueError without clips."""
    if len(logits_NK) == 0 or len(logits_NK) != len(labels_NL):
        raise ValueError(f"{len(logits_NK)} predictions for {len(labels_NL)} labelled clips")
    return {
        "map": mean_average_precision(logits_NK, labels_NL),
        "top1": topk_accuracy(logits_NK, labels_NL, 1),
        "top5": topk_accuracy(logits_NK, labels_NL, 5),
    }


def online_scores(logits_NTK: Tensor, labels_NL: Tensor) -> list[dict[str, float]]:
    """The same after every frame: the online curve, T entries."""
    return [scores(logits_NK, labels_NL) for logits_NK in logits_NTK.unbind(1)]

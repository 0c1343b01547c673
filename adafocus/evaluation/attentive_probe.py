"""The stronger baseline: attentive pooling over a frozen network's features of whole frames.

Goes in: a model and the training and evaluation split; comes out: predictions of the latter, as of any other method.
Several learning rates are tried at once, and the best is chosen on training clips alone.

Shapes: B clips, T frames, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adafocus.data.loader import ClipLoader
from adafocus.evaluation.attentive_head import AttentiveHead
from adafocus.evaluation.evaluate import Predictions
from adafocus.evaluation.token_store import Network, StoredTokens, store_tokens
from adafocus.models.adafocus import AdaFocus

log = logging.getLogger(__name__)

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates of AdamW that are tried."""
EPOCHS, LEAST_STEPS, BATCH_SIZE, WEIGHT_DECAY = 20, 300, 32, 0.05
HELD_OUT = 5
"""Every fifth training clip, in random order, chooses among the rates."""


def attentive_probe(model: AdaFocus, training: ClipLoader, loader: ClipLoader, network: Network) -> Predictions:
    """A head for each rate, trained side by side on four fifths of `training`; the best one's rate trains on all of it.

    Both loaders are evaluation loaders (central crops, no augmentation). A clip with several labels counts with its
    first one. Predictions are there after every prefix of the frames.
    """
    device = next(model.parameters()).device
    seen = store_tokens(model, training, network)
    labels_N = seen.labels_NL[:, 0].to(device)
    order = np.random.default_rng(0).permutation(len(labels_N))
    held_out, rest = order[::HELD_OUT], np.delete(order, np.s_[::HELD_OUT])
    if len(rest):
        heads = _train(seen, labels_N, rest, RATES, model.num_classes)
        losses = [F.cross_entropy(_predict(head, seen, held_out)[:, -1], labels_N[held_out]).item() for head in heads]
        rate = RATES[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]  # one that diverged loses
        shown = ", ".join(f"{each:g}: {loss:.3f}" for each, loss in zip(RATES, losses, strict=True))
        log.info("attentive probe on %s: loss of held-out training clips by rate: %s", network, shown)
    else:
        rate = RATES[0]
    (head,) = _train(seen, labels_N, order, (rate,), model.num_classes)
    asked = store_tokens(model, loader, network)
    logits_NTK = _predict(head, asked, np.arange(len(asked.clip_ids))).cpu()
    return Predictions(asked.clip_ids, asked.labels_NL, logits_NTK, None, None)


def _train(
    seen: StoredTokens, labels_N: Tensor, clips: np.ndarray, rates: Sequence[float], num_classes: int
) -> list[AttentiveHead]:
    """A head for each rate; all see the same batches."""
    _, frames, tokens, features = seen.tokens_NTnD.shape
    heads = []
    for _ in rates:  # the same start, whatever else has drawn random numbers
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            heads.append(AttentiveHead(features, frames, tokens, num_classes).to(labels_N.device))
    groups = [{"params": list(head.parameters()), "lr": rate} for head, rate in zip(heads, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    rng, batches = np.random.default_rng(0), -(-len(clips) // BATCH_SIZE)
    epochs = max(EPOCHS, -(-LEAST_STEPS // batches))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    for _ in range(epochs):
        for batch in np.array_split(rng.permutation(clips), batches):
            tokens_BTnD = seen.take(batch, labels_N.device)
            loss = torch.stack([F.cross_entropy(head(tokens_BTnD)[:, -1], labels_N[batch]) for head in heads]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return heads


@torch.no_grad()
def _predict(head: AttentiveHead, stored: StoredTokens, clips: np.ndarray) -> Tensor:
    """logits_NTK of these clips."""
    device = head.directions.device
    batches = np.array_split(clips, -(-len(clips) // BATCH_SIZE))
    return torch.cat([head(stored.take(batch, device)) for batch in batches])

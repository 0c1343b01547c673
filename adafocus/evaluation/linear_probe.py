"""The baseline that a method has to beat: a linear classifier on a frozen network's features of whole frames.

Goes in: a model and the training and evaluation split; comes out: predictions of the latter, as of any other method.
"""

from __future__ import annotations

import copy
from typing import Literal, cast

import numpy as np
import torch
from torch import nn

from adafocus.data.loader import ClipLoader
from adafocus.evaluation.evaluate import PatchSource, Predictions, evaluate
from adafocus.models.adafocus import AdaFocus
from adafocus.models.backbones import Backbone

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the L2 penalty that are tried by five-fold cross-validation on the training clips."""


def linear_probe(
    model: AdaFocus, training: ClipLoader, loader: ClipLoader, network: Literal["glancer", "focuser"]
) -> Predictions:
    """Logistic regression on standardised features, each the mean over a clip's frames, fitted on `training`.

    Both loaders are evaluation loaders (central crops, no augmentation). A clip with several labels counts with its
    first one. Logits are log-probabilities after every prefix of the frames; a class without training clips gets the
    lowest finite value.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    look: PatchSource = "glancer" if network == "glancer" else "whole"
    bare = _without_heads(model)
    seen, asked = (evaluate(bare, each, patches=look) for each in (training, loader))
    folds = KFold(min(5, len(seen.clip_ids)), shuffle=True, random_state=0)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(regression, {"logisticregression__C": STRENGTHS}, cv=folds)
    search.fit(seen.logits_NTK[:, -1].numpy(), seen.labels_NL[:, 0].numpy())
    count, frames, _ = asked.logits_NTK.shape
    log_probability = search.predict_log_proba(asked.logits_NTK.flatten(0, 1).numpy())
    logits = np.full((count * frames, model.num_classes), np.finfo(np.float32).min, np.float32)
    logits[:, search.classes_] = np.maximum(log_probability, np.finfo(np.float32).min)
    logits_NTK = torch.from_numpy(logits).unflatten(0, (count, frames))
    return Predictions(asked.clip_ids, asked.labels_NL, logits_NTK, None, None)


def _without_heads(model: AdaFocus) -> AdaFocus:
    """The model whose networks answer with their pooled features instead of logits."""
    bare = copy.copy(model)
    bare._modules = dict(model._modules)
    for name in ("glancer", "focuser"):
        network = cast(Backbone, model.get_submodule(name))
        bare._modules[name] = network.with_parts(last=nn.Sequential())
    return bare

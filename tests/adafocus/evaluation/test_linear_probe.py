"""The linear probe: it learns from the training split alone, and its features are the networks' own."""

from __future__ import annotations

import torch

from adafocus.config.schema import Config
from adafocus.data.loader import ClipLoader
from adafocus.evaluation.evaluate import evaluate
from adafocus.evaluation.linear_probe import linear_probe
from adafocus.methods import build_model


def loader(shards: str, split: str, config: Config) -> ClipLoader:
    return ClipLoader(shards, split, config.data, batch_size=8, train=False)


def test_it_separates_the_clips_that_it_learned_from(tiny_config: Config, synthetic_shards: str) -> None:
    """With 96 features for 24 clips a linear classifier fits them all; a random network's features are enough."""
    torch.manual_seed(0)
    model = build_model(tiny_config, 10).eval()
    training = loader(synthetic_shards, "train", tiny_config)
    for network in ("glancer", "focuser"):
        fitted = linear_probe(model, training, training, network)
        assert fitted.metrics()["top1"] > 40
        asked = linear_probe(model, training, loader(synthetic_shards, "val", tiny_config), network)
        assert asked.logits_NTK.shape == (10, 4, 10) and asked.logits_NTK.isfinite().all()
        probabilities = asked.logits_NTK.exp().sum(-1)
        torch.testing.assert_close(probabilities, torch.ones_like(probabilities), rtol=1e-4, atol=1e-4)


def test_the_model_keeps_its_heads(tiny_config: Config, synthetic_shards: str) -> None:
    model = build_model(tiny_config, 10).eval()
    validation = loader(synthetic_shards, "val", tiny_config)
    before = evaluate(model, validation, patches="glancer").logits_NTK
    linear_probe(model, loader(synthetic_shards, "train", tiny_config), validation, "glancer")
    assert torch.equal(evaluate(model, validation, patches="glancer").logits_NTK, before)

"""The attentive probe: attention as in the textbook, learnt from the training split alone."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from adafocus.config.schema import Config
from adafocus.data.loader import ClipLoader
from adafocus.evaluation import token_store
from adafocus.evaluation.attentive_head import AttentiveHead
from adafocus.evaluation.attentive_probe import attentive_probe
from adafocus.evaluation.evaluate import evaluate
from adafocus.evaluation.token_store import store_tokens
from adafocus.methods import build_model
from preprocessing.schema import UserError


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for two dozen clips."""
    monkeypatch.setattr("adafocus.evaluation.attentive_probe.LEAST_STEPS", 60)


def loader(shards: str, split: str, config: Config) -> ClipLoader:
    return ClipLoader(shards, split, config.data, batch_size=8, train=False)


@torch.no_grad()
def test_it_is_multi_head_attention_with_one_query() -> None:
    torch.manual_seed(0)
    width, heads = 16, 4
    head = AttentiveHead(width, 3, 5, 7, heads)
    tokens_BTnD = torch.randn(2, 3, 5, width)
    attention = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
    query, key, value = attention.in_proj_weight.split(width)
    asked_D = torch.randn(width)
    query_AE = (query @ asked_D).view(heads, -1)
    head.directions.copy_(torch.einsum("ae,aed->ad", query_AE, key.view(heads, -1, width)) / math.sqrt(width // heads))
    head.values.copy_(value.view(heads, -1, width).transpose(1, 2))
    attention.out_proj.weight.copy_(torch.eye(width))
    for frames in (1, 2, 3):  # a prefix is what has been seen so far
        seen_BND = head.norm(tokens_BTnD[:, :frames]).flatten(1, 2)
        wanted_B1D, _ = attention(asked_D.expand(2, 1, width), seen_BND, seen_BND)
        found_BK = head(tokens_BTnD)[:, frames - 1]
        torch.testing.assert_close(found_BK, head.last(wanted_B1D[:, 0]), rtol=1e-4, atol=1e-5)


def test_it_finds_the_one_token_that_matters_where_a_mean_cannot() -> None:
    """Two classes that differ in one token among fifty, at random places, by a sign that a marker shows."""
    torch.manual_seed(0)
    tokens_BTnD, labels_B = 0.3 * torch.randn(256, 2, 25, 12), torch.randint(2, (256,))
    place_B = torch.randint(50, (256,))
    flat = tokens_BTnD.flatten(1, 2)
    flat[torch.arange(256), place_B, 0] = 3.0
    flat[torch.arange(256), place_B, 1] = 2.0 * (2 * labels_B - 1)
    flat[torch.arange(256), (place_B + 7) % 50, 1] = -2.0 * (2 * labels_B - 1)  # so that the mean says nothing
    head = AttentiveHead(12, 2, 25, 2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(150):
        loss = nn.functional.cross_entropy(head(tokens_BTnD[:192])[:, -1], labels_B[:192])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    accuracy = (head(tokens_BTnD[192:])[:, -1].argmax(1) == labels_B[192:]).float().mean()
    assert accuracy > 0.9


def test_it_separates_the_clips_that_it_learned_from(
    tiny_config: Config, synthetic_shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("adafocus.evaluation.attentive_probe.RATES", (1e-2,))
    model = build_model(tiny_config, 10).eval()
    training, validation = (loader(synthetic_shards, split, tiny_config) for split in ("train", "val"))
    before = evaluate(model, validation, patches="glancer")
    for network in ("glancer", "focuser"):
        fitted = attentive_probe(model, training, training, network)
        assert fitted.metrics()["top1"] > 60
    asked = attentive_probe(model, training, validation, "focuser")
    assert asked.logits_NTK.shape == (10, 4, 10) and asked.clip_ids == before.clip_ids
    assert torch.equal(asked.labels_NL, before.labels_NL)
    again = attentive_probe(model, training, validation, "focuser")
    assert torch.equal(asked.logits_NTK, again.logits_NTK)


def test_the_rate_is_chosen_on_training_clips(
    tiny_config: Config, synthetic_shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that diverges loses to one that learns."""
    model = build_model(tiny_config, 10).eval()
    training = loader(synthetic_shards, "train", tiny_config)
    found = {}
    for rates in ((1e-3,), (1e4, 1e-3)):
        monkeypatch.setattr("adafocus.evaluation.attentive_probe.RATES", rates)
        found[rates] = attentive_probe(model, training, training, "glancer").logits_NTK
    assert torch.equal(found[1e-3,], found[1e4, 1e-3])


def test_no_room_for_tokens_is_said(
    tiny_config: Config, synthetic_shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(tiny_config, 10).eval()
    monkeypatch.setattr(token_store.shutil, "disk_usage", lambda path: SimpleNamespace(free=9))
    with pytest.raises(UserError, match="set TMPDIR to a folder that has it, or measure without --probe"):
        store_tokens(model, loader(synthetic_shards, "val", tiny_config), "glancer")

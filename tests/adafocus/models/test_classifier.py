import pytest
import torch

from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.models.classifier import Classifier, build_classifier, prefix_mean

KINDS = ("gru", "linear", "average")


def make(kind: str) -> Classifier:
    torch.manual_seed(0)
    changes = {"model.classifier": kind, "model.classifier_hidden": 6, "model.dropout": 0.5}
    return build_classifier(override(Config(), changes).model, 5, 3).eval()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_step_by_step_equals_the_whole_sequence(kind: str) -> None:
    classifier, feature, state = make(kind), torch.randn(2, 7, 5), None
    whole, _ = classifier(feature)
    for step in range(7):
        logits, state = classifier(feature[:, step : step + 1], state)
        torch.testing.assert_close(logits[:, 0], whole[:, step])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_prefix_does_not_see_what_follows(kind: str) -> None:
    classifier, feature = make(kind), torch.randn(2, 7, 5)
    torch.testing.assert_close(classifier(feature[:, :4])[0], classifier(feature)[0][:, :4])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_counterfactual_replaces_one_step_at_a_time(kind: str) -> None:
    classifier, taken, other = make(kind), torch.randn(2, 6, 5), torch.randn(2, 6, 5)
    found = classifier.counterfactual(taken, other)
    for step in range(6):
        mixed = taken.clone()
        mixed[:, step] = other[:, step]
        torch.testing.assert_close(found[:, step], classifier(mixed)[0][:, step])
    torch.testing.assert_close(classifier.counterfactual(taken, taken), classifier(taken)[0])


def test_prefix_mean_by_hand() -> None:
    logits = torch.tensor([[[1.0, 0.0], [3.0, 1.0], [2.0, 5.0]]])
    assert prefix_mean(logits).tolist() == [[[1.0, 0.0], [2.0, 0.5], [2.0, 2.0]]]


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_in_training_only(kind: str) -> None:
    classifier, feature = make(kind), torch.randn(2, 4, 5)
    assert torch.equal(classifier(feature)[0], classifier(feature)[0])
    classifier.train()
    assert not torch.equal(classifier(feature)[0], classifier(feature)[0])

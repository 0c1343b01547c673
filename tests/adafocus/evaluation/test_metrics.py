import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adafocus.evaluation import metrics


def one_hot_logits(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_average_precision_by_hand() -> None:
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    hits = torch.tensor([[True], [False], [True], [False]])
    assert metrics.average_precision(scores, hits).item() == pytest.approx(100 * (1 / 1 + 2 / 3) / 2)


@settings(deadline=None)
@given(st.integers(5, 40), st.integers(2, 6), st.integers(0, 2**31))
def test_average_precision_equals_scikit_learn_s(clips: int, classes: int, seed: int) -> None:
    from sklearn.metrics import average_precision_score  # slow to import: not in every process that collects tests

    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(clips, classes, generator=generator, dtype=torch.float64)
    targets = torch.rand(clips, classes, generator=generator) < 0.4
    targets[0] = True
    found = metrics.average_precision(scores, targets)
    for column in range(classes):
        wanted = average_precision_score(targets[:, column].numpy(), scores[:, column].numpy())
        assert found[column].item() == pytest.approx(100 * wanted)


def test_an_absent_class_neither_counts_nor_shifts_the_others() -> None:
    # Every clip is recognised; class 0 occurs nowhere.
    logits = one_hot_logits([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.1, 0.2, 0.7]])
    labels = torch.tensor([[1], [2], [2]])
    assert metrics.mean_average_precision(logits, labels) == 100
    assert metrics.class_precision(logits, labels)[0].isnan()
    # The published code compares class 1's clips with the scores of class 0.
    assert metrics.reference_map(logits, labels) < 70


def test_both_agree_where_all_classes_occur() -> None:
    logits, labels = torch.randn(40, 4), torch.arange(40).view(-1, 1) % 4
    assert metrics.reference_map(logits, labels) == pytest.approx(metrics.mean_average_precision(logits, labels))


def test_several_labels_are_all_positives() -> None:
    assert metrics.multi_hot(torch.tensor([[0, 2], [1, -1]]), 3).tolist() == [[True, False, True], [False, True, False]]
    assert not metrics.multi_hot(torch.tensor([[-1]]), 3).any()


@pytest.mark.parametrize("label", [3, -2])
def test_a_label_that_no_class_has_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match="3 classes"):
        metrics.multi_hot(torch.tensor([[label]]), 3)


def test_top_k_counts_the_first_label() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    labels = torch.tensor([[0, -1], [1, 0], [2, 0], [2, -1]])
    assert [metrics.topk_accuracy(logits, labels, k) for k in (1, 2, 3, 5)] == [25, 50, 100, 100]


def test_online_scores_are_those_of_each_prefix() -> None:
    logits, labels = torch.randn(20, 3, 4), torch.randint(4, (20, 1))
    online = metrics.online_scores(logits, labels)
    assert online == [metrics.scores(logits[:, t], labels) for t in range(3)]
    assert set(online[0]) == {"map", "top1", "top5"}


def test_no_clips_no_scores() -> None:
    with pytest.raises(ValueError, match="0 predictions"):
        metrics.scores(torch.zeros(0, 3), torch.zeros(0, 1, dtype=torch.int64))

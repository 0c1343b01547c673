"""Clips that the page offers beside uploads: some of the evaluation split of a model's data set."""

from __future__ import annotations

from dataclasses import dataclass

from adafocus.data.clip_table import ClipTable, evaluation_split
from adafocus.inference.packed_clips import packed_clip
from adafocus.inference.prediction import ClipFrames
from adafocus.inference.predictor import AdaFocusPredictor

COUNT = 12


@dataclass(frozen=True, slots=True)
class Example:
    """A packed clip and its class."""

    title: str
    shards: str
    number: int
    """In a table of COUNT clips of the evaluation split."""
    truth: str

    def frames(self, predictor: AdaFocusPredictor) -> ClipFrames:
        """As a model sees it."""
        return packed_clip(predictor, ClipTable(self.shards, evaluation_split(self.shards), COUNT), self.number)


def find_examples(shards: str) -> list[Example]:
    """Clips spread over the evaluation split of a data set."""
    table = ClipTable(shards, evaluation_split(shards), COUNT)
    examples = []
    for number, clip_id in enumerate(table.clip_ids):
        truth = table.info.class_names[table.labels(number)[0]]
        examples.append(Example(f"{number + 1}. {truth} ({clip_id})", shards, number, truth))
    return examples

"""Boxes of objects that are known of single videos: a `boxes.csv` goes in, clips with the boxes of their frames out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from adafocus.data.transforms import evaluation_view
from adafocus.inference.prediction import ClipFrames
from adafocus.inference.predictor import AdaFocusPredictor
from preprocessing.datasets.boxes import read_boxes
from preprocessing.schema import UserError
from preprocessing.shards.object_boxes import place_in_frames, upright_size


class KnownBoxes:
    """The boxes of a file in the form of the `folder` data set; its paths are relative to its own folder."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for a file that is not there, or has a bad row."""
        if not path.is_file():
            raise UserError(f"{path}: there is no such file of boxes")
        self._boxes = {(path.parent / source).resolve(): boxes for source, boxes in read_boxes(path).items()}

    def add(self, model: AdaFocusPredictor, clip: ClipFrames) -> ClipFrames:
        """The clip with its boxes, if any are listed. Raises UserError for boxes that its frames cannot have."""
        boxes, size = self._boxes.get(Path(clip.name).resolve()), upright_size(clip.source)
        height, width = clip.source.height, clip.source.width
        if boxes is None or size is None or height is None or width is None:
            return clip
        if model.spec.fps is not None:
            raise UserError(
                f"{boxes[0].where}: boxes number the frames of the source, but this model sees {model.spec.fps:g} "
                "frames a second: leave --boxes out"
            )
        placed = place_in_frames(boxes, *size, clip.source.num_frames, is_whole=False)
        view = evaluation_view(height, width, model.config.data.resize, model.config.data.crop)
        seen_T4 = np.array(placed, np.float32)[clip.index_T]
        return replace(clip, boxes_T4=torch.from_numpy(view.place_boxes(seen_T4, height, width)))

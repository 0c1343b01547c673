"""Packed clips for a predictor: clips of the shards as the frames that `AdaFocusPredictor.read` makes of a file."""

from __future__ import annotations

from adafocus.data.batches import ClipMaker
from adafocus.data.clip_table import ClipTable
from adafocus.inference.prediction import ClipFrames
from adafocus.inference.predictor import AdaFocusPredictor
from preprocessing.media.extraction import Extraction


def packed_clip(predictor: AdaFocusPredictor, table: ClipTable, number: int) -> ClipFrames:
    """Frames of the clip with this number in the table, sampled and cropped as in the evaluation."""
    maker = ClipMaker(table, predictor.config.data, 0, False)
    batch = maker.make(0, [(number, table.read(number, maker.frames(0, number)))])
    glance_TCHW = batch.glance_BTCHW[0]
    focus_TCHW = glance_TCHW if batch.focus_BTCHW is batch.glance_BTCHW else batch.focus_BTCHW[0]
    index_T = predictor.focus_index(table.num_frames(number))
    source = Extraction("ok", num_frames=table.num_frames(number))
    boxes_T4 = None if batch.boxes_BT4 is None else batch.boxes_BT4[0]
    return ClipFrames(table.clip_ids[number], glance_TCHW, focus_TCHW, index_T, source, 0.0, boxes_T4)

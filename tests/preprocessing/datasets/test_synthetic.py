"""The data set made on the spot: same seed, same files; classes even; the digit where the boxes say it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.datasets import synthetic
from preprocessing.datasets.synthetic import SyntheticSpec
from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import ExtractionSpec

SPEC = SyntheticSpec(num_train=4, num_val=2, num_frames=6, fragments=2)


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.rglob("*.mp4"))}


def test_same_seed_same_files(tmp_path: Path) -> None:
    for name, spec in (("a", SPEC), ("b", SPEC), ("c", replace(SPEC, seed=1))):
        synthetic.make(tmp_path / name, spec)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.mp4")}
    synthetic.make(tmp_path / "a", SPEC)
    assert written == {path: path.stat().st_mtime_ns for path in written}, "what is there is kept"


def test_classes_are_even_and_splits_use_different_scans() -> None:
    for split, count in (("train", 1200), ("val", 300)):
        labels = synthetic._labels(SyntheticSpec(), split)
        assert Counter(labels.tolist()) == dict.fromkeys(range(10), count // 10)
        assert len(set(labels[:: count // 6].tolist())) > 1, "clips at even distances are not all of one class"
    train, _ = synthetic._scans("train")
    val, _ = synthetic._scans("val")
    assert len(train) + len(val) == 1797 and len(val) == 450


def test_the_coloured_digit_is_inside_its_box(tmp_path: Path) -> None:
    synthetic.make(tmp_path, SPEC)
    info, clips = synthetic.read_clips(tmp_path)
    assert info.class_names == tuple("0123456789") and not info.flip
    for clip in clips:
        assert clip.boxes is not None and len(clip.boxes) == SPEC.num_frames
        with extract_frames(tmp_path / clip.source, ExtractionSpec(height=SPEC.size)) as stream:
            for number, (jpeg, box) in enumerate(zip(stream, clip.boxes, strict=True)):
                (tmp_path / "x.jpg").write_bytes(jpeg)
                pixels = np.asarray(Image.open(tmp_path / "x.jpg")).astype(int)
                rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 2] > 90)  # red to yellow; all else is grey
                top, left, bottom, right = (round(side * SPEC.size) for side in box)
                assert len(rows) > 20, f"{clip.clip_id} frame {number} shows no digit"
                assert top - 2 <= rows.min() and rows.max() <= bottom + 1
                assert left - 2 <= columns.min() and columns.max() <= right + 1


@pytest.mark.parametrize("seed", range(20))
def test_the_path_stays_inside_and_is_smooth(seed: int) -> None:
    path = synthetic._drift(np.random.default_rng(seed), SyntheticSpec())
    assert path.min() >= 0 and path.max() <= 112 - 28
    assert np.abs(np.diff(path, axis=0)).max() <= 10

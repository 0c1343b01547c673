"""The data set made on the spot: same seed, same files; classes even; the digit where the boxes say it is."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.datasets import find_dataset, synthetic
from preprocessing.datasets.synthetic import SyntheticSpec
from preprocessing.media.frame_stream import extract_frames
from preprocessing.schema import ExtractionSpec, UserError

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


def state(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


def test_nothing_is_written_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, own, broken = tmp_path / "made", tmp_path / "own", tmp_path / "broken"
    synthetic.make(made, SPEC)
    (own / "val").mkdir(parents=True)
    (own / "val" / "00001.mp4").write_bytes(b"somebody's own")
    broken.mkdir()
    (broken / "synthetic.json").write_text("[]")
    before = state(tmp_path)
    with caplog.at_level(logging.INFO):
        find_dataset("synthetic").make(made)  # as the command line does
    assert (
        "made with num_train = 4, num_val = 2, num_frames = 6, fragments = 2, and are used as they are" in caplog.text
    )
    assert len(find_dataset("synthetic").read_clips(made)[1]) == 6
    for root, spec, wrong in (
        (made, replace(SPEC, num_frames=7), "synthetic.json: the videos there were made with num_frames = 6: give"),
        (own, SPEC, "00001.mp4 is no synthetic video"),
        (own, None, "00001.mp4 is no synthetic video"),
        (broken, None, "synthetic.json: this is no list of synthetic videos"),
    ):
        with pytest.raises(UserError, match=wrong):
            synthetic.make(root, spec)
    assert state(tmp_path) == before


def test_what_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    synthetic.make(tmp_path / "whole", SPEC)
    half, whole = tmp_path / "half", files(tmp_path / "whole")
    manifest = tmp_path / "whole" / "synthetic.json"
    shutil.copytree(tmp_path / "whole", half)
    (half / "synthetic.json").rename(half / "synthetic.started.json")  # as a killed run leaves it
    (half / "train" / "00002.mp4").unlink()
    with pytest.raises(UserError, match=r"started.json: the videos there were made with num_frames = 6"):
        synthetic.make(half, replace(SPEC, num_frames=7))
    synthetic.make(half, SPEC)
    assert files(half) == whole and (half / "synthetic.json").read_text() == manifest.read_text()
    assert not (half / "synthetic.started.json").exists()


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

"""A bad box is named before anything is extracted; a good one never."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.packing import start
from pipelines.preprocess.request import Request
from pipelines.preprocess.run import preprocess
from preprocessing.schema import ExtractionSpec, UserError
from preprocessing.shards.planning.probe_boxes import probe_boxes
from preprocessing.shards.planning.worklist import PLAN

SIZE = {"height": 48, "width": 64}


def write(root: Path, names: list[str], boxes: list[str], more: str = "") -> None:
    rows = [f"{name},a,{'val' if number else 'train'}{more}" for number, name in enumerate(names)]
    header = "path,label,split" + (",end_s" if more else "")
    (root / "manifest.csv").write_text("\n".join([header, *rows]))
    (root / "boxes.csv").write_text("\n".join(["path,frame,x,y,w,h", *boxes]))


def probe(root: Path, out: Path, spec: ExtractionSpec) -> None:
    job, _, work = start(root, out, spec)
    probe_boxes(job, work.open_plans)


@pytest.mark.parametrize(
    ("box", "wrong"),
    [("b.mp4,10,1,1,8,8", "csv:3: there is no frame 10: the source has 10"), ("b.mp4,9,64,1,8,8", "csv:3: .*64x48")],
)
def test_nothing_is_extracted_if_a_box_is_bad(
    box: str, wrong: str, tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for name in ("a.mp4", "b.mp4"):
        make_video(root / name, count=10, **SIZE)
    write(root, ["a.mp4", "b.mp4"], ["a.mp4,9,63,47,8,8", box])
    with pytest.raises(UserError, match=wrong):
        preprocess(Request("folder", root, str(out), ExtractionSpec(height=48), clips_per_shard=4))
    assert not [path.name for path in out.iterdir() if path.suffix in (".tar", ".parquet")]
    assert (out / PLAN).is_file()
    write(root, ["a.mp4", "b.mp4"], ["a.mp4,9,63,47,8,8", "b.mp4,9,1,1,8,8"])
    probe(root, out, ExtractionSpec(height=48))  # the folder is gone on with


def test_folders_of_frames_are_looked_at_too(
    tmp_path: Path, make_video: Callable[..., Path], run_ffmpeg: Callable[..., None]
) -> None:
    root = tmp_path / "root"
    video = make_video(tmp_path / "a.mp4", count=10, **SIZE)
    (root / "a").mkdir(parents=True)
    run_ffmpeg("-i", video, root / "a" / "%03d.jpg")
    write(root, ["a"], ["a,10,1,1,8,8"])
    with pytest.raises(UserError, match="there is no frame 10: the source has 10"):
        probe(root, tmp_path / "out", ExtractionSpec(height=48))


def test_what_is_not_known_is_not_held_against_a_box(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    """Missing and broken files get rows, damaged ones no boxes; behind the last frame that is asked for there may be
    others."""
    root = tmp_path / "root"
    make_video(root / "whole.mp4", count=90, **SIZE)
    data = bytearray(make_video(root / "damaged.mp4", count=90, seed=1, **SIZE).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    (root / "damaged.mp4").write_bytes(data)
    (root / "broken.mp4").write_bytes(b"none")
    names = ["damaged.mp4", "broken.mp4", "missing.mp4"]
    write(root, names, [f"{name},95,1,1,8,8" for name in names])
    probe(root, tmp_path / "one", ExtractionSpec(height=48))
    write(root, ["whole.mp4"], ["whole.mp4,95,1,1,8,8"])
    probe(root, tmp_path / "two", ExtractionSpec(height=48, max_frames=20))
    write(root, ["whole.mp4"], ["whole.mp4,95,1,1,8,8"], more=",1.0")
    probe(root, tmp_path / "three", ExtractionSpec(height=48))

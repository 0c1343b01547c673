"""Boxes in pixels of the source lie on the object in the packed frames, whatever was done to these."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adafocus.config.schema import DataConfig
from adafocus.data.clip_table import ClipTable
from adafocus.data.loader import ClipLoader
from helpers.packing import SPEC, finish, start
from pipelines.preprocess.request import Request
from preprocessing.clips import clips_digest
from preprocessing.datasets import find_dataset
from preprocessing.frame_choice import evaluation_frames
from preprocessing.schema import ExtractionSpec, UserError
from preprocessing.shards.index import read_index
from preprocessing.shards.mapped_index import MAPPED, map_index
from preprocessing.shards.planning.worklist import PLAN
from preprocessing.shards.storage import Store
from preprocessing.shards.verify import Problem, verify

Run = Callable[..., None]
WHITE = "drawbox=x={x}:y={y}:w={w}:h={h}:color=white:t=fill"
BOX = {"x": 30, "y": 8, "w": 20, "h": 16}


def make(run_ffmpeg: Run, path: Path, filters: str, *options: object, size: str = "96x64") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = f"color=black:s={size}:d=0.5:r=10,format=yuv420p,{filters}"
    run_ffmpeg("-f", "lavfi", "-i", source, "-c:v", "mpeg4", "-q:v", 1, *options, path)
    return path


def pack(root: Path, rows: list[str], out: Path, spec: ExtractionSpec = SPEC) -> Path:
    names = sorted(path.name for path in root.glob("*.mp4"))
    splits = {name: "val" if name.startswith("val") else "train" for name in names}
    (root / "manifest.csv").write_text("\n".join(["path,label,split", *(f"{name},a,{splits[name]}" for name in names)]))
    (root / "boxes.csv").unlink(missing_ok=True)
    if rows:
        (root / "boxes.csv").write_text("\n".join(["path,frame,x,y,w,h", *rows]))
    finish(*start(root, out, spec))
    return out


def row(name: str, frame: int, x: float, y: float, w: float, h: float) -> str:
    return f"{name},{frame},{x},{y},{w},{h}"


@pytest.mark.parametrize("kind", ["plain", "wide pixels", "on its side", "upside down"])
def test_the_box_is_where_the_object_is(kind: str, tmp_path: Path, run_ffmpeg: Run) -> None:
    white = WHITE.format(**BOX)
    path = make(run_ffmpeg, tmp_path / "made" / "a.mp4", white + (",setsar=4/3" if kind == "wide pixels" else ""))
    root = tmp_path / "root"
    root.mkdir()
    turn = {"on its side": 90, "upside down": 180}.get(kind, 0)
    run_ffmpeg(*(("-display_rotation", turn) if turn else ()), "-i", path, "-c", "copy", root / "a.mp4")
    x, y, w, h = BOX.values()
    seen = {  # ffmpeg turns counter-clockwise
        0: (x, y, w, h),
        90: (y, 96 - x - w, h, w),
        180: (96 - x - w, 64 - y - h, w, h),
    }[turn]
    out = pack(root, [row("a.mp4", 2, *seen)], tmp_path / "out")
    table = ClipTable(out, "train")
    boxes = table.boxes(0)
    assert boxes is not None and np.isnan(boxes[[0, 1, 3, 4]]).all()
    (jpeg,) = table.read(0, np.array([2]))
    frame = np.asarray(Image.open(io.BytesIO(jpeg.tobytes())).convert("L")) > 128
    rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
    found = [rows[0] / frame.shape[0], columns[0] / frame.shape[1]]
    found += [(rows[-1] + 1) / frame.shape[0], (columns[-1] + 1) / frame.shape[1]]
    assert np.abs(boxes[2] - found).max() < 0.03
    assert not [each for each in verify(Store(out)) if isinstance(each, Problem)]  # NaN is equal to NaN there


def test_a_clip_without_boxes_does_not_cost_the_others_theirs(tmp_path: Path, run_ffmpeg: Run) -> None:
    root = tmp_path / "root"
    for name in ("a.mp4", "b.mp4", "val.mp4"):
        make(run_ffmpeg, root / name, WHITE.format(**BOX))
    out = pack(root, [row("a.mp4", frame, *BOX.values()) for frame in range(5)], tmp_path / "out")
    data = DataConfig(num_frames=3, num_focus_frames=3, resize=48, crop=48)
    (batch,) = ClipLoader(out, "train", data, batch_size=2, train=False)
    assert batch.boxes_BT4 is not None
    assert batch.boxes_BT4[0].isfinite().all() and batch.boxes_BT4[1].isnan().all()
    (other,) = ClipLoader(out, "val", data, batch_size=2, train=False)
    assert other.boxes_BT4 is None  # a split without any


def test_boxes_that_no_frame_can_have_are_named(tmp_path: Path, run_ffmpeg: Run) -> None:
    root = tmp_path / "root"
    make(run_ffmpeg, root / "a.mp4", WHITE.format(**BOX))
    good = row("a.mp4", 0, *BOX.values())
    with pytest.raises(UserError, match=r"boxes.csv:3: there is no frame 5: the source has 5"):
        pack(root, [good, row("a.mp4", 5, *BOX.values())], tmp_path / "one")
    with pytest.raises(UserError, match=r"boxes.csv:3: the box lies outside of the picture, which has 96x64"):
        pack(root, [good, row("a.mp4", 1, 200, 8, 20, 16)], tmp_path / "two")
    capped = ExtractionSpec(height=48, max_frames=3)  # then there may be frames behind
    assert ClipTable(pack(root, [good, row("a.mp4", 4, *BOX.values())], tmp_path / "three", capped), "train").has_boxes


def contents(out: Path) -> dict[str, int]:
    """When the files of each shard were written."""
    return {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.stem.startswith("train")}


def test_mended_boxes_cost_no_new_extraction(tmp_path: Path, run_ffmpeg: Run) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for name in ("a.mp4", "b.mp4"):
        make(run_ffmpeg, root / name, WHITE.format(**BOX))
    good, bad = row("a.mp4", 0, *BOX.values()), [row(name, 5, *BOX.values()) for name in ("a.mp4", "b.mp4")]
    message = (
        r"csv:3: there is no frame 5: .* \(and boxes of 1 other clips are wrong\); mend that and start again: what"
    )
    with pytest.raises(UserError, match=message):
        pack(root, [good, *bad], out)
    written = contents(out)
    assert len(written) == 2
    found = []
    for rows in ([good], [good, row("b.mp4", 1, *BOX.values())], []):
        index = read_index(Store(pack(root, rows, out)))
        found.append((index.digest, index.boxes, index.table["boxes"].null_count))
        assert contents(out) == written
        assert not [each for each in verify(Store(out)) if isinstance(each, Problem)]
        assert map_index(Store(out))[0].boxes == index.boxes
    assert len({digest for digest, _, _ in found}) == 1 and len({boxes for _, boxes, _ in found}) == 3
    assert [nulls for _, _, nulls in found] == [1, 0, 2]


def test_boxes_of_an_earlier_versions_folder_are_kept_while_they_are_the_same(tmp_path: Path, run_ffmpeg: Run) -> None:
    """Its rows have the boxes, and not the source's size; its plan is of clips with these boxes."""
    root = tmp_path / "root"
    make(run_ffmpeg, root / "a.mp4", WHITE.format(**BOX))
    rows = [row("a.mp4", 0, *BOX.values())]
    out = pack(root, rows, tmp_path / "out")
    boxes, (tar,) = read_index(Store(out)).table["boxes"], out.glob("train-*.tar")
    old = pq.read_table(tar.with_suffix(".parquet")).drop_columns(["source_height", "source_width", "boxes"])
    pq.write_table(old.append_column("boxes", boxes), tar.with_suffix(".parquet"))
    plan = json.loads((out / PLAN).read_text())
    plan["identity"]["clips"] = clips_digest(find_dataset("folder").read_clips(root)[1], source_boxes=True)
    (out / PLAN).write_text(json.dumps(plan))
    assert read_index(Store(pack(root, rows, out))).table["boxes"].to_pylist()[0][0] == boxes.to_pylist()[0][0]
    with pytest.raises(UserError, match="was started with clips ="):
        pack(root, [row("a.mp4", 1, *BOX.values())], out)


def test_other_frames_than_the_sources_are_refused(tmp_path: Path, run_ffmpeg: Run) -> None:
    root = tmp_path / "root"
    make(run_ffmpeg, root / "a.mp4", WHITE.format(**BOX))
    pack(root, [row("a.mp4", 0, *BOX.values())], tmp_path / "out")
    with pytest.raises(UserError, match=r"boxes.csv:2: boxes number the frames of the source, but --fps 5"):
        Request("folder", root, str(tmp_path / "other"), ExtractionSpec(height=48, fps=5)).opened().__enter__()


def test_damage_may_have_cost_frames_so_that_boxes_are_left_out(tmp_path: Path, run_ffmpeg: Run) -> None:
    root = tmp_path / "root"
    frames = make(run_ffmpeg, root / "a" / "%02d.jpg", WHITE.format(**BOX), "-c:v", "mjpeg").parent
    (frames / "02.jpg").write_bytes(b"none")
    make(run_ffmpeg, root / "b.mp4", WHITE.format(**BOX))
    (root / "manifest.csv").write_text("path,label,split\na,a,train\nb.mp4,a,train\n")
    (root / "boxes.csv").write_text("path,frame,x,y,w,h\n" + "\n".join(f"{n},0,30,8,20,16" for n in ("a", "b.mp4")))
    index = finish(*start(root, tmp_path / "out"))
    assert index.table["status"].to_pylist() == ["damaged", "ok"]
    assert index.table["boxes"].is_valid().to_pylist() == [False, True]


def test_new_boxes_are_not_taken_for_old_ones(tmp_path: Path, run_ffmpeg: Run) -> None:
    """The digest is that of the frames, so a mapped copy of the rows has to be told apart otherwise."""
    root = tmp_path / "root"
    make(run_ffmpeg, root / "a.mp4", WHITE.format(**BOX))
    one = pack(root, [row("a.mp4", 0, *BOX.values())], tmp_path / "one")
    two = pack(root, [row("a.mp4", 1, *BOX.values())], tmp_path / "two")
    first, second = (read_index(Store(each)) for each in (one, two))
    assert first.digest == second.digest and first.boxes != second.boxes and first.boxes
    (two / MAPPED).write_bytes((one / MAPPED).read_bytes())
    assert map_index(Store(two))[0].boxes == second.boxes


def test_where_few_frames_are_packed_each_has_its_own_box(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    root = tmp_path / "root"
    make_video(root / "a.mp4", count=120, height=48, width=240)
    rows = [row("a.mp4", number, number, 10, 20, 16) for number in range(120) if number % 2]
    out = pack(root, rows, tmp_path / "out", ExtractionSpec(height=48, frames_per_clip=5))
    data = DataConfig(num_frames=8, num_focus_frames=8, resize=48, crop=48)
    (batch,) = ClipLoader(out, "train", data, batch_size=1, train=False)
    assert batch.boxes_BT4 is not None
    left_T = batch.boxes_BT4[0, :, 1] + (240 - 48) / 2
    wanted = [number if number % 2 else np.nan for number in evaluation_frames(120, 8).tolist()]
    np.testing.assert_allclose(left_T.numpy(), wanted, atol=0.01)

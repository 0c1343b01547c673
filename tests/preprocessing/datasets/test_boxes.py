"""boxes.csv: what is wrong with it is named with file and line, and the rest reaches its clips."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from preprocessing.clips import clips_digest
from preprocessing.datasets import find_dataset
from preprocessing.schema import Clip, UserError

HEADER = "path,frame,x,y,w,h\n"


def read(root: Path, boxes: str | None, manifest: str = "a.mp4,x,train\nsub/b.mp4,y,val\n") -> list[Clip]:
    (root / "manifest.csv").write_text("path,label,split\n" + manifest)
    (root / "boxes.csv").unlink(missing_ok=True)
    if boxes is not None:
        (root / "boxes.csv").write_text(HEADER + boxes)
    return find_dataset("folder").read_clips(root)[1]


def test_boxes_reach_their_clips_in_the_order_of_frames(tmp_path: Path) -> None:
    first, second = read(tmp_path, "./a.mp4,3,1.5,2,3,4\na.mp4,0,-1,0,5,6\n")
    assert second.source_boxes is None and first.source_boxes is not None
    assert [(box.frame, box.x, box.y, box.width, box.height) for box in first.source_boxes] == [
        (0, -1, 0, 5, 6),
        (3, 1.5, 2, 3, 4),
    ]


def test_folders_of_classes_may_have_boxes_too(tmp_path: Path) -> None:
    for name in ("x/1.mp4", "y/2.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "boxes.csv").write_text(HEADER + "y/2.mp4,0,1,2,3,4\n")
    clips = find_dataset("folder").read_clips(tmp_path)[1]
    assert [clip.source_boxes is not None for clip in clips] == [False, True]


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ("a.mp4,0,1,2,3\n", "boxes.csv:2: the row does not have"),
        ("a.mp4,0,1,2,3,4\na.mp4,one,1,2,3,4\n", "boxes.csv:3: frame is 'one'"),
        ("a.mp4,-1,1,2,3,4\n", "boxes.csv:2: frame is -1"),
        ("a.mp4,0,left,2,3,4\n", "boxes.csv:2: x is 'left'"),
        ("a.mp4,0,1_0,2,3,4\n", "boxes.csv:2: x is '1_0'"),
        ("a.mp4,0,1,2,nan,4\n", "boxes.csv:2: w is 'nan'"),
        ("a.mp4,0,1,2,3,0\n", "boxes.csv:2: the box has 3 x 0 pixels"),
        (
            "a.mp4,0,1,2,3,4\n./a.mp4,0,1,2,3,5\n",
            r"boxes.csv:3: frame 0 of 'a.mp4' has a box already, at .*csv:2",
        ),
        ("c.mp4,0,1,2,3,4\n", "boxes.csv: no row is of a clip"),
        ("a.mp4,3,0.1,0.2,0.3,0.8\nb.mp4,0,0,0,1,1\n", "boxes.csv:2: all boxes of the file lie within the first pixel"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: str, wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        read(tmp_path, rows)


def test_boxes_of_other_files_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(tmp_path, "a.mp4,0,1,2,3,4\nc.mp4,0,1,2,3,4\nd.mp4,0,1,2,3,4\n")
    assert "boxes.csv:3: boxes of 'c.mp4' (and of 1 more) are left out, for that is no clip" in caplog.text


def test_a_clip_that_begins_inside_its_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,label,split,start_s\na.mp4,x,train,2.5\n")
    (tmp_path / "boxes.csv").write_text(HEADER + "a.mp4,0,1,2,3,4\n")
    with pytest.raises(UserError, match=r"boxes.csv:2: boxes number the frames of a whole file.*2.5 s"):
        find_dataset("folder").read_clips(tmp_path)


def test_boxes_do_not_change_what_is_packed(tmp_path: Path) -> None:
    none, some = read(tmp_path, None), read(tmp_path, "a.mp4,0,1,2,3,4\n")
    later = read(tmp_path, "a.mp4,1,1,2,3,4\n")
    below = read(tmp_path, "c.mp4,0,1,2,3,4\na.mp4,0,1,2,3,4\n")
    assert len({clips_digest(each) for each in (none, some, later)}) == 1
    known = [clips_digest(each, source_boxes=True) for each in (none, some, later, below)]  # of earlier versions
    assert len(set(known)) == 3 and known[1] == known[3]

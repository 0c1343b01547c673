"""Annotation files: what is right is read, what is wrong is named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.clips import ClipList, clips_digest, resolve_source, source_bytes
from preprocessing.datasets.annotations import class_list, csv_rows
from preprocessing.datasets.videos import Videos
from preprocessing.schema import Clip, UserError


def clip(clip_id: str = "a", split: str = "train", label: int = 0, **more: object) -> Clip:
    return Clip("folder", split, clip_id, more.pop("source", f"{clip_id}.mp4"), (label,), **more)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (clip("a"), "list:2: clip 'a' appears twice .first at list:1."),
        (clip("a", split="val"), "list:2: clip 'a' is in two splits, train and val .first at list:1."),
        (clip("b", label=3), r"list:2: label 3 is not in 0\.\.2"),
        (clip("b", label=-1), "list:2: label -1"),
        (clip("b", split="dev"), "list:2: split 'dev' is none of train, val, test"),
        (clip(""), "list:2: '' cannot name a clip"),
        (clip("a\nb"), "cannot name a clip"),
        (clip("b", start_s=4.0, end_s=4.0), "list:2: the time range 4 to 4 s is empty"),
    ],
)
def test_wrong_clips(second: Clip, message: str) -> None:
    clips = ClipList(num_classes=3)
    clips.add(clip("a"), "list:1")
    with pytest.raises(UserError, match=message):
        clips.add(second, "list:2")


@given(st.text(min_size=1).filter(lambda text: all(ord(letter) >= 32 for letter in text)))
def test_any_printable_id_is_kept_as_it_is(clip_id: str) -> None:
    clips = ClipList(1)
    clips.add(clip(clip_id), "x:1")
    assert clips.clips[0].clip_id == clip_id


@pytest.mark.parametrize(
    "text", ["0,walk\n1,run a bit\n", "walk\nrun a bit\n", "1,run a bit\n0,walk\n", "\n0 walk\n1 run a bit"]
)
def test_class_list_forms(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.txt").write_text(text)
    assert class_list(tmp_path / "c.txt") == ("walk", "run a bit")


@pytest.mark.parametrize("text", ["0,a\n0,b\n", "0,a\n2,b\n", "a\na\n", ""])
def test_class_list_refuses(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(UserError, match=r"c\.txt"):
        class_list(tmp_path / "c.txt")


def test_csv_refuses(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("path,label\nx,1\ny\n")
    with pytest.raises(UserError, match=r"m.csv:1: no column 'split'"):
        list(csv_rows(path, ("path", "label", "split")))
    with pytest.raises(UserError, match=r"m.csv:3: the row does not"):
        list(csv_rows(path, ("path", "label")))
    path.write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(UserError, match="not a CSV file"):
        list(csv_rows(path, ("path", "label")))


def test_videos_are_found_by_path_by_name_and_by_hint(tmp_path: Path) -> None:
    for name in ("train/a.b.mp4", "val/a.b.mp4", "deep/er/v_x.webm", "up.MKV", "notes.txt", "jpegs/7/00001.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    videos = Videos(tmp_path)
    assert videos.find(["a.b"], hint="val") == "val/a.b.mp4"
    assert videos.find(["a.b"]) == "train/a.b.mp4"
    assert videos.find(["val/a.b"]) == "val/a.b.mp4"
    assert videos.find(["x", "v_x"]) == "deep/er/v_x.webm"
    assert videos.find(["up"]) == "up.MKV"
    assert videos.find(["notes"]) is None
    assert videos.find(["7"]) is None
    frames = Videos(tmp_path, frame_folders=True)
    assert frames.kind(frames.find(["7"])) == "frames"


@pytest.mark.parametrize("source", ["../outside.mp4", "/etc/passwd", "a/../../b", "link/secret.mp4", "link.mp4", ""])
def test_sources_stay_below_the_root(tmp_path: Path, source: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    (root / "link.mp4").symlink_to(outside / "secret.mp4")
    with pytest.raises(ValueError, match="leaves the data root"):
        resolve_source(root, source)
    assert source_bytes(root, clip("x", source=source)) == -1


def test_digest_knows_every_field_and_the_order() -> None:
    clips = [clip("a"), clip("b")]
    others = [[clip("b"), clip("a")], [clip("a"), clip("b", label=1)], [clip("a"), clip("b", end_s=2.0)], clips[:1]]
    assert len({clips_digest(other) for other in (clips, *others)}) == 5

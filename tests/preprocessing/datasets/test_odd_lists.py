"""Odd manifests, releases and folders: each is an error that names its place, or is read right."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from preprocessing.datasets import find_dataset
from preprocessing.schema import Clip, UserError
from preprocessing.sources import measure_sources

MANIFEST = "path,label,split\n"


def read(dataset: str, root: Path) -> list[Clip]:
    return find_dataset(dataset).read_clips(root)[1]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


@pytest.mark.parametrize("label", ["nan", "NaN", "None", "NULL", "<NA>", "N/A"])
def test_what_programs_write_for_no_label_is_no_class(tmp_path: Path, label: str) -> None:
    (tmp_path / "manifest.csv").write_text(f"{MANIFEST}a,walk,train\nb,{label},val\n")
    with pytest.raises(UserError, match=f"manifest.csv:3: label '{label}' is what programs write"):
        read("folder", tmp_path)
    (tmp_path / "classes.txt").write_text(f"walk\n{label}\n")
    assert [clip.labels for clip in read("folder", tmp_path)] == [(0,), (1,)]


@pytest.mark.parametrize("name", ["Start_s", "END_S", " end_s", "Clip_ID "])
def test_a_column_that_is_nearly_one_of_ours_is_not_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "manifest.csv").write_text(f"path,label,split,{name}\na,walk,train,1\n")
    with pytest.raises(UserError, match=f"manifest.csv:1: the column '{name}' would not be read"):
        read("folder", tmp_path)


@pytest.mark.parametrize(
    ("names", "is_said"), [("start,end", True), ("time_start,sensor", True), ("sensor,frames", False)]
)
def test_other_columns_of_times_are_said(
    tmp_path: Path, names: str, is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "manifest.csv").write_text(f"path,label,split,{names}\na,walk,train,1,2\n")
    with caplog.at_level(logging.WARNING):
        read("folder", tmp_path)
    assert ("not read: start_s and end_s cut clips" in caplog.text) == is_said


@pytest.mark.parametrize("cut", ["0,1", "1,", ",2"])
def test_a_folder_of_frames_has_no_seconds_to_cut_by(tmp_path: Path, cut: str) -> None:
    touch(tmp_path, "frames/1.jpg")
    (tmp_path / "manifest.csv").write_text(f"path,label,split,start_s,end_s\nframes,x,train,{cut}\n")
    with pytest.raises(UserError, match=r"manifest.csv:2: 'frames' is a folder of frames, which has no clock"):
        read("folder", tmp_path)


@pytest.mark.parametrize("times", ["nan,10", "1_0,20", "-5,5", "5,2", "1,inf", "1:00,2:00"])
def test_bad_times_of_kinetics_are_said_where_they_stand(tmp_path: Path, times: str) -> None:
    touch(tmp_path, "aaa.mp4")
    (tmp_path / "train_ytid_list.txt").write_text("aaa\n")
    (tmp_path / "kinetics-400_train.csv").write_text(f"label,youtube_id,time_start,time_end\nrun,aaa,{times}\n")
    with pytest.raises(UserError, match=r"kinetics-400_train.csv:2: "):
        read("minikinetics", tmp_path)


@pytest.mark.parametrize("identity", [None, 7.0, True, ["7"], {}])
def test_ids_of_something_something_are_names(tmp_path: Path, identity: object) -> None:
    entries = [{"id": "1", "template": "Push"}, {"id": identity, "template": "Pull"}]
    (tmp_path / "train.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match=r"train.json: entry 1: id .* is no name of a video"):
        read("ssv2", tmp_path)


def test_the_head_of_a_list_is_no_clip(tmp_path: Path) -> None:
    (tmp_path / "something-something-v1-train.csv").write_text("video_id;label\n7;Push\n")
    assert [clip.clip_id for clip in read("ssv1", tmp_path)] == ["7"]


def test_links_upwards_bring_no_other_class_in(tmp_path: Path) -> None:
    touch(tmp_path, "run/1.mp4", "walk/2.mp4")
    (tmp_path / "run" / "up").symlink_to("..")
    (tmp_path / "walk" / "here").symlink_to(".")
    assert [clip.source for clip in read("folder", tmp_path)] == ["run/1.mp4", "walk/2.mp4"]


@pytest.mark.parametrize("name", ["$RECYCLE.BIN", "System Volume Information", "#recycle", "__pycache__"])
def test_folders_of_systems_are_no_classes(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "train/run/1.mp4", "val/run/2.mp4", f"train/{name}/3.mp4")
    assert [clip.source for clip in read("folder", tmp_path)] == ["train/run/1.mp4", "val/run/2.mp4"]


def test_a_file_with_two_labels_by_a_link_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "run/1.mp4", "walk/2.mp4")
    (tmp_path / "walk" / "1.mp4").symlink_to("../run/1.mp4")
    (tmp_path / "run" / "again.mp4").symlink_to("1.mp4")
    with caplog.at_level(logging.WARNING):
        measure_sources(tmp_path, read("folder", tmp_path))
    assert "1 clips are the file of another clip, by links, and have other labels" in caplog.text
    assert "'run/1.mp4' and 'walk/1.mp4'" in caplog.text

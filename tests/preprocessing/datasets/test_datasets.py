"""Each benchmark's annotations in their real form, good and bad."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.datasets import DATASETS, find_dataset
from preprocessing.datasets.lists import read_list
from preprocessing.schema import Clip, DatasetInfo, UserError


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def read(name: str, root: Path) -> tuple[DatasetInfo, dict[str, Clip]]:
    info, clips = find_dataset(name).read_clips(root)
    return info, {clip.clip_id: clip for clip in clips}


def test_names_and_short_names() -> None:
    short = {"actnet": "activitynet", "minik": "minikinetics", "somethingv1": "ssv1", "somethingv2": "ssv2"}
    for name in [dataset.name for dataset in DATASETS]:
        assert find_dataset(name).name == name
    for alias, name in short.items():
        assert find_dataset(alias).name == name
    with pytest.raises(UserError, match=r"unknown data set 'activitinet'; did you mean 'activitynet'"):
        find_dataset("activitinet")


@pytest.mark.parametrize("name", ["activitynet", "fcvid", "minikinetics", "ssv1", "ssv2", "folder"])
def test_no_annotations(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        find_dataset(name).read_clips(tmp_path)


def test_activitynet_lists(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "annotations/actnet_train_split.txt": "sJFgo9H6zNo,4165,57\n--0edUL8zmA,2303,42,42,7,42\n",
            "annotations/actnet_val_split.txt": "_uOfIm1tFcI,3998,180\n",
            "videos/v_sJFgo9H6zNo.mp4": b"",
            "videos/--0edUL8zmA.mkv": b"",
        },
    )
    info, clips = read("actnet", root)
    assert (info.num_classes, info.metric, info.flip, info.pad) == (200, "map", True, "last")
    assert info.annotations == "actnet_train_split.txt, actnet_val_split.txt"
    assert clips["sJFgo9H6zNo"].source == "videos/v_sJFgo9H6zNo.mp4"
    assert clips["--0edUL8zmA"] == Clip(
        "activitynet", "train", "--0edUL8zmA", "videos/--0edUL8zmA.mkv", (42, 7), listed_frames=2303
    )
    assert (clips["_uOfIm1tFcI"].split, clips["_uOfIm1tFcI"].source) == ("val", "v__uOfIm1tFcI.mp4")


ACTIVITYNET = {
    "aaaaaaaaaaa": {"subset": "training", "annotations": [{"label": "Zumba", "segment": [0, 1]}] * 2},
    "bbbbbbbbbbb": {
        "subset": "validation",
        "annotations": [{"label": "Zumba", "segment": [0, 1]}, {"label": "Archery", "segment": [2, 3]}],
    },
    "ccccccccccc": {"subset": "testing", "annotations": []},
}


def test_activitynet_release(tmp_path: Path) -> None:
    root = write(tmp_path, {"activity_net.v1-3.min.json": json.dumps({"database": ACTIVITYNET})})
    info, clips = read("activitynet", root)
    assert info.class_names == ("Archery", "Zumba")
    assert {clip_id: (clip.split, clip.labels) for clip_id, clip in clips.items()} == {
        "aaaaaaaaaaa": ("train", (1,)),
        "bbbbbbbbbbb": ("val", (1, 0)),
    }
    write(root, {"classInd.txt": "0,Zumba\n1,Archery\n"})
    info, clips = read("activitynet", root)
    assert info.class_names == ("Zumba", "Archery")
    assert clips["bbbbbbbbbbb"].labels == (0, 1)
    write(root, {"classInd.txt": "0,Zumba\n1,Bowling\n"})
    with pytest.raises(UserError, match=r"label 'Archery' is not in classInd.txt"):
        read("activitynet", root)


@pytest.mark.parametrize("annotation", ["{}", '{"label": null}', '{"label": " "}', '{"label": 3}', "7"])
def test_bad_labels_of_a_release(tmp_path: Path, annotation: str) -> None:
    entry = {"subset": "training", "annotations": [json.loads(annotation)]}
    text = json.dumps({"database": {"aaaaaaaaaaa": entry}})
    root = write(tmp_path, {"activity_net.v1-3.min.json": text, "classInd.txt": "0,Zumba\n"})
    with pytest.raises(UserError, match=r"database\['aaaaaaaaaaa'\]: "):
        read("activitynet", root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x,100,", "actnet_train_split.txt:2: a label is ''"),
        ("x,100,-1", "actnet_train_split.txt:2: label -1"),
        ("x,100,1.0", "actnet_train_split.txt:2: a label is '1.0'"),
        ("x,9999999999,3", "actnet_train_split.txt:2: the number of frames is 9999999999"),
        ("x,100", "actnet_train_split.txt:2: .* is not of the form name,num_frames,label"),
        ("x,many,3", "actnet_train_split.txt:2: the number of frames is 'many'"),
        ("x,0,3", "actnet_train_split.txt:2: the number of frames is 0"),
        ("x,100,walk", "actnet_train_split.txt:2: a label is 'walk'"),
        ("x,100,200", r"actnet_train_split.txt:2: label 200 is not in 0\.\.199"),
        (",100,2", "actnet_train_split.txt:2"),
        ("good,100,2", "actnet_train_split.txt:2: clip 'good' appears twice"),
        ("other,100,2", "actnet_val_split.txt:1: clip 'other' is in two splits"),
    ],
)
def test_bad_list_lines(tmp_path: Path, line: str, message: str) -> None:
    root = write(tmp_path, {"actnet_train_split.txt": f"good,10,1\n{line}\n", "actnet_val_split.txt": "other,10,1\n"})
    with pytest.raises(UserError, match=message):
        read("activitynet", root)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.text("abc-_. '\"%é:;", min_size=1).filter(lambda text: text.strip() == text),
            st.integers(1, 10**6),
            st.integers(0, 400),
        ),
        max_size=5,
    ),
    st.sampled_from([",", " "]),
)
def test_lists_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list, separator: str) -> None:
    path = tmp_path_factory.mktemp("list") / "list.txt"
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
    assert [(row.name, row.num_frames, *row.labels) for row in read_list(path, separator)] == rows


def test_fcvid(tmp_path: Path) -> None:
    root = write(
        tmp_path / "lists",
        {"fcvid_train_split.txt": "surfing/a b,120,3,17,238\n", "fcvid_val_split.txt": "c.mp4,60,0\n", "x/c.mp4": b""},
    )
    info, clips = read("fcvid", root)
    assert (info.num_classes, info.metric) == (239, "map")
    assert clips["surfing/a b"].labels == (3, 17, 238)
    assert clips["c.mp4"].source == "x/c.mp4"
    bits = [["0"] * 239 for _ in range(2)]
    bits[0][5] = bits[0][9] = bits[1][0] = "1"
    release = {
        "materials/FCVID_VideoName_TrainTestSplit.txt": "dir/one.flv\ttrain\ndir/two.flv\ttest\n",
        "materials/FCVID_Label.txt": "\n".join(" ".join(row) for row in bits) + "\n",
        "videos/dir/one.flv": b"",
    }
    _, clips = read("fcvid", write(tmp_path / "release", release))
    assert (clips["dir/one"].labels, clips["dir/one"].split, clips["dir/one"].source) == (
        (5, 9),
        "train",
        "videos/dir/one.flv",
    )
    assert (clips["dir/two"].labels, clips["dir/two"].split) == ((0,), "val")
    write(tmp_path / "release", {"materials/FCVID_Label.txt": "1 0\n0 1\n"})
    with pytest.raises(UserError, match=r"FCVID_Label.txt:1: not 239 values"):
        read("fcvid", tmp_path / "release")


def test_minikinetics_lists(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "mini_train_videofolder.txt": "belly dancing/zkyy5cC7SL4_000000_000010 300 8\n",
            "mini_val_videofolder.txt": "s5Fdh_C6rWk 250 199\n",
            "train/belly dancing/zkyy5cC7SL4_000000_000010.mp4": b"",
            "val/s5Fdh_C6rWk.webm": b"",
        },
    )
    info, clips = read("minik", root)
    assert (info.num_classes, info.metric) == (200, "top1")
    first = clips["belly dancing/zkyy5cC7SL4_000000_000010"]
    assert (first.source, first.labels, first.listed_frames, first.start_s) == (
        "train/belly dancing/zkyy5cC7SL4_000000_000010.mp4",
        (8,),
        300,
        None,
    )
    assert clips["s5Fdh_C6rWk"].source == "val/s5Fdh_C6rWk.webm"


KINETICS = """label,youtube_id,time_start,time_end,split,is_cc
abseiling,0wR5jVB-WPk,417,427,val,0
air drumming,3caPS4FHFF8,36,46,val,0
"""


def test_minikinetics_release(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "kinetics-400_val.csv": KINETICS,
        "val_ytid_list.txt": "3caPS4FHFF8\n0wR5jVB-WPk\n",
        "air drumming/3caPS4FHFF8_000036_000046.mp4": b"",
        "whole/0wR5jVB-WPk.mkv": b"",
    }
    info, clips = read("minikinetics", write(tmp_path, files))
    assert info.class_names == ("abseiling", "air drumming")
    assert info.annotations == "val_ytid_list.txt, kinetics-400_val.csv"
    trimmed, whole = clips["3caPS4FHFF8"], clips["0wR5jVB-WPk"]
    assert (trimmed.source, trimmed.start_s) == ("air drumming/3caPS4FHFF8_000036_000046.mp4", None)
    assert (whole.source, whole.start_s, whole.end_s) == ("whole/0wR5jVB-WPk.mkv", 417.0, 427.0)
    for row, message in (
        ("air drumming,3caPS4FHFF8,40,50,val,0", r"val.csv:4: '3caPS4FHFF8' has another label or time than at .*:3"),
        (",3caPS4FHFF8,36,46,val,0", "has another label"),
        ("abseiling,x,nan,50,val,0", r"val.csv:4: nan to 50 s is no range of time"),
    ):
        write(tmp_path, {"kinetics-400_val.csv": f"{KINETICS}{row}\n"})
        with pytest.raises(UserError, match=message):
            read("minikinetics", tmp_path)
    write(tmp_path, {"kinetics-400_val.csv": KINETICS})
    write(tmp_path, {"train_ytid_list.txt": "kIRmvrmc2nM\n2B65vtRd5Ck\n"})
    with pytest.raises(UserError, match=r"train_ytid_list.txt:1: 'kIRmvrmc2nM' and 1 other ids are in none of"):
        read("minikinetics", tmp_path)


def test_ssv1(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "something-something-v1-labels.csv": "Holding something\nPutting something, on something\n",
            "something-something-v1-train.csv": "100218;Putting something, on something\n",
            "something-something-v1-validation.csv": "7;Holding something\n",
            "20bn-something-something-v1/100218/00001.jpg": b"",
        },
    )
    info, clips = read("ssv1", root)
    assert (info.flip, info.pad, info.metric) == (False, "first", "top1")
    assert clips["100218"] == Clip(
        "ssv1", "train", "100218", "20bn-something-something-v1/100218", (1,), source_kind="frames"
    )
    assert (clips["7"].labels, clips["7"].source_kind) == ((0,), "frames")
    write(root, {"something-something-v1-train.csv": "1;Holding something\n2 Holding something\n"})
    with pytest.raises(UserError, match=r"something-something-v1-train.csv:2: .* not of the form id;label"):
        read("ssv1", root)
    write(root, {"something-something-v1-train.csv": "1;Throwing something\n"})
    with pytest.raises(UserError, match=r"train.csv:1: label 'Throwing something' is not in the labels file"):
        read("ssv1", root)


def test_ssv2(tmp_path: Path) -> None:
    template = "Putting [something] on [something]"
    entry = {"id": "78687", "label": "putting potato on box", "template": template, "placeholders": ["potato", "box"]}
    root = write(
        tmp_path,
        {
            "labels.json": json.dumps({"Holding something": "1", "Putting something on something": "0"}),
            "something-something-v2-train.json": json.dumps([entry]),
            "something-something-v2-validation.json": json.dumps([entry | {"id": "5"}]),
            "20bn-something-something-v2/78687.webm": b"",
        },
    )
    info, clips = read("somethingv2", root)
    assert info.class_names == ("Putting something on something", "Holding something")
    assert (clips["78687"].source, clips["78687"].labels) == ("20bn-something-something-v2/78687.webm", (0,))
    assert (clips["5"].source, clips["5"].source_kind, clips["5"].split) == ("5.webm", "video", "val")
    write(root, {"something-something-v2-train.json": '[{"id": 1},\n'})
    with pytest.raises(UserError, match=r"something-something-v2-train.json:2: not JSON"):
        read("ssv2", root)


def test_tsm_lists(tmp_path: Path) -> None:
    lists = {"train_videofolder.txt": "78687 40 173\n", "val_videofolder.txt": "5 12 0\n", "frames/5/000001.jpg": b""}
    info, clips = read("ssv2", write(tmp_path, lists))
    assert (info.num_classes, info.annotations) == (174, "train_videofolder.txt, val_videofolder.txt")
    assert (clips["78687"].labels, clips["78687"].listed_frames) == ((173,), 40)
    assert (clips["5"].source, clips["5"].source_kind) == ("frames/5", "frames")
    write(tmp_path, {"category.txt": "only\nthree\nclasses\n"})
    with pytest.raises(UserError, match=r"category.txt: 3 classes, the data set has 174"):
        read("ssv2", tmp_path)


def test_folder_manifest(tmp_path: Path) -> None:
    manifest = "path,class,label,split,frames\nv/a.mp4,walk,1,train,9\nv/b.mp4,run,0,validation,9\n"
    info, clips = read("folder", write(tmp_path, {"manifest.csv": manifest}))
    assert info.class_names == ("run", "walk")
    assert (clips["v/a.mp4"].labels, clips["v/b.mp4"].split) == ((1,), "val")
    cut = "path,label,split,start_s,end_s\nv/a.mp4,run,train,0,1.5\nv/a.mp4,walk,train,1.5,\n"
    info, clips = read("folder", write(tmp_path, {"manifest.csv": cut}))
    assert [(clip.start_s, clip.end_s, clip.labels) for clip in clips.values()] == [(0.0, 1.5, (0,)), (1.5, None, (1,))]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("path,label\nx,1\n", "manifest.csv:1: no column 'split'"),
        ("path,label,split\n", "manifest.csv: no rows"),
        ("path,label,split\na,x,train\na,x,train\n", "manifest.csv:3: clip 'a' appears twice"),
        ("path,label,split\na,x,train\nb,x,eval\n", "manifest.csv:3: split 'eval' is none of"),
        ("path,label,split,end_s\na,x,train,soon\n", "manifest.csv:2: end_s is 'soon'"),
        ("path,label,split,class\na,0,train,run\nb,0,train,walk\n", "manifest.csv:3: class 0 is called 'walk' here"),
        ("path,label,split\na,1000000000,train\n", "label 1000000000 is far beyond"),
        ("path,label,split\na,x,train\nb, ,train\n", "manifest.csv:3: the label is empty"),
        ("path,label,split\na,0,train\nb,,train\n", "manifest.csv:3: the label is empty"),
        ("path,label,split\na,0,train\nb,-1,train\n", "manifest.csv:3: label -1 is negative"),
        ("path,label,split\na,0,train\nb,0.5,train\n", "manifest.csv:3: label 0.5 is not a whole number"),
        ("path,label,split\na,0,train\nb,1,train\nc,nan,val\n", "manifest.csv:4: label 'nan' is what programs write"),
        ("path,label,split\na,x,train\nb,y,train\nc,-1,val\n", "manifest.csv:4: label '-1' is a number, unlike"),
        ("path,label,split,label\na,0,train,1\n", "manifest.csv:1: 2 columns are called 'label'"),
        ("path,label,split,class\na,0,train,run\nb,1,train,run\n", "two numbers have one name"),
        ("path,label,split,start_s\na,0,train,-1\n", "manifest.csv:2: the time range -1 to inf s"),
        ("path,label,split,start_s\na,0,train,nan\n", "manifest.csv:2: the time range nan"),
        ("path,label,split,start_s\na,0,train,1_0\n", "manifest.csv:2: start_s is '1_0', not a number of seconds"),
        ("path,label,split\na,x\0,train\n", "manifest.csv:2: .* is no name of a class"),
        ("path,label,split\na,x,train\nb,\u200b,val\n", "manifest.csv:3: .* is no name of a class"),
        ("path,label,split\na,caf\xe9,train\nb,cafe\u0301,val\n", r"manifest.csv:3: .*caf.xe9' and 'cafe.u0301' look"),
        ("path,label,split\na,walk,train\nb,wa\u200blk,val\n", "manifest.csv:3: .* look alike"),
        ("path,label,split,start_s,end_s\na,0,train,1,2\nb,0,train\n", "manifest.csv:3: the row does not have"),
        ("path,label,split\na,0,train\n./a,0,val\n", "manifest.csv:3: './a' is in two splits"),
    ],
)
def test_bad_manifests(tmp_path: Path, manifest: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read("folder", write(tmp_path, {"manifest.csv": manifest}))


@pytest.mark.parametrize(
    ("listed", "labels", "numbers"),
    [
        ("1 run\n2 walk\n", ("walk", "run"), [1, 0]),
        ("1 run\n2 walk\n", ("2", "1"), [1, 0]),
        ("0 run\n1 walk\n", ("1.0", "0.0"), [1, 0]),
        ("7\nA\n", ("7", "A"), [0, 1]),
        ("", ("1.0", "0"), [1, 0]),
    ],
)
def test_labels_of_a_manifest(tmp_path: Path, listed: str, labels: tuple[str, str], numbers: list[int]) -> None:
    """Numbers are those of the list, whether it begins with 0 or with 1."""
    files = {"manifest.csv": "path,label,split\na,{},train\nb,{},val\n".format(*labels)}
    info, clips = read("folder", write(tmp_path, files | ({"classInd.txt": listed} if listed else {})))
    assert [clip.labels for clip in clips.values()] == [(number,) for number in numbers]
    assert info.num_classes == 2


def test_a_label_that_the_list_does_not_number(tmp_path: Path) -> None:
    files = {"manifest.csv": "path,label,split\na,0,train\n", "classInd.txt": "1 run\n2 walk\n"}
    with pytest.raises(UserError, match=r"manifest.csv:2: label 0 is not in .*classInd.txt, which has 1 to 2"):
        read("folder", write(tmp_path, files))


def test_folders_say_what_they_leave_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["train/run/a.MTS", "val/run/b.m2ts", "val/run/._b.m2ts", "train/jump/x.xyz", "train/loose.mp4"]
    names += ["other/c.mp4", "train/.ipynb_checkpoints/d.mp4", "val/run/notes.txt"]
    root = write(tmp_path, dict.fromkeys(names, b""))
    info, clips = read("folder", root)
    assert list(clips) == ["train/run/a.MTS", "val/run/b.m2ts"] and info.class_names == ("run",)
    for words in (
        "1 .xyz",
        "train/jump: there is no video in it",
        "train/loose.mp4: it is in no",
        "other: it is no split",
    ):
        assert words in caplog.text
    assert "ipynb" not in caplog.text and ".txt" not in caplog.text


def test_names_that_are_no_text_are_clips(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.mp4")).touch()
    info, clips = read("folder", tmp_path)
    assert list(clips) == [r"caf\xe9/\xff.mp4"] and info.class_names == (r"caf\xe9",)


def test_folders_by_class_and_by_split(tmp_path: Path) -> None:
    plain = {f"{name}/{number}.mp4": b"" for name in ("run", "walk") for number in range(10)}
    info, clips = read("folder", write(tmp_path / "plain", plain))
    assert info.class_names == ("run", "walk")
    assert [clip_id for clip_id, clip in clips.items() if clip.split == "val"] == [
        f"{name}/{number}.mp4" for name in ("run", "walk") for number in (4, 9)
    ]
    split = {"train/run/a.mp4": b"", "validation/run/b.avi": b"", "train/walk/c.webm": b"", "train/empty/x.txt": b""}
    info, clips = read("folder", write(tmp_path / "split", split))
    assert {clip_id: clip.split for clip_id, clip in clips.items()} == {
        "train/run/a.mp4": "train",
        "train/walk/c.webm": "train",
        "validation/run/b.avi": "val",
    }
    assert info.class_names == ("run", "walk")
